"""How many classes a head has: with sigmoid heads the number of outputs does not tell whether the first one is reserved.

torchvision counts labels from 1 (its own weights never train output 0), and many people train RetinaNet and FCOS with
labels from 0, where output 0 is a class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from models_store.archs import ARCHITECTURES
from models_store.errors import Unusable
from models_store.formats.class_names import is_background
from models_store.formats.state import Recognised

# An option of dense heads, and what our own files say of themselves.
LABELS_FROM = "labels_from"


def said_in_file(family: str, has_background: bool) -> dict[str, str]:
    """What the metadata of a safetensors file says, so that it can be read again without its manifest."""
    return {LABELS_FROM: str(int(has_background))} if family == "one_stage" else {}


def in_file(found: Recognised, names: Mapping[int, str] | None) -> tuple[Recognised, tuple[str, ...] | None]:
    """The names that lie beside the weights, where they name every class of the head; else a note says that they do not.

    A background among them is no class. Indices from 1 are only a reserved output's, where the head has one.
    """
    outputs = found.num_classes
    if outputs is None or not names:
        return found, None
    first, last = min(names), max(names)
    ordered = [names[index] for index in sorted(names)]
    sigmoid = found.options.get(LABELS_FROM) == 0
    reserved = sigmoid or ARCHITECTURES[found.architecture].has_background
    if first == 0 and is_background(ordered[0]) and reserved:
        first, ordered = 1, ordered[1:]
    elif is_background(ordered[-1]):
        last, ordered = last - 1, ordered[:-1]
    contiguous = last - first + 1 == len(ordered) and first in ((0, 1) if reserved else (0,))
    fits = (outputs - 1, *([outputs] if first == 0 else [])) if sigmoid else (outputs,)
    if contiguous and ordered and len(ordered) in fits:
        said = "the names of its classes lay beside the weights"
        return replace(found, notes=(*found.notes, said)), tuple(ordered)
    said = (
        f"{len(names)} class names lie beside the weights and do not fit its head of {outputs}: they were left out; "
        "class_names gives them"
    )
    return replace(found, notes=(*found.notes, said)), None


def settle(
    found: Recognised, names: Sequence[str] | None, classes: Any, metadata: Mapping[str, str]
) -> Recognised:
    """``found`` with its classes as the given names or number say, or a file of ours; every output is kept
    where nothing says.

    Raises Unusable ``bad_override`` where they contradict the head.
    """
    outputs = found.num_classes
    if outputs is None:
        return found
    wanted = int(classes) if classes is not None else len(names) if names is not None else None
    said = metadata.get(LABELS_FROM)
    if wanted is None and said in ("0", "1") and found.options.get(LABELS_FROM) == 0:
        wanted = outputs - int(said)
    if names is not None and wanted != len(names):
        raise Unusable("bad_override", f"{len(names)} class names and {wanted} classes: give one of the two")
    if found.options.get(LABELS_FROM) != 0:
        if wanted is not None and wanted != outputs:
            raise Unusable(
                "bad_override",
                f"{wanted} class{' names' if classes is None else 'es'} for a head of {outputs} classes (without background)",
            )
        return found
    if wanted is None:
        warning = (
            f"its head has {outputs} outputs; whether the first one is a class (labels counted from 0) or reserved (from 1, "
            f"as torchvision does) is not in the file. All {outputs} are kept: give class_names or num_classes to say so"
        )
        return replace(found, warnings=(*found.warnings, warning))
    if wanted == outputs:
        return found
    if wanted != outputs - 1:
        raise Unusable(
            "bad_override",
            f"{wanted} classes for a head of {outputs} outputs: give {outputs} (labels counted from 0) or {outputs - 1} "
            "(counted from 1, the first output is reserved)",
        )
    options = {key: value for key, value in found.options.items() if key != LABELS_FROM}
    return replace(found, num_classes=wanted, options=options)
