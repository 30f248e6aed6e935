"""What a worker can say of the machine it computes on, without torch; a GPU is asked about by a short-lived process.

`python -m worker.machine cuda:0` is that process: it prints the facts of a device as JSON.
"""

import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PROBE_TIMEOUT_S = 120.0

CPU_INFO = Path("/proc/cpuinfo")
MEMORY_INFO = Path("/proc/meminfo")
CONTROL_GROUP = Path("/sys/fs/cgroup")
# what the kernel shows where there is a card: without one nobody needs to load torch to learn that
CARDS = ("nvidia[0-9]*", "nvidiactl", "kfd", "dxg")


def facts(asked: str) -> dict[str, Any]:
    """Of the device that `asked` (auto, cpu, cuda, cuda:N) stands for here, and of the torch that would use it.

    {"device", "device_name", "memory_total_bytes", "memory_free_bytes", "precisions", "torch"}; `precisions` are those that
    are faster than float32 or as fast. May take seconds where there is a GPU.
    """
    torch = _version("torch")
    if asked.startswith("cuda") or (asked == "auto" and may_have_card()):
        found = _asked_of_torch(asked)
        if found.get("device") != "cpu":
            return found | {"torch": torch}
    return cpu_facts() | {"torch": torch}


def may_have_card() -> bool:
    """Whether a GPU may be here and visible; true does not mean that torch can use it."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1"):
        return False
    return any(next(Path("/dev").glob(name), None) for name in CARDS)


def cpu_facts() -> dict[str, Any]:
    """Of the CPU and the memory of this machine, or of what its container may use."""
    lines = _lines(CPU_INFO)
    name = next(
        (value for key, value in lines if key == "model name"), platform.processor() or platform.machine()
    )
    flags = set(next((value for key, value in lines if key in ("flags", "Features")), "").split())
    precisions = ["float32"]
    if flags & {"avx512_bf16", "amx_bf16", "bf16"}:
        precisions.append("bfloat16")
    if flags & {"avx512_fp16", "amx_fp16", "asimdhp"}:
        precisions.append("float16")
    return {"device": "cpu", "device_name": name, **memory(), "precisions": precisions}


def memory() -> dict[str, int | None]:
    """Bytes of main memory, total and free; None where nobody says."""
    kilobytes = {key: value.split()[0] for key, value in _lines(MEMORY_INFO) if value}
    total = int(kilobytes["MemTotal"]) * 1024 if "MemTotal" in kilobytes else None
    free = int(kilobytes["MemAvailable"]) * 1024 if "MemAvailable" in kilobytes else None
    limit, used = _number(CONTROL_GROUP / "memory.max"), _number(CONTROL_GROUP / "memory.current")
    if limit is not None and total is not None and free is not None:
        total, free = min(total, limit), min(free, max(0, limit - (used or 0)))
    return {"memory_total_bytes": total, "memory_free_bytes": free}


def cuda_facts(asked: str) -> dict[str, Any]:
    """Of a CUDA device; {"device": "cpu"} where `asked` is auto and torch sees none. Loads torch."""
    import torch  # noqa: PLC0415

    if asked == "auto" and not torch.cuda.is_available():
        return {"device": "cpu"}
    device = torch.device("cuda" if asked == "auto" else asked)
    properties = torch.cuda.get_device_properties(device)
    free, total = torch.cuda.mem_get_info(device)
    precisions = ["float32", "float16"]
    if torch.cuda.is_bf16_supported(including_emulation=False):
        precisions.insert(1, "bfloat16")
    return {
        "device": str(device),
        "device_name": properties.name,
        "memory_total_bytes": total,
        "memory_free_bytes": free,
        "precisions": precisions,
    }


def _asked_of_torch(asked: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "worker.machine", asked]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=True)
        return json.loads(done.stdout.splitlines()[-1])
    except subprocess.CalledProcessError as failure:
        reason = (failure.stderr.strip().splitlines() or ["no reason given"])[-1]
    except (subprocess.TimeoutExpired, OSError, ValueError, IndexError) as failure:
        reason = f"{type(failure).__name__}: {failure}"
    return {"device": asked, "problem": f"the device could not be asked: {reason[:300]}"}


def _lines(path: Path) -> list[tuple[str, str]]:
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return []
    pairs = (line.partition(":") for line in text.splitlines())
    return [(key.strip(), value.strip()) for key, _, value in pairs]


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max": no limit
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    sys.stdout.write(json.dumps(cuda_facts(sys.argv[1])) + "\n")
