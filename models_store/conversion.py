"""The conversion itself, run inside the limited child: read, recognise, build, load strictly, run once, write."""

from __future__ import annotations

import hashlib
import pickle
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from models_store import archives, formats, harmless, inputs, inspect, labels, learned, numpy_pickle
from models_store.archs import Architecture
from models_store.build import COUNTER, architecture_of, build_module, fill, layers_of
from models_store.errors import Unusable, out_of_memory, some
from models_store.formats import caffe, reasons
from models_store.formats.refused import network_named
from models_store.formats.state import Recognised, StateDict
from models_store.formats.wrappings import unwrap
from models_store.known import Facts, known_file, named_facts
from models_store.limits import Limits
from models_store.manifest import WEIGHTS_FILE, Input, Manifest
from models_store.open_vocabulary import convert as open_vocabulary
from models_store.open_vocabulary.families import KIND, Family, architecture_name, family_of

SEED = 0
CHECK_PIXELS = (96, 128)
CHECK_PROPOSALS = 20
# Options that stand for training arguments, where the file has none.
ARGUMENTS = (
    "nheads",
    "sa_nheads",
    "ca_nheads",
    "dilation",
    "num_queries",
    "dropout",
    "num_windows",
    "window_block_indexes",
    "out_feature_indexes",
    "resolution",
)


LEARNED = (".weight", ".bias", ".running_mean", ".running_var")
TURNED = ("trained on BGR: its first convolution was turned round, so that it takes RGB as all others do",)


@dataclass(frozen=True)
class Request:
    """What to convert. ``overrides``, as ``load.convert`` describes them, win over everything found."""

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
    overrides = request.overrides
    facts = known_file(request.sha256) or named_facts(request.uri) or Facts()
    given = {**facts.options, **overrides.get("options", {})}
    state = read(request.source, request.limits, given.pop("weights", None))
    check_tensors(state, request.limits)
    if (family := family_of(state.config)) is not None:
        return _convert_open_vocabulary(request, state, family)
    said = {name: given.pop(name) for name in ARGUMENTS if name in given}
    state = replace(state, arguments={**state.arguments, **said})
    hint = request.architecture or facts.architecture or facts.backbone
    backbone, take = given.pop("backbone", None) or facts.backbone, given.pop("take", None)
    recognised = inputs.as_beside(formats.recognise(state, hint, backbone, take=take), state)
    if request.kind not in (None, recognised.kind):
        raise Unusable("wrong_kind", f"the file is a {recognised.kind}, not a {request.kind}")
    names = overrides.get("class_names", facts.class_names or recognised.class_names)
    if names is None and "num_classes" not in overrides:
        recognised, names = labels.in_file(recognised, state.class_names)
    recognised = labels.settle(recognised, names, overrides.get("num_classes"), state.metadata)
    recognised, order = caffe.settle(
        recognised, given.pop("stride_in_1x1", None), inputs.channel_order(overrides)
    )
    for name, why in recognised.open_options.items():
        if name not in given:
            raise Unusable("ambiguous", why)
    recognised = replace(
        recognised,
        options=merged(recognised.options, given),
        warnings=tuple(w for w in recognised.warnings if not settled(w, given, overrides)),
        class_names=tuple(str(name) for name in names) if names is not None else None,
    )
    if order == "bgr":
        recognised = replace(recognised, tensors=inputs.turned(recognised.tensors))
    learned.check_learned(recognised.tensors)
    architecture = architecture_of(recognised.architecture)
    spec = inputs.input_spec(architecture, recognised, state, facts, overrides)
    doubts = (
        *inputs.maybe_otherwise(recognised, spec, state, facts, overrides),
        *learned.doubtful(recognised.tensors),
    )
    recognised = replace(recognised, warnings=(*doubts, *recognised.warnings))
    return _write(request, recognised, facts, architecture, spec, order)


def _convert_open_vocabulary(request: Request, state: StateDict, family: Family) -> Manifest:
    for asked, found, code in (
        (request.kind, KIND, "wrong_kind"),
        (request.architecture, architecture_name(family), "wrong_architecture"),
    ):
        if asked not in (None, found):
            raise Unusable(code, f"the file is a {found}, not {asked}: leave it out, or correct it")
    source = {"uri": request.uri, "sha256": request.sha256, "size": request.source.stat().st_size}
    return open_vocabulary.convert(state, family, request.out, source=source, overrides=request.overrides)


def merged(found: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Options as given before those found; of configurations each entry by itself."""
    inner = {
        name: merged(found[name], value)
        for name, value in given.items()
        if name.endswith("config") and isinstance(value, Mapping) and isinstance(found.get(name), Mapping)
    }
    return {**found, **given, **inner}


def settled(warning: str, options: Mapping[str, Any], overrides: Mapping[str, Any]) -> bool:
    """Whether what is given is what the warning asks for: an option, named as ``options <name>``, or the first of what it says
    to ``give``."""
    asked = re.search(r"\bgive (\w+)", warning)
    return (asked is not None and overrides.get(asked[1]) is not None) or any(
        re.search(rf"\boptions {re.escape(name)}\b", warning) for name in options
    )


def read(path: Path, limits: Limits, weights: str | None = None, *, packed: bool = False) -> StateDict:
    """The state dict of ``path`` by torch's restricted unpickler, ours for numpy, or from safetensors; nothing else.

    ``packed``: it was in an archive, and may be none itself.
    """
    inspection = inspect.inspect(path, limits)
    if inspection.container == "archive":
        if packed:
            raise Unusable(
                "not_a_checkpoint", "the archive holds an archive: unpack it and send the checkpoint alone"
            )
        return _read_folder(path, limits, weights)
    if inspection.container == "safetensors":
        try:
            tensors = load_file(path)
        except SafetensorError as error:
            raise Unusable("corrupt", f"the safetensors file cannot be read: {error}") from None
        # safetensors' save_model writes tensors that share their memory once, and says under which names they were.
        shared = {k: tensors[v] for k, v in inspection.metadata.items() if v in tensors and k not in tensors}
        return unwrap(tensors | shared, ordered=False, metadata=inspection.metadata, weights=weights)
    if inspection.container == "numpy_pickle":
        return unwrap(numpy_pickle.read(path), ordered=True, weights=weights)
    try:
        with torch.serialization.safe_globals(harmless.Allowed().names):
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
    made, notes = harmless.plain(loaded)
    state = unwrap(made, ordered=True, weights=weights)
    return replace(state, notes=(*notes, *state.notes))


def _read_folder(path: Path, limits: Limits, weights: str | None) -> StateDict:
    """The weights of a transformers folder in an archive, with the JSON files beside them; or one packed checkpoint."""
    with tempfile.TemporaryDirectory() as beside:
        folder = archives.unpack(path, Path(beside), limits)
        if folder.config is None:
            state = read(folder.weights[0], limits, weights, packed=True)
            # What is mapped into memory outlives its file.
            return replace(state, notes=("the checkpoint was packed in an archive", *state.notes))
        tensors: dict[str, Tensor] = {}
        notes: list[str] = []
        for part in folder.weights:
            state = read(part, limits, packed=True)
            tensors |= {k: v.clone() for k, v in state.tensors.items()}
            notes += state.notes
    return StateDict(
        tensors,
        False,
        notes=tuple(notes),
        config=folder.config,
        preprocessor=folder.preprocessor,
        tokenizer=folder.tokenizer,
    )


def _refused(path: Path, error: Exception) -> Unusable:
    try:
        names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # only a nicer message depends on it
        names = []
    named = {name for _, name in (e for e in harmless.Allowed().names if isinstance(e, tuple))}
    names = [name for name in names if name not in named]
    names = names or sorted(set(re.findall(r"GLOBAL ([\w.]+)", str(error))))
    if known := network_named(names):
        return Unusable(
            "unsafe_pickle", known, [{"global": name, "message": "not allowed"} for name in names]
        )
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
        if tensor.dim() > inspect.MAX_DIMENSIONS:
            raise Unusable("shape_bomb", f"{name[:200]!r} has {tensor.dim()} dimensions")
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type == "meta":
            raise Unusable(
                "unsupported_tensor", f"{name!r} is not a plain tensor: dequantize or densify it first"
            )
        tiny = tensor.is_floating_point() and tensor.element_size() == 1
        if tensor.is_complex() or tiny or (name.endswith(LEARNED) and not tensor.is_floating_point()):
            raise Unusable(
                "unsupported_tensor",
                f"{name[:200]!r} holds {str(tensor.dtype).removeprefix('torch.')}, as quantised weights do, whose scales are "
                "elsewhere: dequantize it, or send the weights in floating point",
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
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise Unusable("not_finite", f"{name!r} holds variances below 0: the file was changed or damaged")


def _write(
    request: Request,
    recognised: Recognised,
    facts: Facts,
    architecture: Architecture,
    spec: Input,
    order: str,
) -> Manifest:
    options = recognised.options
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
        module,
        tensors,
        initialised,
        SEED,
        focal=architecture.family == "one_stage",
        as_built=architecture.family == "detr",
    )
    if architecture.layers is not None:
        layers = architecture.layers(module, spec, initialised)
    else:
        spec = replace(spec, divisor=module.transform.size_divisible)
        layers = layers_of(architecture.face_of(module), initialised)
        run_once(module, spec)
    path = request.out / WEIGHTS_FILE
    has_background = architecture.has_background and options.get(labels.LABELS_FROM) != 0
    save_file(
        {k: tensors[k].contiguous().clone() for k in sorted(tensors)},
        path,
        # one entry: see save.py
        metadata=dict(labels.said_in_file(architecture.family, has_background)) or {"format": "pt"},
    )
    overrides = request.overrides
    dropped = tuple(k for k in recognised.dropped if not k.endswith(COUNTER))
    manifest = Manifest(
        architecture=recognised.architecture,
        format=recognised.format,
        kind=recognised.kind,
        backbone=recognised.backbone,
        num_classes=recognised.num_classes,
        class_names=recognised.class_names,
        has_background=has_background,
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
        source={
            "uri": request.uri,
            "sha256": request.sha256,
            "size": request.source.stat().st_size,
            **({"channel_order": order} if order != "rgb" else {}),
        },
        weights_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        licence=overrides.get("licence", facts.licence),
        provenance={**facts.provenance, **overrides.get("provenance", {})},
        published={**facts.published, **_trained_parameters(module, initialised)},
        options=dict(options),
        notes=(*recognised.notes, *architecture.notes, *(TURNED if order == "bgr" else ())),
        warnings=recognised.warnings,
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
