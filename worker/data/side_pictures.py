"""Pictures that are no photographs: masks, trimaps and depth beside the photographs whose names they have."""

import re

import PIL.Image

from worker.data.pictures import FORMATS
from worker.data.tree import Tree, stem, suffix

_FOLDER = re.compile(
    r"(?:.*[^a-z])?(?:masks?|pedmasks|segmentation[a-z]*|seg|segs|trimaps?|labels?|annotations?|gt|depths?|instances?|semantics?)(?:[^a-z].*)?"
)
_LOSSLESS = frozenset({".png", ".bmp", ".gif", ".tif", ".tiff"})
_PLANES = frozenset({"1", "L", "P", "LA", "I", "I;16", "I;16B"})


def side_pictures(tree: Tree) -> list[str]:
    """Those in a folder of masks, of one plane, which another picture elsewhere has the name of."""
    by_stem: dict[str, list[str]] = {}
    for path in tree.images:
        by_stem.setdefault(stem(path).casefold(), []).append(path)
    found = []
    for group in by_stem.values():
        if len(group) > 1:
            folders = {path: _folders_of_masks(path) for path in group}
            least = min(folders.values())
            side = [path for path in group if folders[path] > least and _is_lossless(path)]
            found += [path for path in side if _has_one_plane(tree, path)]
    return found


def _folders_of_masks(path: str) -> int:
    return sum(_FOLDER.fullmatch(folder.lower()) is not None for folder in path.split("/")[:-1])


def _is_lossless(path: str) -> bool:
    return suffix(path) in _LOSSLESS


def _has_one_plane(tree: Tree, path: str) -> bool:
    try:
        with PIL.Image.open(tree.absolute(path), formats=FORMATS) as picture:
            return picture.mode in _PLANES
    except (OSError, ValueError, PIL.Image.DecompressionBombError):
        # What cannot be opened, or lies elsewhere, is told by its folder.
        return True
