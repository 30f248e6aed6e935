"""How much a foreign file may cost, and the system calls that hold a process to it. No torch."""

from __future__ import annotations

import ctypes
import resource
from dataclasses import dataclass

GIB = 1 << 30

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
PR_SET_NO_NEW_PRIVS = 38


@dataclass(frozen=True)
class Limits:
    """What one conversion may use.

    Measured with torch's CUDA build: importing it takes 0.83 GB of RLIMIT_DATA and 3.4 GB of address space;
    converting a placed MobileNetV2 (14 MB) fits in 1.3 GB, a Faster R-CNN ResNet-50 (160 MB) in 1.6 GB. Above
    that count three times the file: mapped, in the module and on its way out. ``memory_bytes`` is RLIMIT_DATA;
    the address space gets a wide backstop, because shared libraries are mapped into it whole.
    """

    file_bytes: int = 4 * GIB
    tensor_bytes: int = 4 * GIB
    tensors: int = 20_000
    header_bytes: int = 64 << 20
    memory_bytes: int = 12 * GIB
    address_space_margin_bytes: int = 32 * GIB
    cpu_s: int = 300
    wall_s: int = 600


def hold(limits: Limits) -> None:
    """Bind this process to ``limits``; call before anything foreign is read."""
    pairs = [
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_DATA, limits.memory_bytes),
        (resource.RLIMIT_AS, limits.memory_bytes + limits.address_space_margin_bytes),
        (resource.RLIMIT_CPU, limits.cpu_s),
        (resource.RLIMIT_FSIZE, limits.tensor_bytes + limits.header_bytes),
    ]
    for which, value in pairs:
        hard = resource.getrlimit(which)[1]
        wanted = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # past the soft limit of CPU comes SIGXCPU, past the hard one SIGKILL, which others send too
        soft = max(0, wanted - 1) if which == resource.RLIMIT_CPU else wanted
        resource.setrlimit(which, (soft, wanted))


def leave_network() -> bool:
    """Move this process into an empty network namespace where the kernel allows it.

    Returns whether it did. The process must still be single-threaded. Also gives up gaining privileges.
    """
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        return libc.unshare(CLONE_NEWNET) == 0 or libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0
    except (OSError, AttributeError):
        return False
