"""`python -m worker.device_check DEVICE`: what a worker of this host computes on, and whether it does, as one line of JSON.

{"device", "name", "torch", "driver", "memory_bytes", "precisions", "images_per_second", "step_seconds", "wrong"}: `wrong` has a
sentence for each thing that does not work. A process of its own, so that a device which breaks takes nobody with it.
"""

import json
import sys
import time
from typing import Any

import torch
import torchvision

from worker.device import choose_device

SIZE = 320
BATCH = 4
FORMATS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def main(asked: str = "auto") -> None:
    found = check(choose_device(asked))
    sys.stdout.write(json.dumps(found) + "\n")
    if found["wrong"]:
        sys.exit(1)


def check(device: str) -> dict[str, Any]:
    """One batch forward in every number format and one training step of a small two-stage detector."""
    found: dict[str, Any] = {"device": device, "torch": torch.__version__, "wrong": []}
    if device.startswith("cuda") and not torch.cuda.is_available():
        found["wrong"].append(
            f"torch {torch.__version__} finds no CUDA device: install the driver and the CUDA build of torch, "
            "or set DETRANK_DEVICE=cpu"
        )
        return found
    if device.startswith("cuda"):
        about = torch.cuda.get_device_properties(torch.device(device))
        found |= {"name": about.name, "memory_bytes": about.total_memory, "driver": torch.version.cuda}
    detector = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=3
    )
    try:
        detector.to(device)
        found["precisions"] = [name for name, kind in FORMATS.items() if _runs_in(detector, device, kind)]
        found["images_per_second"] = round(BATCH / _seconds(lambda: _forward(detector, device), device), 2)
        found["step_seconds"] = round(_seconds(lambda: _step(detector, device), device), 3)
    except RuntimeError as failure:  # out of memory is one of these
        found["wrong"].append(f"{device} does not compute: {type(failure).__name__}: {failure}"[:500])
    if "float32" not in found.get("precisions", ["float32"]):
        found["wrong"].append(f"{device} gives numbers that are not finite in float32")
    return found


def _pictures(device: str) -> list[torch.Tensor]:
    drawn = torch.rand(BATCH, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    return list(drawn.to(device))


def _runs_in(detector: torch.nn.Module, device: str, kind: torch.dtype) -> bool:
    body = detector.backbone.eval()
    batch = torch.stack(_pictures(device))
    try:
        with (
            torch.inference_mode(),
            torch.autocast(device.split(":")[0], kind, enabled=kind != torch.float32),
        ):
            return all(bool(torch.isfinite(each).all()) for each in body(batch).values())
    except (RuntimeError, TypeError):  # a format the device does not have
        return False


def _forward(detector: torch.nn.Module, device: str) -> None:
    detector.eval()
    with torch.inference_mode():
        detector(_pictures(device))


def _step(detector: torch.nn.Module, device: str) -> None:
    detector.train()
    target = {
        "boxes": torch.tensor([[40.0, 40.0, 200.0, 200.0]], device=device),
        "labels": torch.tensor([1], device=device),
    }
    losses = detector(_pictures(device), [dict(target) for _ in range(BATCH)])
    sum(losses.values()).backward()
    detector.zero_grad()


def _seconds(work: Any, device: str) -> float:
    """Of the second call: the first one also chooses kernels."""
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    began = time.perf_counter()
    work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    main(*sys.argv[1:])
