"""Open-vocabulary detectors: their folders are read, and what they say is what transformers' own classes and processors say."""

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import pad
from torchvision.ops import batched_nms
from transformers.models.grounding_dino.modeling_grounding_dino import build_label_maps

from models_store import Manifest, Unusable, convert, load_detector
from models_store.manifest import WEIGHTS_FILE
from models_store.open_vocabulary import prompts
from models_store.open_vocabulary.detector import OpenVocabularyDetector, load_open_vocabulary
from models_store.open_vocabulary.prompts import Phrases
from models_store.open_vocabulary.said import Said, one_of_a_place
from tests import open_vocabulary_models as small

torch.set_num_threads(1)
PROMPTS = ["red square", "a cat", "kitten", "dog"]


def pictures() -> list[np.ndarray]:
    """Of different shapes, so that a batch is padded."""
    draw = np.random.default_rng(0)
    return [draw.integers(0, 255, (*size, 3), dtype=np.uint8) for size in ((60, 90), (80, 50), (64, 64))]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Of a family's name the folder in which `model` is what people have, and `converted` what becomes of it."""

    @cache
    def folder_of(family: str) -> Path:
        home = tmp_path_factory.mktemp(family)
        small.converted(home, small.saved(family, home / "model"))
        return home

    return folder_of


@pytest.fixture(scope="module", params=small.FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def detectors(folders: Callable[[str], Path]) -> Callable[[str], OpenVocabularyDetector]:
    return cache(lambda family: load_open_vocabulary(folders(family) / "converted"))


@pytest.fixture(scope="module")
def detector(family: str, detectors: Callable[[str], OpenVocabularyDetector]) -> OpenVocabularyDetector:
    return detectors(family)


@torch.inference_mode()
def as_transformers(family: str, asked: list[str], batch: list[np.ndarray]) -> tuple[Any, Any]:
    """(raw output, processor) of the library's own class on the random weights."""
    processor = small.processor(family)
    words = asked if family == "omdet-turbo" else [asked] * len(batch)
    if family == "omdet-turbo":
        words = [asked] * len(batch)
    inputs = processor(
        images=batch,
        text=words,
        return_tensors="pt",
        images_kwargs={"input_data_format": "channels_last"},
        **({"text_kwargs": {"max_length": 32}} if family == "omdet-turbo" else {}),
        **({"text_kwargs": {"max_length": 16}} if "owl" in family else {}),
    )
    if family == "omdet-turbo":
        inputs.pop("pixel_mask", None)
    return small.model(family)(**inputs), processor


def test_what_it_says_is_what_the_library_says(family: str, detector: OpenVocabularyDetector) -> None:
    batch = pictures()
    asked = detector.ask(PROMPTS)
    assert asked.texts == 1
    found = detector.look(batch, asked)
    output, processor = as_transformers(family, PROMPTS, batch)
    sizes = [picture.shape[:2] for picture in batch]
    if family == "omdet-turbo":
        wanted = processor.post_process_grounded_object_detection(
            output, text_labels=[PROMPTS] * 3, threshold=0.0, nms_threshold=0.5, target_sizes=sizes
        )
    elif "owl" in family:
        wanted = processor.post_process_grounded_object_detection(
            output, threshold=0.0, target_sizes=sizes, text_labels=[PROMPTS] * 3
        )
    else:
        wanted = processor.post_process_grounded_object_detection(
            output, threshold=0.0, text_threshold=0.0, target_sizes=sizes
        )
    for number, (said, other) in enumerate(zip(found, wanted, strict=True)):
        boxes, scores, named = said.boxes, said.scores, said.prompts
        if family == "omdet-turbo":
            height, width = sizes[number]
            kept = batched_nms(boxes, scores, named, 0.5)
            boxes = boxes[kept].clamp(min=0).minimum(torch.tensor([width, height] * 2))
            scores, named = scores[kept], named[kept]
        torch.testing.assert_close(boxes, other["boxes"], atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(scores, other["scores"], atol=1e-5, rtol=1e-4)
        assert len(boxes) > 3
        if "grounding" not in family:
            assert [PROMPTS[each] for each in named.tolist()] == other["text_labels"]


def test_a_token_is_whose_the_model_takes_it_for(detectors: Callable[[str], OpenVocabularyDetector]) -> None:
    asked = detectors("grounding-dino").ask(["Red  Square.", "kitten", "unknown red"])
    assert isinstance(asked, Phrases)
    ((ids, whose),) = asked.chunks
    text = small.processor("grounding-dino")(
        images=pictures()[0],
        text=[["red square", "kitten", "unknown red"]],
        return_tensors="pt",
        images_kwargs={"input_data_format": "channels_last"},
    )
    assert ids == text["input_ids"][0].tolist()
    assert whose == [-1, 0, 0, -1, 1, 1, -1, 2, 2, -1, -1]
    (maps,) = build_label_maps(torch.zeros(1, 1, 32), text["input_ids"])
    mine = torch.stack([torch.tensor(whose) == number for number in range(3)]).long()
    torch.testing.assert_close(maps, pad(mine, (0, 32 - len(ids))))


@pytest.mark.parametrize(("word", "wanted"), [("##ten", 1), ("dog", 2), ("control", 3), ("cat", 0)])
def test_grounding_dino_answers_with_the_prompt_whose_token_wins(
    detectors: Callable[[str], OpenVocabularyDetector], word: str, wanted: int
) -> None:
    """Weights set by hand: queries stay where they start, on the grid, and one token of one prompt scores high."""
    made = small.model("grounding-dino")
    asked = ["a cat", "kitten", "dog", "remote control"]
    tokenizer = small.bert()
    text = tokenizer(". ".join(asked) + ".", return_tensors="pt")
    picture = np.full((64, 64, 3), 100, np.uint8)
    pixels = small.processor("grounding-dino").image_processor(
        picture, return_tensors="pt", input_data_format="channels_last"
    )
    with torch.no_grad():
        for head in (*made.bbox_embed, *made.model.decoder.bbox_embed, made.model.encoder_output_bbox_embed):
            head.layers[-1].weight.zero_()
            head.layers[-1].bias.zero_()
        hidden = made(**text, **pixels).encoder_last_hidden_state_text[0]
        place = text["input_ids"][0].tolist().index(tokenizer.convert_tokens_to_ids(word))
        target = torch.full((len(hidden), 1), -3.0)
        target[place] = 3.0
        made.model.decoder.layer_norm.weight.zero_()
        made.model.decoder.layer_norm.bias.copy_(torch.linalg.lstsq(hidden, target).solution[:, 0])
    other = detectors("grounding-dino")
    detector = OpenVocabularyDetector(other.manifest, made, other.tokens)
    (said,) = detector.look([picture], detector.ask(asked))
    assert said.prompts.tolist() == [wanted] * 20
    torch.testing.assert_close(said.scores, torch.tensor(3.0).sigmoid().expand(20), atol=1e-2, rtol=0)
    torch.testing.assert_close(said.texts, said.scores)
    # a proposal's side is 0.05 of the picture's at the finest level, twice that at the next, in the middle of its cell
    sides = said.boxes[:, 2:] - said.boxes[:, :2]
    level = (sides / (0.05 * 64)).log2()
    torch.testing.assert_close(level, level.round(), atol=1e-3, rtol=0)
    cells = (said.boxes[:, 2:] + said.boxes[:, :2]) / 2 / (8 * 2**level) - 0.5
    torch.testing.assert_close(cells, cells.round(), atol=1e-2, rtol=0)
    assert len(said.boxes.round().unique(dim=0)) == 20


@pytest.mark.parametrize("name", ["owlvit", "owlv2"])
def test_owl_says_the_prompt_that_a_patch_looks_like_and_reads_the_words_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = small.model(name)
    asked = ["a photo of a cat", "dog", "red square"]
    with torch.no_grad():
        for head in (made.box_head.dense2,):
            head.weight.zero_()
            head.bias.copy_(torch.tensor([0.0, 0.0, 4.0, 4.0]))
        text = small.clip()(asked, padding=True, return_tensors="pt")
        vector = getattr(made, name).get_text_features(**text).pooler_output[1]
        made.class_head.dense0.weight.zero_()
        made.class_head.dense0.bias.copy_(vector)
    detector = load_open_vocabulary(
        small.converted(tmp_path, small.saved(name, tmp_path / "model", made=made))
    )
    inner, read = getattr(detector.module, name), []
    features = inner.get_text_features
    monkeypatch.setattr(inner, "get_text_features", lambda **words: read.append(1) or features(**words))
    words = detector.ask(asked)
    for _ in range(2):
        wide = np.full((32, 64, 3), 50, np.uint8)
        (said, _) = detector.look([wide, wide], words)
        assert said.prompts.tolist() == [1] * 16
    assert read == [1]
    # the first patch's own place: a quarter of the square that the model sees, moved by what the head says
    bias = detector.module.box_bias[0] + torch.tensor([0.0, 0.0, 4.0, 4.0])
    x, y, w, h = bias.sigmoid().tolist()
    high = 64 if name == "owlv2" else 32
    wanted = [64 * (x - w / 2), high * (y - h / 2), 64 * (x + w / 2), high * (y + h / 2)]
    torch.testing.assert_close(said.boxes[0], torch.tensor(wanted), atol=1e-2, rtol=0)


def test_a_long_list_of_words_is_cut_and_merged(family: str, detector: OpenVocabularyDetector) -> None:
    many = [
        "a cat",
        "kitten",
        "dog",
        "red square",
        "blue square",
        "remote control",
        "a dog",
        "a square",
        "blue cat",
    ]
    many += [f"{each} of a {other}" for each in ("red", "blue") for other in ("cat", "dog", "square")]
    asked = detector.ask(many)
    assert (asked.texts > 1) == ("owl" not in family)
    (said,) = detector.look(pictures()[:1], asked)
    assert 0 <= said.prompts.min() <= said.prompts.max() < len(many)
    if isinstance(asked, Phrases):
        known = [number for _, whose in asked.chunks for number in dict.fromkeys(whose) if number >= 0]
        assert known == list(range(len(many)))
        assert max(len(ids) for ids, _ in asked.chunks) <= 32
    elif asked.texts > 1:
        assert asked.chunks[0].first == 0
        assert said.prompts.max() >= asked.chunks[-1].first


def test_of_boxes_of_two_texts_on_one_place_the_surest_stays() -> None:
    box, other = [0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.5]
    first = Said(
        torch.tensor([box, [20.0, 20, 30, 30]]),
        torch.tensor([0.5, 0.4]),
        torch.tensor([0.5, 0.4]),
        torch.tensor([0, 1]),
    )
    second = Said(
        torch.tensor([other, box]), torch.tensor([0.9, 0.3]), torch.tensor([0.9, 0.3]), torch.tensor([2, 3])
    )
    found = one_of_a_place([first, second])
    assert found.prompts.tolist() == [2, 1, 3]
    assert found.scores.tolist() == pytest.approx([0.9, 0.4, 0.3])


@pytest.mark.parametrize(
    ("prompt", "code"),
    [
        ("a cat. a dog", "bad_prompt"),
        ("is it red?", "bad_prompt"),
        ("...", "bad_prompt"),
        ("zebra", "bad_prompt"),
        (" ".join(["cat"] * 31), "prompt_too_long"),
    ],
)
def test_phrases_that_would_be_misread_are_refused(
    detectors: Callable[[str], OpenVocabularyDetector], prompt: str, code: str
) -> None:
    with pytest.raises(Unusable) as refusal:
        detectors("mm-grounding-dino").ask(["dog", prompt])
    assert refusal.value.code == code


def test_what_the_text_encoder_has_no_room_for_is_refused(
    detectors: Callable[[str], OpenVocabularyDetector],
) -> None:
    for name, words in (("owlv2", 15), ("omdet-turbo", 31)):
        detector = detectors(name)
        with pytest.raises(Unusable) as refusal:
            detector.ask([" ".join(["cat"] * words)])
        assert refusal.value.code == "prompt_too_long"
        with pytest.raises(Unusable, match="keeps for itself"):
            detector.ask(["cat <|endoftext|> dog"])
        with pytest.raises(Unusable, match="leave image_size out"):
            detector.look(pictures()[:1], detector.ask(["cat"]), image_size=64)


def test_it_is_a_checkpoint_of_its_own_kind_in_one_file(family: str, folders: Callable[[str], Path]) -> None:
    made = folders(family) / "converted"
    manifest = Manifest.read(made)
    assert manifest.kind == "open_vocabulary"
    assert manifest.architecture == "transformers/" + family.replace("-", "_")
    assert (manifest.layers, manifest.class_names) == ((), None)
    assert Manifest.from_json(manifest.to_json()) == manifest
    tensors = load_file(made / WEIGHTS_FILE)
    assert json.loads(bytes(tensors["tokenizer.json"].numpy()))["model"]["vocab"]
    with pytest.raises(Unusable, match="no architecture of this version"):
        load_detector(made)


@pytest.mark.slow
def test_the_limited_child_reads_it_too(tmp_path: Path) -> None:
    manifest = convert(small.saved("owlv2", tmp_path / "model"), tmp_path / "out")
    assert manifest.kind == "open_vocabulary"
    assert load_open_vocabulary(tmp_path / "out").ask(["cat"]).texts == 1
    with pytest.raises(Unusable) as refusal:
        convert(tmp_path / "model", tmp_path / "other", overrides={"class_names": ["cat"]})
    assert refusal.value.code == "bad_override"
    assert not (tmp_path / "other").exists()


def test_older_files_of_a_vocabulary_do(folders: Callable[[str], Path], tmp_path: Path) -> None:
    for name, files in (("owlvit", ("vocab.json", "merges.txt")), ("grounding-dino", ("vocab.txt",))):
        home = tmp_path / name
        home.mkdir()
        made = shutil.copytree(folders(name) / "model", home / "model")
        tokenizer = json.loads((made / "tokenizer.json").read_text())
        (made / "tokenizer.json").unlink()
        vocabulary = tokenizer["model"]["vocab"]
        if len(files) == 2:
            (made / files[0]).write_text(json.dumps(vocabulary))
            pairs = [" ".join(pair) for pair in tokenizer["model"]["merges"]]
            (made / files[1]).write_text("\n".join(["#version: 0.2", *pairs]))
        else:
            (made / files[0]).write_text("\n".join(sorted(vocabulary, key=vocabulary.get)))
        whole = load_open_vocabulary(small.converted(home, made)).tokens
        kept = small.clip() if name == "owlvit" else small.bert()
        for text in ("a photo of a cat", "Kitten", "remote control."):
            assert whole.ids(text) == kept(text)["input_ids"]


def without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def another_vocabulary(folder: Path) -> None:
    document = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = document["model"]["vocab"]
    vocabulary["."], vocabulary["dog"] = vocabulary["dog"], vocabulary["."]
    (folder / "tokenizer.json").write_text(json.dumps(document))


def no_document(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model": 1}')


def changed_config(name: str, value: Any) -> Any:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config[name] = value
        (folder / "config.json").write_text(json.dumps(config))

    return change


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (without_tokenizer, "no_tokenizer"),
        (another_vocabulary, "bad_tokenizer"),
        (no_document, "bad_tokenizer"),
        (changed_config("text_config", {"model_type": "gpt2"}), "bad_config"),
        (
            changed_config("backbone_config", {"model_type": "timm_backbone", "backbone": "../evil"}),
            "bad_config",
        ),
        (changed_config("d_model", 128), "shape_mismatch"),
    ],
)
def test_folders_that_would_mislead_are_refused(
    folders: Callable[[str], Path], tmp_path: Path, change: Any, code: str
) -> None:
    made = shutil.copytree(folders("grounding-dino") / "model", tmp_path / "model")
    change(made)
    with pytest.raises(Unusable) as refusal:
        small.converted(tmp_path, made)
    assert refusal.value.code == code
    assert prompts.phrase_of("A Cat.") == "a cat"
