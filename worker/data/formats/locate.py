"""Which picture of the tree an annotation means, from where its file lies."""

from pathlib import PurePosixPath

from worker.data.pictures import SUFFIXES
from worker.data.tree import NoSuchPicture, Tree, join, parent


def locate(tree: Tree, written: str, file: str, split: str | None = None) -> str:
    """The picture that the annotation file `file` calls `written`. Raises NoSuchPicture.

    First relative to the file's folder, then in the usual folders around it, then by the longest unambiguous ending; names of
    other machines and other suffixes are understood as `Tree.image_named` says.
    """
    here = parent(file)
    near = [here, join(here, "images"), parent(here), join(parent(here), "images"), "images", ""]
    if split:
        near[2:2] = [join(here, split), join(parent(here), split), join(here, "images", split), split]
    found = tree.image_named(written, near, split)
    if not is_picture(found):
        raise NoSuchPicture("missing_image", "the name is that of another file")
    return found


def is_picture(file: str) -> bool:
    """Whether the file's suffix is one of a picture."""
    return PurePosixPath(file).suffix.lower() in SUFFIXES
