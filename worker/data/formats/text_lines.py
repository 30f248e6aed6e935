"""Label files of plain text, one object a line: which of them a format owns, and whose picture each is."""

from collections.abc import Callable, Iterator

from worker.data.faults import Report
from worker.data.formats.collecting import Collected
from worker.data.formats.json_files import sample
from worker.data.formats.pairing import pictures_of
from worker.data.formats.raw import RawImage, head_of, text_of
from worker.data.splits import split_of_folders
from worker.data.tree import NoSuchPicture, Tree

IsLine = Callable[[list[str]], bool]


def words_of(line: str) -> list[str]:
    """The words of a line, divided by spaces or commas."""
    return line.replace(",", " ").split() if "," in line else line.split()


def has_lines(tree: Tree, file: str, is_line: IsLine) -> bool:
    """Whether one of the first lines of the file is one of the format's."""
    return any(is_line(words_of(line)) for line in head_of(tree, file).splitlines()[:20])


def first_with_lines(tree: Tree, is_line: IsLine, part: str = "") -> str | None:
    """A `.txt` file that is a picture's namesake, holds a line of the format, and has `part` in its path, or None."""
    files = [file for file in tree.with_suffix(".txt") if part in file.lower() and tree.namesakes(file)]
    return next((file for file in sample(files) if has_lines(tree, file, is_line)), None)


def with_pictures(
    collected: Collected, is_line: IsLine
) -> Iterator[tuple[RawImage, str, list[tuple[int, str]]]]:
    """(picture, label file, its (number, line)s) for every `.txt` of the format; an empty one says that nothing is there.

    Label files without a picture are faults.
    """
    tree, report = collected.tree, collected.report
    mine = [
        file
        for file in tree.with_suffix(".txt")
        if has_lines(tree, file, is_line) or (tree.namesakes(file) and not head_of(tree, file).strip())
    ]
    for file, path in pictures_of(tree, mine).items():
        collected.used.add(file)
        lines = _lines(tree, file, report)
        if isinstance(path, NoSuchPicture):
            report.add("label_without_image", file, path.reason, lost=len(lines))
            continue
        yield collected.at(path, split=split_of_folders(path) or split_of_folders(file)), file, lines


def _lines(tree: Tree, file: str, report: Report) -> list[tuple[int, str]]:
    text = text_of(tree, file, report) or ""
    return [(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
