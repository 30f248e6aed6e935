"""Which of the weights in one file are a running average of the others, and which only are called so.

Trainers keep the average beside the weights under many names. A teacher may be an average of its student (mean teacher,
DINO), or another network that the student was distilled from: what has not the student's tensors is no average of it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import Tensor

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
