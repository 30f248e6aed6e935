"""A dataset that a detector can learn in a few steps, drawn from nothing."""

import json
from pathlib import Path

import numpy as np
import PIL.Image


def squares(folder: Path, images: int = 14) -> Path:
    """Bright squares on noise, of two categories told apart by their colour; val and test parts of their own."""
    rng = np.random.default_rng(3)
    document: dict[str, list] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}],
    }
    parts = {"train": images, "valid": 3, "test": 3}
    for part, count in parts.items():
        document["images"], document["annotations"] = [], []
        (folder / part).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 60, (64, 64, 3), dtype=np.uint8)
            document["images"].append(
                {"id": number + 1, "file_name": f"{number}.png", "width": 64, "height": 64}
            )
            for category in (0, 1):
                x, y = int(rng.integers(2, 10)) + 30 * category, int(rng.integers(2, 38))
                pixels[y : y + 22, x : x + 22, 2 * category] = 250
                document["annotations"].append(
                    {
                        "id": len(document["annotations"]) + 1,
                        "image_id": number + 1,
                        "category_id": category + 1,
                        "bbox": [x, y, 22, 22],
                        "area": 484,
                        "iscrowd": 0,
                    }
                )
            PIL.Image.fromarray(pixels).save(folder / part / f"{number}.png")
        (folder / part / "_annotations.coco.json").write_text(json.dumps(document))
    return folder
