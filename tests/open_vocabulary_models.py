"""Open-vocabulary detectors of every family with random weights, of a few thousand numbers, saved as people have them."""

from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from torch import nn
from transformers import BertTokenizer, CLIPTokenizer

from models_store import archives
from models_store.conversion import Request, convert_here
from models_store.limits import Limits
from models_store.load import digest_of

# of a few words that the small tokenizers know, some in two pieces
WORDS = ("a", "b", "red", "blue", "square", "cat", "kit", "##ten", "dog", "remote", "control", "of", "photo")
FAMILIES = ("grounding-dino", "mm-grounding-dino", "owlvit", "owlv2", "omdet-turbo")
SIDE = 64
SWIN = {
    "model_type": "swin",
    "image_size": SIDE,
    "embed_dim": 8,
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 1, 2, 2],
    "window_size": 4,
    "out_features": ["stage2", "stage3", "stage4"],
}
BERT_ROWS = 1050


def bert() -> BertTokenizer:
    """The marks where BERT has them, words behind."""
    names = [f"[unused{n}]" for n in range(BERT_ROWS)]
    for place, name in {
        0: "[PAD]",
        100: "[UNK]",
        101: "[CLS]",
        102: "[SEP]",
        103: "[MASK]",
        1012: ".",
        1029: "?",
    }.items():
        names[place] = name
    for place, word in enumerate(WORDS, 1030):
        names[place] = word
    return BertTokenizer(vocab={name: place for place, name in enumerate(names)})


def clip() -> CLIPTokenizer:
    """Bytes, and the words' own tokens by merges."""
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    names = letters + [letter + "</w>" for letter in letters]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        if word.startswith("##") or len(word) == 1:
            continue
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            pair = (parts[0], parts[1])
            if pair not in merges:
                merges.append(pair)
                names.append("".join(pair))
            parts = ["".join(pair), *parts[2:]]
    names = [*dict.fromkeys(names), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={name: place for place, name in enumerate(names)}, merges=merges)


def processor(family: str) -> Any:
    if "grounding" in family:
        pictures = transformers.GroundingDinoImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
        return transformers.GroundingDinoProcessor(pictures, bert())
    size = {"height": SIDE, "width": SIDE}
    if family == "omdet-turbo":
        return transformers.OmDetTurboProcessor(
            transformers.DetrImageProcessor(size=size, do_pad=False), clip()
        )
    name = {"owlvit": "OwlViT", "owlv2": "Owlv2"}[family]
    pictures = getattr(transformers, f"{name}ImageProcessor")(size=size)
    return getattr(transformers, f"{name}Processor")(pictures, clip())


def model(family: str, seed: int = 0, **changes: Any) -> nn.Module:
    """In evaluation mode."""
    torch.manual_seed(seed)
    config, made = {
        "grounding-dino": (_grounding("GroundingDino"), "GroundingDinoForObjectDetection"),
        "mm-grounding-dino": (_grounding("MMGroundingDino"), "MMGroundingDinoForObjectDetection"),
        "owlvit": (_owl("OwlViT"), "OwlViTForObjectDetection"),
        "owlv2": (_owl("Owlv2"), "Owlv2ForObjectDetection"),
        "omdet-turbo": (_omdet, "OmDetTurboForObjectDetection"),
    }[family]
    return getattr(transformers, made)(config(**changes)).eval()


def saved(family: str, folder: Path, seed: int = 0, made: nn.Module | None = None) -> Path:
    """The folder that save_pretrained writes of model and processor."""
    (made or model(family, seed)).save_pretrained(folder)
    processor(family).save_pretrained(folder)
    return folder


def _grounding(name: str) -> Any:
    def config(**changes: Any) -> Any:
        text = {
            "model_type": "bert",
            "vocab_size": BERT_ROWS,
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 16,
        }
        sizes = {
            "d_model": 64,
            "encoder_layers": 1,
            "decoder_layers": 2,
            "num_queries": 20,
            "max_text_len": 32,
        }
        sizes |= {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
        sizes |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4}
        return getattr(transformers, f"{name}Config")(
            **(sizes | changes), backbone_config=dict(SWIN), text_config=text
        )

    return config


def _owl(name: str) -> Any:
    def config(**changes: Any) -> Any:
        sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        ids = {"bos_token_id": len(clip()) - 2, "eos_token_id": len(clip()) - 1}
        text = sizes | ids | {"vocab_size": len(clip()), "max_position_embeddings": 16}
        vision = sizes | {"image_size": SIDE, "patch_size": 16}
        return getattr(transformers, f"{name}Config")(
            text_config=text, vision_config=vision, projection_dim=32, **changes
        )

    return config


def _omdet(**changes: Any) -> Any:
    text = {
        "model_type": "clip_text_model",
        "vocab_size": len(clip()),
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "max_position_embeddings": 32,
        "bos_token_id": len(clip()) - 2,
        "eos_token_id": len(clip()) - 1,
    }
    sizes = {"image_size": SIDE, "num_queries": 20, "encoder_hidden_dim": 32, "decoder_hidden_dim": 32}
    sizes |= {"text_projection_in_dim": 16, "text_projection_out_dim": 16, "class_embed_dim": 16}
    sizes |= {"task_encoder_hidden_dim": 32, "encoder_dim_feedforward": 32, "decoder_dim_feedforward": 32}
    sizes |= {"encoder_attention_heads": 4, "decoder_num_heads": 4, "decoder_num_layers": 2}
    # the published one takes the maps of timm's Swin, channels last, and norms them
    sizes |= {"apply_layernorm_after_vision_backbone": False}
    channels = {"vision_features_channels": [32, 32, 32], "encoder_in_channels": [16, 32, 64]}
    return transformers.OmDetTurboConfig(
        backbone_config=dict(SWIN), text_config=text, **channels, **(sizes | changes)
    )


def converted(folder: Path, made: Path) -> Path:
    """As the service converts the folder `made`, in this process; into `folder`."""
    source = archives.pack(made, folder)
    out = folder / "converted"
    out.mkdir()
    convert_here(Request(source, digest_of(source), made.name, out, None, None, {}, Limits()))
    return out
