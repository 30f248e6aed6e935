"""Pictures whose classes are told apart by shape and texture, on uneven ground with clutter that belongs to no class."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
from scipy import ndimage

NAMES = ("disc", "stripes", "chequers")
SIDE = 96


def scenes(folder: Path, images: int, seed: int = 0) -> Path:
    """One or two objects of different classes in each picture, 24 to 48 pixels wide, as a COCO folder."""
    rng = np.random.default_rng(seed)
    (folder / "train").mkdir(parents=True)
    document: dict[str, list] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(NAMES)],
    }
    for number in range(images):
        pixels, objects = _scene(rng, number)
        name = f"{number:03d}.png"
        PIL.Image.fromarray(pixels).save(folder / "train" / name)
        document["images"].append({"id": number + 1, "file_name": name, "width": SIDE, "height": SIDE})
        for label, (x1, y1, x2, y2) in objects:
            document["annotations"].append(
                {
                    "id": len(document["annotations"]) + 1,
                    "image_id": number + 1,
                    "category_id": label + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "iscrowd": 0,
                }
            )
    (folder / "train" / "_annotations.coco.json").write_text(json.dumps(document))
    return folder


def _scene(rng: np.random.Generator, number: int) -> tuple[np.ndarray, list]:
    ground = ndimage.zoom(rng.uniform(60, 130, (4, 4, 3)), (SIDE / 4, SIDE / 4, 1), order=1)
    pixels = ground + rng.normal(0, 4, (SIDE, SIDE, 3))
    _paint(pixels, rng, _place(rng, 12, 20, []), np.ones((1, 1), bool))
    labels = rng.permutation(len(NAMES))[: 1 + number % 2].tolist()
    objects: list = []
    for label in labels:
        box = _place(rng, 24, 48, [other for _, other in objects])
        if box is None:
            continue
        side = box[2] - box[0]
        _paint(pixels, rng, box, _texture(label, side))
        objects.append((label, box))
    return pixels.clip(0, 255).astype(np.uint8), objects


def _place(rng: np.random.Generator, least: int, most: int, taken: list) -> tuple | None:
    for _ in range(50):
        side = int(rng.integers(least, most))
        x, y = (int(v) for v in rng.integers(0, SIDE - side + 1, 2))
        if all(x >= b[2] or y >= b[3] or x + side <= b[0] or y + side <= b[1] for b in taken):
            return x, y, x + side, y + side
    return None


def _texture(label: int, side: int) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    if label == 0:
        return (x - side / 2 + 0.5) ** 2 + (y - side / 2 + 0.5) ** 2 <= (side / 2) ** 2
    if label == 1:
        return x // 3 % 2 == 0
    return (x // 5 + y // 5) % 2 == 0


def _paint(pixels: np.ndarray, rng: np.random.Generator, box: tuple, ink: np.ndarray) -> None:
    x1, y1, x2, y2 = box
    ink = np.broadcast_to(ink, (y2 - y1, x2 - x1))[..., None]
    bright, dark = rng.uniform(190, 255, 3), rng.uniform(0, 30, 3)
    # A disc has the ground around it, a texture two colours.
    behind = pixels[y1:y2, x1:x2] if ink.mean() > 0.7 else dark
    pixels[y1:y2, x1:x2] = np.where(ink, bright, behind)
