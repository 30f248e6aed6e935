"""Reading pictures that strangers made: header first, pixel limit, full decode, upright, RGB."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
)
# Fewer decoders, fewer surprises: nothing that starts another program (EPS) or parses documents.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
MAX_PIXELS = 89_478_485  # Pillow's own limit: 256 MiB as RGB
_KEPT = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp"}
_PLAIN_MODES = {"L", "RGB", "RGBA", "P", "1", "LA"}
_ORIENTATION = 0x0112


class BadPicture(Exception):
    """A picture that cannot be used; `code` is `unreadable_image` or `image_too_large`."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True)
class Picture:
    """What a decode told: `width` and `height` upright, `stored` before the EXIF `orientation` (1..8) is applied.

    `rewrite` is None when the file's own bytes can be kept, else the reason why they cannot. `peak` is the largest value of a
    picture of more than 8 bits, None for others.
    """

    sha256: str
    width: int
    height: int
    stored: tuple[int, int]
    orientation: int
    suffix: str
    rewrite: str | None
    peak: float | None = None


def _orientation(picture: PIL.Image.Image) -> int:
    try:
        value = picture.getexif().get(_ORIENTATION, 1)
    except Exception:
        # A broken EXIF block says nothing about the pixels.
        return 1
    return value if value in range(1, 9) else 1


def _opened(data: bytes) -> PIL.Image.Image:
    if not data:
        raise BadPicture("unreadable_image", "the file is empty")
    try:
        picture = PIL.Image.open(io.BytesIO(data), formats=FORMATS)
    except PIL.Image.DecompressionBombError:
        raise BadPicture("image_too_large", _too_large("more than twice the limit")) from None
    except PIL.UnidentifiedImageError:
        raise BadPicture(
            "unreadable_image", f"not a picture of a known format ({', '.join(FORMATS)})"
        ) from None
    except Exception as error:
        raise BadPicture("unreadable_image", f"broken header: {error}") from error
    if picture.width * picture.height > MAX_PIXELS:
        raise BadPicture("image_too_large", _too_large(f"{picture.width} x {picture.height} pixels"))
    return picture


def _too_large(found: str) -> str:
    return f"{found}; the limit is {MAX_PIXELS:,} pixels, cut the picture into tiles"


def _loaded(picture: PIL.Image.Image) -> PIL.Image.Image:
    try:
        picture.load()
    except Exception as error:
        raise BadPicture("unreadable_image", f"cannot be decoded, probably cut short: {error}") from error
    return picture


def inspect(path: Path) -> Picture:
    """Decode a picture completely and tell its facts. Raises BadPicture; one above MAX_PIXELS is not decoded."""
    data = path.read_bytes()
    with _opened(data) as picture:
        kind, mode = picture.format or "", picture.mode
        cut = _is_cut_to_8_bits(picture)
        if kind == "PNG":
            # to ask for its EXIF block is to load it, and what is wrong with the pixels is then said there and never again
            _loaded(picture)
        stored, orientation = picture.size, _orientation(picture)
        peak = _peak(_loaded(picture), cut)
    width, height = stored if orientation < 5 else stored[::-1]
    rewrite = None
    if orientation != 1:
        rewrite = f"EXIF orientation {orientation}"
    elif kind not in _KEPT:
        rewrite = f"{kind} file"
    elif cut and peak is not None:
        rewrite = f"{mode} pixels of less than 16 bits in 16"
    elif mode not in _PLAIN_MODES:
        rewrite = f"{mode} pixels"
    suffix = _KEPT.get(kind, ".png") if rewrite is None else (".jpg" if kind in ("JPEG", "MPO") else ".png")
    return Picture(
        hashlib.sha256(data).hexdigest(), width, height, stored, orientation, suffix, rewrite, peak
    )


def _is_deep(picture: PIL.Image.Image) -> bool:
    return picture.mode in ("I", "F") or picture.mode.startswith("I;16")


def _is_cut_to_8_bits(picture: PIL.Image.Image) -> bool:
    """Whether Pillow will keep the upper 8 of 16 bits, as it does in colour; to be asked before the picture is loaded."""
    return picture.mode in ("RGB", "RGBA") and any(
        ";16" in str(tile) for tile in getattr(picture, "tile", ())
    )


def _peak(picture: PIL.Image.Image, cut: bool) -> float | None:
    if cut:
        highest = int(np.asarray(picture.convert("RGB")).max(initial=0))
        # 14 bits at most leave the upper two of the upper 8 empty; 16 are right as they are.
        return highest * 256.0 + 255.0 if highest < 64 else None
    if not _is_deep(picture):
        return None
    return float(np.nan_to_num(np.asarray(picture, dtype=np.float64)).max(initial=0.0))


def white_of(peak: float) -> float:
    """The value that means white where `peak` is the largest one: sensors of 10 to 14 bits are kept in 16 too."""
    if peak <= 1.0:
        return 1.0
    return next((2.0**bits - 1 for bits in (8, 10, 12, 14, 16) if peak < 2**bits), peak)


def _rgb(picture: PIL.Image.Image, white: float | None = None, cut: bool = False) -> PIL.Image.Image:
    if cut and (peak := _peak(picture, cut)) is not None:
        scale = 255.0 * 256.0 / (white or white_of(peak))
        return picture.convert("RGB").point([min(255, round(value * scale)) for value in range(256)] * 3)
    if _is_deep(picture):
        values = np.nan_to_num(np.asarray(picture, dtype=np.float64))
        # Pillow would clip 16-bit values at 255, which turns such pictures white.
        scale = 255.0 / (white or white_of(values.max(initial=0.0)))
        return PIL.Image.fromarray(np.clip(values * scale + 0.5, 0, 255).astype(np.uint8)).convert("RGB")
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    return picture.convert("RGB")


def read_upright(path: Path, white: float | None = None) -> PIL.Image.Image:
    """The picture as 8-bit RGB with its EXIF orientation applied; `white` is that of its set, where it has more bits.

    Raises BadPicture.
    """
    with _opened(path.read_bytes()) as picture:
        cut = _is_cut_to_8_bits(picture)
        _loaded(picture)
        # exif_transpose parses the whole EXIF block again and may stumble over it.
        turned = PIL.ImageOps.exif_transpose(picture) if _orientation(picture) != 1 else picture
        return _rgb(turned, white, cut)


def read_rgb(path: Path) -> np.ndarray:
    """The upright picture as uint8 (height, width, 3), RGB. Raises BadPicture."""
    return np.array(read_upright(path))


def rewrite(path: Path, destination: Path, white: float | None = None) -> None:
    """Write the upright RGB picture: JPEG at quality 95 without chroma subsampling, or PNG, by the suffix."""
    picture = read_upright(path, white)
    if destination.suffix == ".jpg":
        picture.save(destination, quality=95, subsampling=0)
    else:
        picture.save(destination)


def turn(x: float, y: float, orientation: int, stored: tuple[int, int]) -> tuple[float, float]:
    """Bring a point of the stored frame (width, height) into the upright one (EXIF 2.32, tag 0x0112)."""
    width, height = stored
    match orientation:
        case 2:
            return width - x, y
        case 3:
            return width - x, height - y
        case 4:
            return x, height - y
        case 5:
            return y, x
        case 6:
            return height - y, x
        case 7:
            return height - y, width - x
        case 8:
            return y, width - x
        case _:
            return x, y
