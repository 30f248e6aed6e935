"""Glyph sources that are always at hand: characters of the fonts that come with matplotlib, turned and sheared."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import matplotlib
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from matplotlib.ft2font import FT2Font

from worker.data.glyphs import Glyphs

# Ten classes each, as the published sources have.
CHARACTERS: Mapping[str, str] = MappingProxyType(
    {
        "printed_digits": "0123456789",
        "printed_letters": "ABCDEFGHIJ",
        "printed_greek": "αβγδεζηθικ",
        "printed_signs": "←↑→↓∞∑∫√∂∇",
    }
)
SIDE = 28
OF_EACH = 80
_CANVAS = 4 * SIDE
_SEED = 0
# The others have signs of their own under the codes of letters.
_FONTS = ("DejaVu", "STIX")


@functools.cache
def printed(name: str) -> Glyphs:
    """800 glyphs, uint8 (N, 28, 28) bright on black: `OF_EACH` of every character, each time of another font, weight,
    slant and turn. Always the same ones. Raises KeyError for a name that is not in CHARACTERS."""
    characters = CHARACTERS[name]
    fonts = _fonts(characters)
    rng = np.random.default_rng([_SEED, *map(ord, characters)])
    images = [_glyph(c, fonts[rng.integers(len(fonts))], rng) for c in characters for _ in range(OF_EACH)]
    return Glyphs(np.stack(images), np.repeat(np.arange(len(characters)), OF_EACH), tuple(characters))


def _fonts(characters: str) -> list[Path]:
    found = []
    for path in sorted((Path(matplotlib.get_data_path()) / "fonts" / "ttf").glob("*.ttf")):
        if path.name.startswith(_FONTS) and set(map(ord, characters)) <= set(
            FT2Font(str(path)).get_charmap()
        ):
            found.append(path)
    return found


def _glyph(character: str, path: Path, rng: np.random.Generator) -> np.ndarray:
    canvas = PIL.Image.new("L", (_CANVAS, _CANVAS))
    font = PIL.ImageFont.truetype(str(path), int(rng.integers(60, 85)))
    PIL.ImageDraw.Draw(canvas).text((_CANVAS / 2, _CANVAS / 2), character, fill=255, font=font, anchor="mm")
    shear, half = float(rng.uniform(-0.2, 0.2)), _CANVAS / 2
    turned = canvas.rotate(float(rng.uniform(-15, 15)), PIL.Image.Resampling.BICUBIC)
    sheared = turned.transform(
        canvas.size,
        PIL.Image.Transform.AFFINE,
        (1, shear, -shear * half, 0, 1, 0),
        PIL.Image.Resampling.BICUBIC,
    )
    return _framed(np.asarray(sheared))


def _framed(drawn: np.ndarray) -> np.ndarray:
    """The character at the full height or width of its field, with a margin of a tenth, as MNIST has it."""
    rows, columns = np.flatnonzero(drawn.max(axis=1) > 32), np.flatnonzero(drawn.max(axis=0) > 32)
    ink = PIL.Image.fromarray(drawn[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1])
    inner = SIDE - 2 * (SIDE // 10)
    scale = inner / max(ink.size)
    small = ink.resize(
        (max(1, round(ink.width * scale)), max(1, round(ink.height * scale))), PIL.Image.Resampling.BOX
    )
    field = PIL.Image.new("L", (SIDE, SIDE))
    field.paste(small, ((SIDE - small.width) // 2, (SIDE - small.height) // 2))
    return np.asarray(field)
