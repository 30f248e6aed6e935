"""Pictures decoded in threads, a few ahead of the one in use; those that are kept are not decoded."""

import contextlib
from collections.abc import Generator, Sequence

import numpy as np

from worker.data.dataset import Image
from worker.data.lookahead import in_order
from worker.data.pictures import BadPicture, read_rgb
from worker.data.pixels import KeptPixels


def decoded(
    images: Sequence[Image], *, threads: int = 2, ahead: int = 8, kept: KeptPixels | None = None
) -> Generator[tuple[Image, np.ndarray]]:
    """Yield every image with its pixels, uint8 (height, width, 3) RGB upright, in order.

    At most `ahead` decoded pictures wait at any moment. What `kept` has is taken from there, the others are added to
    it. Raises BadPicture at the place of a picture that cannot be decoded, and ValueError where one has not the size
    that the dataset says.
    """

    def decode(image: Image) -> tuple[Image, np.ndarray]:
        if kept is not None and (there := kept.get(image.id, image.height, image.width)) is not None:
            return image, there
        pixels = read_checked(image)
        if kept is not None:
            kept.add(image.id, pixels)
        return image, pixels

    with kept or contextlib.nullcontext():
        yield from in_order(decode, images, threads=threads, ahead=ahead)


def read_checked(image: Image) -> np.ndarray:
    """The picture of an image, uint8 (height, width, 3) RGB. Raises BadPicture, and ValueError where its size differs."""
    try:
        pixels = read_rgb(image.path)
    except BadPicture as refusal:
        raise BadPicture(refusal.code, f"image {image.id}, {image.path}: {refusal.reason}") from refusal
    if pixels.shape[:2] != (image.height, image.width):
        raise ValueError(
            f"{image.path} is {pixels.shape[1]} x {pixels.shape[0]}, the dataset says {image.width} x {image.height}; "
            "the file was changed after ingestion, ingest the dataset again"
        )
    return pixels
