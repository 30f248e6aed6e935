"""A converted ResNet backbone in detectron2's own file: a pickle of numpy arrays under detectron2's names."""

from __future__ import annotations

import pickle
from pathlib import Path

from safetensors import safe_open

from models_store.errors import Unusable
from models_store.formats.detectron2 import to_detectron2
from models_store.manifest import WEIGHTS_FILE, Manifest

BODY = "backbone.body."
# So that one file feeds `backbone.bottom_up.*`, `backbone.*` and `roi_heads.res5.*` alike.
HEADER = {"__author__": "detrank", "matching_heuristics": True}


def to_detectron2_file(folder: Path, out: Path) -> int:
    """Write the backbone of the converted checkpoint in ``folder`` to ``out``; the number of tensors written.

    The network sees RGB and strides in its 3x3 convolutions (STRIDE_IN_1X1 False, FORMAT "RGB").
    Raises Unusable ``unsuitable`` for a backbone that is no plain ResNet, ``missing`` for a folder without a checkpoint.
    """
    try:
        manifest = Manifest.read(folder)
        with safe_open(Path(folder) / WEIGHTS_FILE, framework="np") as weights:
            names = [k for k in weights.keys() if k.startswith(BODY)]  # noqa: SIM118
            bare = {k: k.removeprefix(BODY).removeprefix("model.") for k in names}
            arrays = {to_detectron2(bare[k]): weights.get_tensor(k) for k in names}
    except FileNotFoundError as error:
        raise Unusable("missing", f"{Path(error.filename).name} is not in the checkpoint's folder") from None
    except ValueError as error:
        raise Unusable("unsuitable", f"detectron2 has no such backbone: {error}") from None
    if not arrays:
        raise Unusable("unsuitable", f"{manifest.architecture} has no ResNet that detectron2 knows")
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("wb") as file:
        pickle.dump({"model": arrays, **HEADER}, file, protocol=4)
    return len(arrays)
