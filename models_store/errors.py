"""The one way a checkpoint is refused."""

from __future__ import annotations

from typing import Any


class Unusable(Exception):
    """A file or a name that cannot become a checkpoint.

    ``code`` is stable and short, ``detail`` says what was found and what to change, ``errors`` lists
    single findings (each a dict with at least ``message``).

    Codes of a file: ``missing empty too_large too_slow truncated corrupt not_a_checkpoint unsafe_pickle
    not_a_state_dict no_tensors unsupported_tensor shape_bomb not_finite unknown_architecture
    wrong_architecture wrong_kind unsuitable missing_backbone missing_config missing_keys unmapped_keys shape_mismatch forward_failed sha256_mismatch
    bad_override loader_failed``; of a name also ``bad_uri not_found unreachable``.
    """

    def __init__(self, code: str, detail: str, errors: list[dict[str, Any]] | None = None) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail
        self.errors = list(errors or [])

    def to_json(self) -> dict[str, Any]:
        return {"code": self.code, "detail": self.detail, "errors": self.errors}


def some(names: list[str] | tuple[str, ...] | set[str], count: int = 5) -> str:
    """The first few names and how many more there are, for a sentence."""
    ordered = sorted(names)
    head = ", ".join(ordered[:count])
    return head if len(ordered) <= count else f"{head} and {len(ordered) - count} more"


def out_of_memory(error: BaseException) -> bool:
    """Whether torch or the system refused an allocation; torch says it with a RuntimeError."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "allocate memory" in text or "not enough memory" in text
