"""What may be done to a candidate's features or targets without changing a score: the words for it, and usual sets."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

Change = Literal["objects", "names", "columns", "scale", "shift", "rotation", "linear", "repeated", "zeros"]

CHANGES: Mapping[Change, str] = MappingProxyType(
    {
        "objects": "another order of the objects or regions",
        "names": "other class ids",
        "columns": "another order of the features' columns",
        "scale": "all features times one number, from 1e-8 to 1e8",
        "shift": "a number added to each column, up to 1e4 times the features' spread",
        "rotation": "an orthogonal map of the features",
        "linear": "an invertible linear map of the features",
        "repeated": "every column twice",
        "zeros": "columns of zeros added",
    }
)

EVERY: frozenset[Change] = frozenset(CHANGES)
ALWAYS: frozenset[Change] = frozenset({"objects", "names", "columns"})
OF_EVIDENCE: frozenset[Change] = ALWAYS | {"scale", "rotation", "repeated", "zeros"}
OF_SHRUNK_COVARIANCE: frozenset[Change] = ALWAYS | {"scale", "shift", "rotation"}
# which region of an object comes first is the caller's order
OF_SINGLE: frozenset[Change] = EVERY - {"objects"}
