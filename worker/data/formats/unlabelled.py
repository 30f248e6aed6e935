"""Pictures without any labels."""

from worker.data.faults import Report
from worker.data.formats.raw import Raw, RawImage
from worker.data.splits import split_of_folders
from worker.data.tree import Tree

NAME = "unlabelled"
TITLE = "pictures without labels"
# what annotations are usually written in
ANNOTATIONS = (".json", ".xml", ".csv")


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    return f"{len(tree.images)} pictures, such as {tree.images[0]}" if tree.images else None


def read(tree: Tree, report: Report) -> Raw:
    """Every picture of the tree, with the split that its folders name; says of files that look like labels that they were not read."""
    for file in tree.with_suffix(*ANNOTATIONS):
        report.add("unreadable_file", file, "not understood as annotations of any format, so the pictures count as unlabelled")
    return Raw([RawImage(path, split_of_folders(path)) for path in tree.images], supervision="none")
