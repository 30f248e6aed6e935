"""A transformers folder of an open-vocabulary detector to ``weights.safetensors`` and ``manifest.json``, in the limited child."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from models_store.build import fill
from models_store.errors import Unusable
from models_store.formats.state import StateDict
from models_store.formats.transformers_folder import loaded
from models_store.manifest import WEIGHTS_FILE, Input, Manifest
from models_store.open_vocabulary.build import (
    build,
    config_of,
    image_processor,
    plain_config,
    preprocessing_of,
)
from models_store.open_vocabulary.detector import TOKENIZER_KEY, OpenVocabularyDetector
from models_store.open_vocabulary.families import KIND, Family, architecture_name
from models_store.open_vocabulary.tokens import Tokens, tokens_in

# Buffers that older versions wrote and the module computes.
COMPUTED = ("position_ids", "relative_position_index", "relative_coords_table", "special_tokens")
CHECK_PICTURE = (96, 128)
TAKES = ("class_names", "licence", "provenance")


def convert(
    state: StateDict,
    family: Family,
    out: Path,
    *,
    source: Mapping[str, Any],
    overrides: Mapping[str, Any],
) -> Manifest:
    """Writes both files into `out`. `source`: what the file was, for the manifest.

    Raises Unusable: ``bad_config``, ``no_tokenizer``, ``bad_tokenizer``, ``missing_keys``, ``unmapped_keys``, ``shape_mismatch``,
    ``forward_failed``, ``not_finite``, ``bad_override``.
    """
    if unfit := sorted(name for name, value in overrides.items() if value and name not in TAKES[1:]):
        raise Unusable(
            "bad_override",
            f"{family.title} has no classes of its own and its folder says how pictures are read: leave {', '.join(unfit)} out",
        )
    raw = plain_config(state.config or {})
    config = config_of(family, raw)
    tokens = tokens_in(state.tokenizer, family)
    _check_words(tokens, config)
    dropped = tuple(key for key in state.tensors if key.endswith(COMPUTED))
    tensors = loaded(family, config, {k: v for k, v in state.tensors.items() if k not in dropped})
    resolved = plain_config(config.to_dict())
    notes = list(state.notes)
    preprocessor = state.preprocessor
    if preprocessor is None:
        notes.append("there was no preprocessor_config.json: the usual way to read pictures was taken")
        vision = resolved.get("vision_config")
        side = vision.get("image_size") if isinstance(vision, Mapping) else None
        preprocessor = {"size": {"height": side, "width": side}} if isinstance(side, int) else None
    kept = preprocessing_of(family, preprocessor)
    module = build(family, resolved)
    fill(module, tensors, (), 0, as_built=True)
    path = out / WEIGHTS_FILE
    document = torch.from_numpy(np.frombuffer(tokens.document.encode(), np.uint8).copy())
    save_file(
        {k: tensors[k].contiguous().clone() for k in sorted(tensors)} | {TOKENIZER_KEY: document},
        path,
        metadata={"format": "pt"},
    )
    manifest = Manifest(
        architecture=architecture_name(family),
        format="transformers",
        kind=KIND,
        has_background=False,
        input=_input(family, kept),
        layers=(),
        parameters=sum(p.numel() for p in module.parameters()),
        dropped_keys=(*state.dropped, *dropped),
        reasons={"dropped": [{"why": "the module computes it", "keys": list(dropped)}] if dropped else []},
        source=dict(source),
        weights_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        licence=overrides.get("licence"),
        provenance=dict(overrides.get("provenance", {})),
        options={"config": resolved, "preprocessor": kept, "longest_text": _longest(family, config)},
        notes=tuple(notes),
    )
    _run_once(OpenVocabularyDetector(manifest, module, tokens))
    manifest.write(out)
    return manifest


def _check_words(tokens: Tokens, config: Any) -> None:
    rows = config.text_config.vocab_size
    if max(tokens.tokenizer.get_vocab().values()) >= rows:
        raise Unusable(
            "bad_tokenizer",
            f"the tokenizer has ids up to {max(tokens.tokenizer.get_vocab().values())}, and the model knows {rows}: send the "
            "folder with the tokenizer that it was trained with",
        )


def _longest(family: Family, config: Any) -> int:
    """Tokens of one text, with its marks."""
    return int(
        config.max_text_len if family.rule == "phrases" else config.text_config.max_position_embeddings
    )


def _input(family: Family, kept: Mapping[str, Any]) -> Input:
    """What is shown of how pictures are read; transformers' own processor reads them."""
    made = image_processor(family, kept)
    scale = 1.0 if made.do_rescale else 255.0
    mean, std = (_by_channel(values, scale) for values in (made.image_mean, made.image_std))
    size = made.size
    if size.height is not None:
        return Input(fixed_size=(size.height, size.width), mean=mean, std=std, divisor=1)
    return Input(min_size=size.shortest_edge, max_size=size.longest_edge, mean=mean, std=std, divisor=1)


def _by_channel(values: Sequence[float], scale: float) -> tuple[float, float, float]:
    red, green, blue = (float(value) / scale for value in values)
    return red, green, blue


@torch.inference_mode()
def _run_once(detector: OpenVocabularyDetector) -> None:
    """Two words and a grey picture: what loads must also run."""
    try:
        asked = detector.ask(["a", "b"])
        (said,) = detector.look([np.full((*CHECK_PICTURE, 3), 128, np.uint8)], asked)
    except (
        RuntimeError,
        ValueError,
        AssertionError,
        IndexError,
        TypeError,
        AttributeError,
        KeyError,
    ) as error:
        if "alloc" in str(error):
            raise MemoryError(str(error)[:200]) from None
        raise Unusable("forward_failed", f"the model loads but does not run: {str(error)[:300]}") from None
    if not all(bool(torch.isfinite(each).all()) for each in (said.boxes, said.scores)):
        raise Unusable("not_finite", "the model's output on a grey picture is not finite")
