"""From whatever a file unpickled to, to one flat state dict: the one search for wrappings, for every recogniser.

People wrap weights in dictionaries (`state_dict`, `model`, `ema`), in modules (`module.`, `_orig_mod.`, `model.`) and in
both, in any order. The search walks the dictionaries, prefers a running average to the weights beside it, and takes
wrapping names off the keys.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from models_store.errors import Unusable, some
from models_store.formats import averages, class_names, normalisation
from models_store.formats.state import COUNTER, StateDict

PLAIN = (
    "state_dict",
    "model",
    "model_state_dict",
    "model_state",
    "net",
    "network",
    "weights",
    "params",
    "detector",
    "student",
    "module",
    "base_model",
    "classy_state_dict",
    "trunk",
    "backbone",
    "encoder",
)
# Beside the weights, what never holds them.
NO_WEIGHTS = re.compile(
    r"optim|sched|scaler|param_groups|callbacks|loops|hyper|args|opt$|config|cfg|meta|loss|metric|queue|history|rng_"
)
# Where Lightning's callbacks keep theirs: the average, sometimes.
CALLBACKS = "callbacks"
# A detector saved part by part: the body's name, and those of the others that make it one.
PART, OTHER_PARTS = "backbone", {"rpn", "roi_heads", "head", "neck", "fpn", "bbox_head", "transformer"}
# Names that a module gets by being inside another one.
MODULE_NAMES = {
    "module",
    "_orig_mod",
    "model",
    "net",
    "network",
    "detector",
    "backbone",
    "encoder",
    "student",
    "_forward_module",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
    "base_model",
    "ema",
    "ema_model",
    "model_ema",
    "averaged_model",
    "online_model",
    "teacher",
    "trunk",
    "_feature_blocks",
}
# In the middle of names.
INSIDE = re.compile(r"(^|\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
ABOUT_AVERAGES = averages.ABOUT
# Buffers that counters of operations (thop) leave in every module.
COUNTED = {"total_ops", "total_params"}
# Modules of the training beside the network, with weights of classes or counts.
LOSSES = {"criterion", "loss", "loss_fn", "loss_func", "metric", "metrics"}
# What tells a method whose second encoder is no average of a detector, and a file whose weights are the average already.
MOMENTUM_METHODS = ("contrast",)
SWAPPED_BY = ("message_hub",)
MAX_NESTING = 6
MAX_LISTED = 16
MOST_OWN_NAMES = 3
NEARLY_ALL = 0.8


@dataclass(frozen=True, eq=False)
class _Found:
    path: tuple[str, ...]
    tensors: Mapping[Any, Any]


def unwrap(
    obj: object, *, ordered: bool, metadata: Mapping[str, str] | None = None, weights: str | None = None
) -> StateDict:
    """The flat state dict inside ``obj``, a file's top-level object.

    ``weights``: ``ema`` or ``model`` where the file holds both; the average is taken where neither is said.
    Raises Unusable ``not_a_state_dict``, ``bad_override``, ``ambiguous``.
    """
    if weights not in (None, "ema", "model"):
        raise Unusable("bad_override", f"weights {str(weights)[:50]!r}: ema | model")
    if isinstance(obj, list | tuple) and any(isinstance(value, Mapping) for value in obj):
        obj = {f"[{i}]": value for i, value in enumerate(obj[:MAX_LISTED])}
    if not isinstance(obj, Mapping):
        raise Unusable(
            "not_a_state_dict",
            f"the file holds a {type(obj).__name__}, not a state dict: save torch.save(model.state_dict(), path)",
        )
    held = list(_flat(obj, ())) or _under_any_name(obj)
    if not held:
        raise Unusable(
            "not_a_state_dict",
            f"no state dict under the top level, which holds {some([str(k)[:60] for k in obj])}: save "
            "torch.save(model.state_dict(), path)",
        )
    if weights is None and any(key in obj for key in (*MOMENTUM_METHODS, *SWAPPED_BY)):
        weights = "model"
    partial = [] if weights == "ema" else _no_averages(held)
    ordered_held = sorted(held, key=lambda found: _preference(found, weights, partial))
    taken = ordered_held[0]
    if weights is not None and len(held) > 1 and (weights == "ema") != _is_average(taken.path):
        raise Unusable("bad_override", f"the file holds no {weights} weights: leave options weights out")
    notes = _choice(taken, ordered_held, partial) + averages.left_out(obj, taken.path, held)
    tensors = {str(k): v for k, v in taken.tensors.items() if isinstance(v, Tensor)}
    dropped = [*_beside(obj, taken.path)]
    dropped += [str(k)[:200] for k, v in taken.tensors.items() if not isinstance(v, Tensor)]
    if joined := _joined(obj, taken.path):
        used = {".".join(map(str, (*taken.path[:-1], name))) for name in joined}
        dropped = [key for key in dropped if key not in used]
        tensors = {f"{name}.{k}": v for name, part in joined.items() for k, v in part.items()}
    dropped += [k for k in tensors if k in ABOUT_AVERAGES]
    tensors = {k: v for k, v in tensors.items() if k not in ABOUT_AVERAGES}
    tensors, said = _unprefixed(tensors)
    tensors, more, two = averages.one_of_two(tensors, weights)
    dropped, notes = dropped + more, notes + said + two
    # What was left may have been alone in a wrapper of its own.
    tensors, said = _unprefixed(tensors)
    tensors, more, plain = _as_the_network_has_them(tensors)
    in_module, buffers = normalisation.as_buffers(tensors)
    tensors = {key: value for key, value in tensors.items() if key not in set(buffers)}
    return StateDict(
        tensors,
        ordered,
        dict(metadata or {}),
        tuple(dropped + more + buffers),
        tuple(notes + said + plain),
        _arguments(obj),
        class_names=class_names.beside(obj) or class_names.in_metadata(metadata or {}),
        # What the network itself does to its pixels comes before what is written down of them.
        pixels=in_module or normalisation.beside(obj) or normalisation.in_metadata(metadata or {}),
    )


def _flat(obj: Mapping[Any, Any], path: tuple[str, ...]) -> Iterator[_Found]:
    """Every dictionary of tensors that is reached through known names."""
    if _is_flat(obj):
        yield _Found(path, obj)
        return
    if len(path) >= MAX_NESTING:
        return
    averaged = [name for name in obj if averages.is_name(name) and name not in averages.NAMES]
    for name in (*averages.NAMES, *averaged, *PLAIN):
        inner = obj.get(name)
        if isinstance(inner, Mapping) and inner:
            yield from _flat(inner, (*path, name))
    callbacks = obj.get(CALLBACKS)
    for called, kept in callbacks.items() if isinstance(callbacks, Mapping) else ():
        for name in kept if isinstance(kept, Mapping) else ():
            if averages.is_name(name) and isinstance(kept[name], Mapping) and _is_flat(kept[name]):
                yield _Found((*path, CALLBACKS, called, name), kept[name])


def _under_any_name(obj: Mapping[Any, Any], path: tuple[str, ...] = ()) -> list[_Found]:
    """The one state dict under a name of somebody's own. Raises Unusable ``ambiguous`` where there are several."""
    held: list[_Found] = []
    for name, inner in obj.items():
        # Whole numbers count an optimizer's tensors.
        if isinstance(inner, Mapping) and isinstance(name, str) and not NO_WEIGHTS.search(name.lower()):
            below = (*path, name)
            held += list(_flat(inner, below)) or (
                _under_any_name(inner, below) if len(below) < MOST_OWN_NAMES else []
            )
    if len({found.path[len(path)] for found in held}) > 1:
        raise Unusable(
            "ambiguous",
            f"the file holds several state dicts ({some(['.'.join(map(str, found.path)) for found in held])}), and none has "
            'a usual name: save one of them alone, or as {"state_dict": ...}',
        )
    return held


def _is_flat(obj: Mapping[Any, Any]) -> bool:
    # A counter or two beside the weights is common; a number or two beside a dictionary of weights is, too.
    tensors = sum(isinstance(v, Tensor) for v in obj.values())
    inside = max((_tensors(v) for v in obj.values() if isinstance(v, Mapping)), default=0)
    return tensors > inside and tensors >= len(obj) / 2


def _tensors(obj: Mapping[Any, Any], depth: int = 0) -> int:
    """How many there are, also in the dictionaries of this one."""
    return sum(
        _tensors(v, depth + 1) if isinstance(v, Mapping) and depth < MAX_NESTING else isinstance(v, Tensor)
        for v in obj.values()
    )


def _is_average(path: tuple[str, ...]) -> bool:
    return any(averages.is_name(name) for name in path)


def _no_averages(held: list[_Found]) -> list[_Found]:
    """What is called an average, but has not the tensors of the weights beside it."""
    plain = [found for found in held if not _is_average(found.path)]
    if not plain:
        return []
    other = min(plain, key=lambda found: _rank(found.path, PLAIN)).tensors
    return [
        found for found in held if _is_average(found.path) and not averages.is_whole(found.tensors, other)
    ]


def _preference(found: _Found, weights: str | None, partial: list[_Found]) -> tuple[int, ...]:
    names = (*averages.NAMES, *PLAIN) if weights != "model" else (*PLAIN, *averages.NAMES)
    average = _is_average(found.path)
    wrong = average if weights == "model" else found in partial if partial else not average
    return (int(wrong), *_rank(found.path, names))


def _rank(path: tuple[str, ...], names: tuple[str, ...]) -> tuple[int, ...]:
    return tuple(names.index(name) if name in names else len(names) for name in path)


def _choice(taken: _Found, held: list[_Found], partial: list[_Found]) -> list[str]:
    paths = [".".join(map(str, found.path)) for found in held]
    if len(paths) < 2:
        return []
    said = f"the file holds {some(paths)}; {paths[0]} was taken"
    if _is_average(taken.path):
        said += ", the running average: options weights=model takes the other"
    elif any(_is_average(found.path) and found not in partial for found in held):
        said += ": options weights=ema takes the running average"
    elif partial:
        said += ", for the other has not its tensors: it is another network, or an average of some of them"
    return [said]


def _beside(obj: Mapping[Any, Any], path: tuple[str, ...]) -> Iterator[str]:
    """What lies beside the taken dictionary, at each step on the way to it."""
    for depth, name in enumerate(path):
        for key in obj:
            if key != name:
                yield ".".join([*map(str, path[:depth]), str(key)[:200]])
        obj = obj[name]


def _joined(obj: Mapping[Any, Any], path: tuple[str, ...]) -> dict[str, Mapping[str, Tensor]]:
    """The parts of a detector that was saved part by part; empty where the taken dictionary is no such part."""
    if not path or path[-1] != PART:
        return {}
    for name in path[:-1]:
        obj = obj[name]
    parts: dict[str, Mapping[str, Tensor]] = {
        str(name): {str(k): v for k, v in part.items() if isinstance(v, Tensor)}
        for name, part in obj.items()
        if isinstance(part, Mapping) and _is_flat(part) and not averages.is_name(name)
    }
    if not OTHER_PARTS & set(parts):
        return {}
    return parts


def _as_the_network_has_them(
    tensors: dict[str, Tensor],
) -> tuple[dict[str, Tensor], list[str], list[str]]:
    """Without what training hung to it: counts of operations, losses, the masks of pruning; (tensors, dropped, notes)."""
    counts = [k for k in tensors if k.rpartition(".")[2] in COUNTED or k.partition(".")[0] in LOSSES]
    tensors = {k: v for k, v in tensors.items() if k not in set(counts)}
    pruned = {k.removesuffix("_orig"): k for k in tensors if k.endswith("_orig")}
    pruned = {name: key for name, key in pruned.items() if name + "_mask" in tensors}
    notes = []
    if pruned:
        masks = {name + "_mask" for name in pruned}
        renamed = {key: name for name, key in pruned.items()}
        tensors = {
            renamed.get(k, k): v * tensors[renamed[k] + "_mask"] if k in renamed else v
            for k, v in tensors.items()
            if k not in masks
        }
        notes.append(f"{len(pruned)} pruned tensors were multiplied by their masks, as the network does")
    return tensors, counts, notes


def _unprefixed(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Without the prefixes that only say how the module was run: they are nobody's own names."""
    notes = []
    inside = {INSIDE.sub(r"\1", key): value for key, value in tensors.items()}
    while any(INSIDE.search(key) for key in inside):
        inside = {INSIDE.sub(r"\1", key): value for key, value in inside.items()}
    if set(inside) != set(tensors) and len(inside) == len(tensors):
        notes.append("names of torch.compile, FSDP or checkpointing were taken out of the keys")
        tensors = inside
    while tensors and all(key.startswith("module.") for key in tensors):
        tensors = {key.removeprefix("module."): value for key, value in tensors.items()}
        notes.append("the prefix 'module.' was stripped from every key")
    return tensors, notes


def _arguments(obj: Mapping[Any, Any]) -> dict[str, Any]:
    """Plain values of the training arguments beside the weights: `args`, and a top-level `arch`."""
    given = obj.get("args")
    held = vars(given) if isinstance(given, argparse.Namespace) else given
    found = {}
    if isinstance(held, Mapping):
        found = {str(k): v for k, v in held.items() if _is_plain(v)}
    if isinstance(obj.get("arch"), str):
        found["arch"] = obj["arch"]
    return found


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return len(value) <= MAX_LISTED and all(
            isinstance(v, int | float | str) and not isinstance(v, bool) for v in value
        )
    return value is None or isinstance(value, bool | int | float | str)


def variants(state: StateDict) -> Iterator[StateDict]:
    """The state dict, then with its one common leading name stripped, as long as there is one."""
    yield state
    for _ in range(MAX_NESTING):
        first = {key.split(".", 1)[0] for key in state.tensors if "." in key}
        if len(first) != 1 or not all("." in key for key in state.tensors):
            return
        prefix = first.pop() + "."
        if re.fullmatch(r"\d+\.", prefix):
            return
        state = stripped(state, prefix)
        yield state


def stripped(state: StateDict, prefix: str) -> StateDict:
    """Only what is behind ``prefix``, without it; the rest is dropped."""
    beside = [key for key in state.tensors if not key.startswith(prefix)]
    said = (
        f"only what is under {prefix!r} was taken"
        if beside
        else f"the prefix {prefix!r} was stripped from every key"
    )
    return replace(
        state,
        tensors={k.removeprefix(prefix): v for k, v in state.tensors.items() if k.startswith(prefix)},
        dropped=(*state.dropped, *(key for key in beside if not key.endswith(COUNTER))),
        notes=(*state.notes, said),
    )


def inner_modules(state: StateDict, *, own: bool = False) -> Iterator[StateDict]:
    """What is inside a module beside others (losses, metrics, a head): the wrapping names that keys begin with, or the number
    of a part that nearly all are under; with ``own`` also a name of somebody's own that they are under."""
    seen = [state]
    while seen:
        outer = seen.pop(0)
        names = Counter(key.split(".", 1)[0] for key in outer.tensors if "." in key)
        most = {name for name, count in names.items() if count >= NEARLY_ALL * len(outer.tensors)}
        for name in sorted(set(names) & MODULE_NAMES | {name for name in most if own or name.isdigit()}):
            inner = stripped(outer, name + ".")
            yield inner
            seen.append(inner)
