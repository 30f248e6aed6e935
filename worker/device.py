"""Which device a worker computes on."""

import torch


def choose_device(asked: str) -> str:
    """`auto` is CUDA where there is one; anything else is taken as asked (`cpu`, `cuda`, `cuda:1`)."""
    if asked != "auto":
        return asked
    return "cuda" if torch.cuda.is_available() else "cpu"
