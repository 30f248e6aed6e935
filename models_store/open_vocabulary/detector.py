"""An open-vocabulary detector, ready to be asked: words are read once, then pictures are looked at."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from models_store.build import fill
from models_store.errors import Unusable
from models_store.manifest import WEIGHTS_FILE, Manifest
from models_store.open_vocabulary.build import build, image_processor
from models_store.open_vocabulary.families import BY_ARCHITECTURE, KIND, Family
from models_store.open_vocabulary.prompts import (
    Classes,
    Phrases,
    Queries,
    read_classes,
    read_phrases,
    read_queries,
)
from models_store.open_vocabulary.said import Said, by_classes, by_phrases, by_queries, joined, one_of_a_place
from models_store.open_vocabulary.tokens import Tokens, opened

# Where the tokenizer's document is among the weights, as bytes: one file is the whole checkpoint.
TOKENIZER_KEY = "tokenizer.json"


class Asked(Protocol):
    """Prompts that the model has read."""

    @property
    def texts(self) -> int:
        """How many texts each picture is looked at with."""
        ...


class OpenVocabularyDetector:
    """`module` is in evaluation mode and frozen. For one thread."""

    def __init__(self, manifest: Manifest, module: nn.Module, tokens: Tokens) -> None:
        self.manifest = manifest
        self.family: Family = BY_ARCHITECTURE[manifest.architecture]
        self.module = module.eval().requires_grad_(False)
        self.tokens = tokens

    def prompt_for(self, name: str) -> str:
        """What is asked for a class of that name where nobody says otherwise."""
        return self.family.template.format(" ".join(name.replace("_", " ").split()))

    @torch.inference_mode()
    def ask(self, prompts: Sequence[str]) -> Asked:
        """Reads the prompts, in the form that the family was trained with.

        Raises Unusable: ``bad_prompt``, ``prompt_too_long``.
        """
        if not prompts:
            raise Unusable("bad_prompt", "there is no prompt: give one for each class")
        config = self.module.config
        if self.family.rule == "phrases":
            return read_phrases(self.tokens, prompts, config.max_text_len)
        if self.family.rule == "queries":
            return read_queries(self.tokens, prompts, self.module)
        return read_classes(self.tokens, prompts, self.module)

    @torch.inference_mode()
    def look(self, pictures: Sequence[np.ndarray], asked: Asked, image_size: int | None = None) -> list[Said]:
        """What it finds in each of uint8 (h, w, 3) RGB pictures, whatever the score, in pixels of the picture.

        `image_size`: the shorter side, of a family whose pictures have no fixed size. Raises Unusable ``bad_override`` of others.
        """
        if image_size is not None and self.family.fixed:
            raise Unusable(
                "bad_override", f"{self.family.title} looks at pictures of one size: leave image_size out"
            )
        inputs = self._inputs(pictures, image_size)
        if isinstance(asked, Phrases):
            return self._phrases(pictures, asked, inputs)
        if isinstance(asked, Queries):
            return self._queries(pictures, asked, inputs)
        if isinstance(asked, Classes):
            return self._classes(pictures, asked, inputs)
        raise TypeError(f"{type(asked).__name__} is nothing that was asked of a detector")

    def _inputs(self, pictures: Sequence[np.ndarray], image_size: int | None) -> dict[str, Tensor]:
        processor = image_processor(self.family, self.manifest.options["preprocessor"], image_size)
        read: Any = processor(list(pictures), return_tensors="pt", input_data_format="channels_last")
        device = next(self.module.parameters()).device
        # the fixed sizes need no mask, and OmDet-Turbo and OWL take none
        names = ("pixel_values",) if self.family.fixed else ("pixel_values", "pixel_mask")
        return {name: read[name].to(device) for name in names if name in read}

    def _phrases(
        self, pictures: Sequence[np.ndarray], asked: Phrases, inputs: dict[str, Tensor]
    ) -> list[Said]:
        device = inputs["pixel_values"].device
        parts: list[list[Said]] = [[] for _ in pictures]
        for ids, phrases in asked.chunks:
            text = torch.tensor(ids, device=device).expand(len(pictures), -1)
            output = self.module(input_ids=text, attention_mask=torch.ones_like(text), **inputs)
            whose = torch.tensor(phrases, device=device)
            for number, picture in enumerate(pictures):
                parts[number].append(
                    by_phrases(output.logits[number], output.pred_boxes[number], whose, _extent(picture))
                )
        return [one_of_a_place(each) for each in parts]

    def _queries(
        self, pictures: Sequence[np.ndarray], asked: Queries, inputs: dict[str, Tensor]
    ) -> list[Said]:
        maps, _ = self.module.image_embedder(**inputs)
        patches = maps.flatten(1, 2)
        texts = asked.embedded.to(patches.device).expand(len(pictures), -1, -1)
        logits, _ = self.module.class_predictor(patches, texts)
        boxes = self.module.box_predictor(patches, maps)
        # OWLv2 pads a picture to a square before it is resized
        square = self.family.model_type == "owlv2"
        return [
            by_queries(logits[number], boxes[number], _extent(picture, square))
            for number, picture in enumerate(pictures)
        ]

    def _classes(
        self, pictures: Sequence[np.ndarray], asked: Classes, inputs: dict[str, Tensor]
    ) -> list[Said]:
        maps = self.module.encoder(self.module.vision_backbone(inputs["pixel_values"]), return_dict=True)
        parts: list[list[Said]] = [[] for _ in pictures]
        for chunk in asked.chunks:
            classes, task, mask = (each.to(inputs["pixel_values"].device) for each in chunk.embedded)
            output = self.module.decoder(
                maps.extracted_states,
                classes.expand(-1, len(pictures), -1),
                task.expand(-1, len(pictures), -1),
                mask.expand(len(pictures), -1),
                return_dict=True,
            )
            for number, picture in enumerate(pictures):
                said = by_classes(
                    output.decoder_classes[-1][number], output.decoder_coords[-1][number], _extent(picture)
                )
                parts[number].append(Said(said.boxes, said.scores, said.texts, said.prompts + chunk.first))
        return [joined(each) for each in parts]


def load_open_vocabulary(folder: Path, *, device: str | torch.device = "cpu") -> OpenVocabularyDetector:
    """The converted checkpoint in `folder`, frozen, on `device`.

    Raises Unusable ``missing``, ``corrupt``, ``wrong_kind``.
    """
    folder = Path(folder)
    try:
        manifest = Manifest.read(folder)
        raw = (folder / WEIGHTS_FILE).read_bytes()
    except FileNotFoundError as error:
        raise Unusable("missing", f"{Path(error.filename).name} is not in the checkpoint's folder") from None
    except (ValueError, KeyError, TypeError) as error:
        raise Unusable("corrupt", f"manifest.json cannot be read: {error}") from None
    if manifest.kind != KIND:
        raise Unusable(
            "wrong_kind",
            f"the checkpoint is a {manifest.kind} of {manifest.architecture}, which words say nothing to: give an open-vocabulary "
            "detector",
        )
    if hashlib.sha256(raw).hexdigest() != manifest.weights_sha256:
        raise Unusable(
            "corrupt", f"{WEIGHTS_FILE} is not the file that manifest.json describes: convert again"
        )
    del raw
    try:
        tensors = load_file(folder / WEIGHTS_FILE)
        document = bytes(tensors.pop(TOKENIZER_KEY).numpy()).decode()
    except (SafetensorError, KeyError, UnicodeDecodeError) as error:
        raise Unusable("corrupt", f"{WEIGHTS_FILE} cannot be read: {error}") from None
    family = BY_ARCHITECTURE[manifest.architecture]
    module = build(family, manifest.options["config"])
    fill(module, tensors, (), 0, as_built=True)
    return OpenVocabularyDetector(manifest, module.to(device), opened(document, family))


def _extent(picture: np.ndarray, square: bool = False) -> tuple[float, float]:
    height, width = picture.shape[:2]
    return (max(height, width),) * 2 if square else (width, height)
