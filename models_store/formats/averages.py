"""Which of the weights in one file are a running average of the others, and which only are called so.

Trainers keep the average beside the weights under many names. A teacher may be an average of its student (mean teacher,
DINO), or another network that the student was distilled from: what has not the student's tensors is no average of it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from models_store.errors import some
from models_store.formats.state import COUNTER

# In the order of preference.
NAMES = (
    "ema",
    "model_ema",
    "ema_model",
    "state_dict_ema",
    "ema_state_dict",
    "averaged_model",
    "average_model",
    "swa_model",
    "shadow",
    "teacher",
)
# The same words inside other names, as `model_ema_state_dict` or `params_ema`, or as `modelTeacher`.
WORD = re.compile(
    r"(^|[_-])(?i:ema|swa|shadow|averaged?|avg|teacher)([_-]|$)|[a-z](EMA|Ema|Teacher)($|[A-Z_])"
)
ABOUT = {"n_averaged", "initted", "step", "steps", "num_updates", "updates", "decay"}
# A head or two may be on one side alone; norms' statistics, or the blocks of a deeper network, may not.
LEAST_COMMON = 0.9
# Names under which one module holds the weights that an average is of.
HOLDERS = {"model", "module", "net", "network", "detector", "online_model"}
# mmcv keeps the average (or after its swap, the plain weights) beside the weights, dots turned to lines.
MMCV_AVERAGE = re.compile(r"ema_\w+")
# ema_pytorch keeps both in its own module, whose this is the average.
INNER = ".ema_model."


def is_name(name: object) -> bool:
    return name in NAMES or (isinstance(name, str) and WORD.search(name) is not None)


def is_whole(average: Mapping[Any, Any], other: Mapping[Any, Any]) -> bool:
    """Whether ``average`` has tensors of the shapes that ``other`` has, and hardly any more, as an average of it has."""
    inner = {key: value for key, value in average.items() if INNER in str(key)}
    theirs, wanted = _shapes(inner or average), _shapes(other)
    return (theirs & wanted).total() >= LEAST_COMMON * max(theirs.total(), wanted.total())


def _shapes(state: Mapping[Any, Any]) -> Counter[tuple[int, ...]]:
    return Counter(
        tuple(value.shape)
        for key, value in state.items()
        if isinstance(value, Tensor) and value.dim() and not str(key).endswith(COUNTER)
    )


def one_of_two(
    tensors: dict[str, Tensor], weights: str | None
) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """One of two models that lie in one dictionary, as `model.` beside `ema.`; (tensors, dropped, notes)."""
    plain_names = {k.replace(".", "_") for k in tensors}
    mmcv = [k for k in tensors if MMCV_AVERAGE.fullmatch(k) and k[len("ema_") :] in plain_names]
    tensors = {k: v for k, v in tensors.items() if k not in set(mmcv)}
    by_name = _by_name(tensors)
    called = [name for name in by_name if is_name(name)]
    others = [name for name in by_name if name not in called and _is_holder(name, called)]
    if not called or not others:
        return tensors, mmcv, []
    other = max(others, key=lambda name: len(by_name[name]))
    average = max(called, key=lambda name: (is_whole(by_name[name], by_name[other]), len(by_name[name])))
    whole = is_whole(by_name[average], by_name[other])
    taken, left = (average, other) if weights != "model" and (whole or weights == "ema") else (other, average)
    aside = {k for name in {left, *called} - {taken} for k in by_name[name]}
    if any(INNER in key for key in by_name[taken]):
        aside |= {key for key in by_name[taken] if INNER not in key}
    kept = {k: v for k, v in tensors.items() if k not in aside}
    said = f"the file holds {left}.* and {taken}.*; {taken}.* was taken"
    if whole or weights == "ema":
        said += f": options weights={'ema' if left == average else 'model'} takes the other"
    else:
        said += f", for {left}.* has not its tensors: it is another network, or an average of some of them"
    return kept, [*mmcv, *(k for k in tensors if k in aside)], [said]


def _by_name(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """By the first name that they do not all have, wherever both models lie in a module together."""
    start = ""
    while True:
        by_name: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            first, dot, _ = key.removeprefix(start).partition(".")
            if dot:
                by_name.setdefault(first, {})[key] = value
        if len(by_name) != 1 or len(only := next(iter(by_name.values()))) < len(tensors):
            return by_name
        start += next(iter(by_name)) + "."
        if any("." not in key.removeprefix(start) for key in only):
            return by_name


def _is_holder(name: str, called: Sequence[str]) -> bool:
    """Whether it is the model itself: by a usual name, or that of the average without its word, as `rcnn` beside `ema_rcnn`."""
    usual = name in HOLDERS or name.startswith(("student", "modelStudent"))
    return usual or any(WORD.sub("_", average).strip("_-") == name for average in called)


def left_out(obj: Mapping[Any, Any], path: Sequence[Any], held: Sequence[Any]) -> list[str]:
    """What a note says of other weights beside those at ``path``, of which nobody spoke: ``held`` are those that were weighed."""
    spoken = {".".join(map(str, each.path)) for each in held}
    taken: Any = obj
    for name in path:
        taken = taken[name]
    others, nameless = [], []
    for depth, name in enumerate(path):
        for key, value in obj.items():
            where = ".".join(map(str, (*path[:depth], key)))
            if key == name or any(each == where or each.startswith(where + ".") for each in spoken):
                continue
            if isinstance(value, Mapping) and is_whole(value, taken):
                others.append(where)
            elif is_name(key) and _without_names(value):
                nameless.append(where)
        obj = obj[name]
    notes = []
    if others:
        notes.append(
            f"beside the taken weights ({path[-1]}) lie others of the same network, which were left out ({some(others)}): save "
            "those alone to have them instead"
        )
    if nameless:
        notes.append(
            f"an average without names of its tensors was left out ({some(nameless)}): copy it to the model, as torch_ema's "
            "copy_to does, and save that model's state dict to have it instead"
        )
    return notes


def _without_names(value: object) -> bool:
    """A list of tensors, or what holds one."""
    held = list(value.values()) if isinstance(value, Mapping) else [value]
    return any(
        isinstance(v, list | tuple) and len(v) > 1 and all(isinstance(t, Tensor) for t in v) for v in held
    )
