"""Pictures without any labels."""

from worker.data.faults import Report
from worker.data.formats.raw import Raw, RawImage
from worker.data.splits import split_of_folders
from worker.data.tree import Tree

NAME = "unlabelled"
TITLE = "pictures without labels"


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    return f"{len(tree.images)} pictures, such as {tree.images[0]}" if tree.images else None


def read(tree: Tree, report: Report) -> Raw:
    """Every picture of the tree, with the split that its folders name."""
    return Raw([RawImage(path, split_of_folders(path)) for path in tree.images], used=(), supervision="none")
