"""The conversion itself, run inside the limited child: read, recognise, build, load strictly, run once, write."""

from __future__ import annotations

import argparse
import hashlib
import math
import pickle
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models_store import archives, formats, inspect, numpy_pickle
from models_store.archs import Architecture
from models_store.build import COUNTER, architecture_of, build_module, fill, layers_of
from models_store.errors import Unusable, out_of_memory, some
from models_store.formats import reasons
from models_store.formats.state import Recognised, StateDict, unwrap
from models_store.known import Facts, input_of, known_file, metadata_input, named_facts
from models_store.limits import Limits
from models_store.manifest import IMAGENET_MEAN, IMAGENET_STD, WEIGHTS_FILE, Input, Manifest

SEED = 0
CHECK_PIXELS = (96, 128)
CHECK_PROPOSALS = 20
OVERRIDES = ("mean", "std", "min_size", "max_size", "class_names", "licence", "provenance", "options")


@dataclass(frozen=True)
class Request:
    """What to convert. ``overrides``: ``mean``, ``std``, ``min_size``, ``max_size``, ``class_names``, ``licence``,
    ``provenance``, ``options``; they win over everything found."""

    source: Path
    sha256: str
    uri: str
    out: Path
    architecture: str | None
    kind: str | None
    overrides: Mapping[str, Any]
    limits: Limits


def convert_here(request: Request) -> Manifest:
    """Write ``weights.safetensors`` and ``manifest.json`` into ``request.out``. Raises Unusable."""
    state = read(request.source, request.limits)
    check_tensors(state, request.limits)
    facts = known_file(request.sha256) or named_facts(request.uri) or Facts()
    hint = request.architecture or facts.architecture or facts.backbone
    given = dict(request.overrides.get("options", {}))
    recognised = formats.recognise(state, hint, given.pop("backbone", None) or facts.backbone)
    if request.kind not in (None, recognised.kind):
        raise Unusable("wrong_kind", f"the file is a {recognised.kind}, not a {request.kind}")
    architecture = architecture_of(recognised.architecture)
    spec = _input(architecture, recognised, state, facts, request.overrides)
    options = {**recognised.options, **facts.options, **given}
    return _write(request, state, recognised, facts, architecture, spec, options)


def read(path: Path, limits: Limits) -> StateDict:
    """The state dict of ``path`` by torch's restricted unpickler, ours for numpy, or from safetensors; nothing else."""
    inspection = inspect.inspect(path, limits)
    if inspection.container == "archive":
        return _read_folder(path, limits)
    if inspection.container == "safetensors":
        try:
            return unwrap(load_file(path), ordered=False, metadata=inspection.metadata)
        except SafetensorError as error:
            raise Unusable("corrupt", f"the safetensors file cannot be read: {error}") from None
    if inspection.container == "numpy_pickle":
        return unwrap(numpy_pickle.read(path), ordered=True)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            loaded = torch.load(
                path, map_location="cpu", weights_only=True, mmap=inspection.container == "torch_zip"
            )
    except pickle.UnpicklingError as error:
        raise _refused(path, error) from None
    except MemoryError:
        raise
    except Exception as error:  # a broken pickle stream can end in any error of the unpickler
        if out_of_memory(error):
            raise MemoryError(str(error)) from None
        raise Unusable(
            "corrupt",
            f"torch cannot read the file ({type(error).__name__}: {str(error)[:200]}): save or send it again",
        ) from None
    return unwrap(loaded, ordered=True)


def _read_folder(path: Path, limits: Limits) -> StateDict:
    """The weights of a transformers folder in an archive, with the JSON files beside them."""
    with tempfile.TemporaryDirectory() as beside:
        folder = archives.unpack(path, Path(beside), limits)
        tensors: dict[str, Tensor] = {}
        notes: list[str] = []
        for part in folder.weights:
            state = read(part, limits)
            tensors |= {k: v.clone() for k, v in state.tensors.items()}
            notes += state.notes
    return StateDict(
        tensors, False, notes=tuple(notes), config=folder.config, preprocessor=folder.preprocessor
    )


def _refused(path: Path, error: Exception) -> Unusable:
    try:
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # only a nicer message depends on it
        names = []
    names = names or sorted(set(re.findall(r"GLOBAL ([\w.]+)", str(error))))
    if not names:
        return Unusable("corrupt", f"the file is not a readable torch checkpoint ({str(error)[:300]})")
    return Unusable(
        "unsafe_pickle",
        f"the file holds more than tensors ({some(names)}) and was not run: save the weights alone with "
        "torch.save(model.state_dict(), path), or as safetensors",
        [{"global": name, "message": "not allowed"} for name in names],
    )


def check_tensors(state: StateDict, limits: Limits) -> None:
    """Refuse shapes that claim more than their storage, too much in all, and values that are not finite."""
    if len(state.tensors) > limits.tensors:
        raise Unusable("too_large", f"{len(state.tensors)} tensors, at most {limits.tensors} are read")
    total = 0
    for name, tensor in state.tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type == "meta":
            raise Unusable(
                "unsupported_tensor", f"{name!r} is not a plain tensor: dequantize or densify it first"
            )
        claimed = tensor.numel() * tensor.element_size()
        held = tensor.untyped_storage().nbytes()
        total += claimed
        if claimed > held:
            raise Unusable(
                "shape_bomb",
                f"{name!r} claims shape {list(tensor.shape)} ({claimed} bytes) over {held} bytes of storage",
            )
        if total > limits.tensor_bytes:
            raise Unusable("too_large", f"the tensors claim more than {limits.tensor_bytes} bytes")
    for name, tensor in state.tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise Unusable(
                "not_finite", f"{name!r} holds NaN or infinity: the training that wrote it had diverged"
            )


def _input(
    architecture: Architecture,
    recognised: Recognised,
    state: StateDict,
    facts: Facts,
    overrides: Mapping[str, Any],
) -> Input:
    base = asdict(architecture.input)
    if recognised.backbone is not None:
        base |= {"mean": IMAGENET_MEAN, "std": IMAGENET_STD} | input_of(recognised.backbone)
    base |= dict(recognised.input) | metadata_input(state.metadata) | dict(facts.input)
    base |= {k: overrides[k] for k in ("mean", "std", "min_size", "max_size") if k in overrides}
    for key in ("mean", "std"):
        values = tuple(float(v) for v in base[key])
        if (
            len(values) != 3
            or not all(math.isfinite(v) for v in values)
            or (key == "std" and min(values) <= 0)
        ):
            raise Unusable(
                "bad_override", f"{key} must be three finite numbers (std above 0), found {values}"
            )
        base[key] = values
    if base["fixed_size"] is not None:
        base["fixed_size"] = tuple(base["fixed_size"])
    return Input(**base)


def _write(
    request: Request,
    state: StateDict,
    recognised: Recognised,
    facts: Facts,
    architecture: Architecture,
    spec: Input,
    options: Mapping[str, Any],
) -> Manifest:
    module = build_module(
        architecture,
        num_classes=recognised.num_classes,
        input=spec,
        backbone=recognised.backbone,
        options=options,
    )
    own = module.state_dict()
    tensors = {k: v for k, v in recognised.tensors.items() if not k.endswith(COUNTER)}
    initialised: tuple[str, ...] = ()
    if recognised.kind == "backbone":
        initialised = tuple(k for k in own if k not in tensors and not k.endswith(COUNTER))
    fill(
        module, tensors, initialised, SEED, focal=architecture.family == "one_stage",
        as_built=architecture.family == "detr",
    )  # fmt: skip
    if architecture.layers is not None:
        layers = architecture.layers(module, spec, initialised)
    else:
        spec = replace(spec, divisor=module.transform.size_divisible)
        layers = layers_of(architecture.face(module), initialised)
        run_once(module, spec)
    path = request.out / WEIGHTS_FILE
    save_file({k: tensors[k].contiguous().clone() for k in sorted(tensors)}, path, metadata={"format": "pt"})
    overrides = request.overrides
    names = overrides.get("class_names", facts.class_names or recognised.class_names)
    if names is not None and recognised.num_classes is not None and len(names) != recognised.num_classes:
        raise Unusable(
            "bad_override",
            f"{len(names)} class names for a head of {recognised.num_classes} classes (without background)",
        )
    dropped = tuple(k for k in recognised.dropped if not k.endswith(COUNTER))
    manifest = Manifest(
        architecture=recognised.architecture,
        format=recognised.format,
        kind=recognised.kind,
        backbone=recognised.backbone,
        num_classes=recognised.num_classes,
        class_names=tuple(str(n) for n in names) if names is not None else None,
        has_background=architecture.has_background,
        input=spec,
        layers=layers,
        parameters=sum(p.numel() for p in module.parameters()),
        dropped_keys=dropped,
        initialised_keys=initialised,
        reasons={
            "dropped": reasons.grouped(recognised.format, dropped),
            "initialised": reasons.grouped_initialised(initialised, recognised.architecture),
        },
        initialisation_seed=SEED,
        source={"uri": request.uri, "sha256": request.sha256, "size": request.source.stat().st_size},
        weights_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        licence=overrides.get("licence", facts.licence),
        provenance={**facts.provenance, **overrides.get("provenance", {})},
        published={**facts.published, **_trained_parameters(module, initialised)},
        options=dict(options),
        notes=(*recognised.notes, *architecture.notes),
    )
    manifest.write(request.out)
    return manifest


def _trained_parameters(module: nn.Module, initialised: tuple[str, ...]) -> dict[str, int]:
    fresh = set(initialised)
    return {"trained_parameters": sum(p.numel() for n, p in module.named_parameters() if n not in fresh)}


@torch.no_grad()
def run_once(module: nn.Module, spec: Input) -> None:
    """One prediction on a small grey picture: what builds and loads must also run."""
    height, width = spec.fixed_size or CHECK_PIXELS
    transform = module.transform
    rpn = getattr(module, "rpn", None)
    kept = transform.min_size, transform.max_size, getattr(rpn, "_post_nms_top_n", None)
    if rpn is not None:
        rpn._post_nms_top_n = {"training": CHECK_PROPOSALS, "testing": CHECK_PROPOSALS}
    transform.min_size, transform.max_size = (min(CHECK_PIXELS),), max(CHECK_PIXELS)
    try:
        outputs = module([torch.full((3, height, width), 0.5)])
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        if out_of_memory(error):
            raise MemoryError(str(error)) from None
        raise Unusable("forward_failed", f"the model loads but does not run: {str(error)[:300]}") from None
    finally:
        transform.min_size, transform.max_size = kept[:2]
        if rpn is not None:
            rpn._post_nms_top_n = kept[2]
    if not all(bool(torch.isfinite(v).all()) for o in outputs for v in _floats(o)):
        raise Unusable("not_finite", "the model's output on a grey picture is not finite")


def _floats(output: Mapping[str, Tensor]) -> list[Tensor]:
    return [v for v in output.values() if v.is_floating_point()]
