"""The one way a checkpoint is refused."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

# The next step of a refusal that does not name one, by its code.
NEXT = {
    "truncated": "send the whole file",
    "corrupt": "save it again with torch.save(model.state_dict(), path), or send it again",
    "not_a_state_dict": "save torch.save(model.state_dict(), path)",
    "no_tensors": "save torch.save(model.state_dict(), path)",
    "too_large": "save the weights alone, without optimizer state",
    "too_slow": "save the weights alone, as safetensors",
    "shape_bomb": "save the weights again, each tensor with its own storage",
    "not_finite": "take an earlier checkpoint of the same training",
    "missing_keys": "send the whole state dict",
    "unmapped_keys": "send the network as its library builds it; of a changed one, options take=body takes the body alone",
    "shape_mismatch": "send the network as its library builds it; of a changed one, options take=body takes the body alone",
    "forward_failed": "send the network as its library builds it; of a changed one, options take=body takes the body alone",
    "bad_config": "save the folder again with save_pretrained of the installed transformers",
    "wrong_kind": "leave kind out, or correct it",
    "unknown_architecture": "choose one that is listed by `detrank checkpoints weights` or in docs/checkpoints.md",
    "sha256_mismatch": "leave sha256 out, or correct it",
    "missing_backbone": "give options backbone=torchvision/<name> or timm/<name>",
    "bad_override": "correct it, or leave it out",
    "unreachable": "try again, or send the file itself",
    "private_address": "send the file itself",
    "killed": "try again",
    "not_found": "correct the name",
    "bad_uri": "correct the name",
    "missing": "convert the checkpoint again",
    "not_a_checkpoint": "send a torch file with a state dict, or .safetensors",
    "unsafe_pickle": "save the weights alone with torch.save(model.state_dict(), path)",
    "unsupported_tensor": "save plain tensors of numbers",
    "unsuitable": "choose another checkpoint",
    "loader_failed": "save the weights alone, as safetensors",
}
A_STEP = re.compile(
    r"\b(send|give|save|correct|leave|choose|merge|download|fetch|convert|write|load it|fine-tune|take|place it|pretrain|dequantize|try)\b"
    r"|not read\b|object detectors that are read"
)


def with_next_step(code: str, detail: str) -> str:
    return detail if A_STEP.search(detail) or code not in NEXT else f"{detail.rstrip('.')}: {NEXT[code]}"


class Unusable(Exception):
    """A file or a name that cannot become a checkpoint.

    ``code`` is stable and short, ``detail`` says what was found and what to change (where it names no next step, that of
    its code is added), ``errors`` lists
    single findings (each a dict with at least ``message``).

    Codes of a file: ``missing empty too_large too_slow truncated corrupt not_a_checkpoint unsafe_pickle
    not_a_state_dict no_tensors unsupported_tensor shape_bomb not_finite unknown_architecture
    wrong_architecture wrong_kind unsuitable ambiguous missing_backbone missing_config missing_keys unmapped_keys shape_mismatch
    forward_failed sha256_mismatch
    bad_override loader_failed``, and ``killed``, which may pass; of a name also ``bad_uri not_found offline unreachable private_address``.
    """

    def __init__(self, code: str, detail: str, errors: list[dict[str, Any]] | None = None) -> None:
        detail = with_next_step(code, detail)
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.errors = list(errors or [])

    def to_json(self) -> dict[str, Any]:
        return {"code": self.code, "detail": self.detail, "errors": self.errors}


def some(names: Collection[str], count: int = 5) -> str:
    """The first few names and how many more there are, for a sentence."""
    ordered = sorted(names)
    head = ", ".join(ordered[:count])
    return head if len(ordered) <= count else f"{head} and {len(ordered) - count} more"


def out_of_memory(error: BaseException) -> bool:
    """Whether torch or the system refused an allocation; torch says it with a RuntimeError."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "allocate memory" in text or "not enough memory" in text
