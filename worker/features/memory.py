"""Memory that is free for a batch."""

from __future__ import annotations

import torch

from worker.machine import memory


def free_bytes(device: torch.device) -> int | None:
    """Bytes that a device, or this machine, can still give, what torch holds unused included; None where nobody says."""
    if device.type != "cuda":
        return memory()["memory_free_bytes"]
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
