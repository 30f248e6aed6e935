"""MOT challenge sequences: `gt/gt.txt` with a row an object a frame, pictures in `img1` (or `imDir` of seqinfo.ini) beside `gt`."""

import configparser
import contextlib
import re
from collections.abc import Iterator

from worker.data.faults import Report
from worker.data.formats.collecting import Collected, xywh
from worker.data.formats.raw import Raw, category_name, head_of, numbers, text_of
from worker.data.splits import split_of_folders
from worker.data.tree import Tree, join, parent, stem

NAME = "mot"
TITLE = "MOT challenge sequences (gt/gt.txt, img1)"
# arXiv 1603.00831, table 5; 13 is MOT20's (arXiv 2003.09003)
NAMES = (
    "pedestrian",
    "person on vehicle",
    "car",
    "bicycle",
    "motorbike",
    "non motorized vehicle",
    "static person",
    "distractor",
    "occluder",
    "occluder on the ground",
    "occluder full",
    "reflection",
    "crowd",
)
# of those that the benchmark does not count these look like pedestrians: detections there are neither right nor wrong
_ALIKE = (2, 7, 8, 12, 13)
_PEDESTRIAN = 1
_FEWEST, _MOST = 7, 10  # columns
# the eighth is the class since MOT16; the three last of MOT15's ten are a place in the world (arXiv 1504.01942)
_WITH_CLASS = (8, 9)
_NUMBERED = re.compile(r"(\d+)$")


def _is_row(words: list[str]) -> bool:
    found = numbers(words)
    return (
        found is not None
        and _FEWEST <= len(found) <= _MOST
        and found[0] == int(found[0]) >= 0
        and found[1] == int(found[1])
        and found[4] >= 0 <= found[5]
    )


def _folder_of_pictures(tree: Tree, file: str) -> str:
    """The folder that holds the frames of a gt.txt: by seqinfo.ini, else `img1`, else the only one beside `gt` with pictures."""
    sequence = parent(parent(file)) if parent(file).rpartition("/")[2] == "gt" else parent(file)
    told = configparser.ConfigParser(interpolation=None, strict=False)
    described = tree.at(join(sequence, "seqinfo.ini"))
    with contextlib.suppress(configparser.Error):
        told.read_string(head_of(tree, described) if described else "")
    for name in (told.get("Sequence", "imDir", fallback=""), "img1"):
        folder = join(sequence, name)
        if name and any(parent(path) == folder for path in tree.images):
            return folder
    beside = {parent(path) for path in tree.images if path.startswith(f"{sequence}/" if sequence else "")}
    return beside.pop() if len(beside) == 1 else ""


def _files(tree: Tree) -> Iterator[str]:
    for file in tree.with_suffix(".txt"):
        if file.rpartition("/")[2].lower() != "gt.txt":
            continue
        lines = [line for line in head_of(tree, file).splitlines() if line.strip()]
        # the last may be cut off
        if lines and all(_is_row(line.split(",")) for line in (lines[:-1] or lines)[:20]):
            yield file


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    file = next((file for file in _files(tree) if _folder_of_pictures(tree, file)), None)
    return f"a MOT sequence, {file}" if file else None


def _set_detections_aside(collected: Collected) -> None:
    """`det/det.txt` holds what a detector found, for trackers that need detections."""
    for file in collected.tree.with_suffix(".txt"):
        if f"/{file}".lower().endswith("/det/det.txt"):
            collected.used.add(file)
            collected.report.add("other_task", file, "what a detector found, no labels: not read")


def _frames(tree: Tree, folder: str, asked: set[int]) -> dict[int, str]:
    """{number of a frame: picture}: by the numbers in the names, or, where those count from 0 and frames from 1, by their order."""
    pictures = sorted(path for path in tree.images if parent(path) == folder)
    found = {
        int(number[1]): path
        for path in pictures
        if (number := _NUMBERED.search(stem(path).rpartition("/")[2]))
    }
    if len(found) == len(pictures) and (min(found) > 0 or 0 in asked):
        return found
    ordered = [found[number] for number in sorted(found)] if len(found) == len(pictures) else pictures
    return dict(enumerate(ordered, start=1))


def _labels(tree: Tree, file: str, collected: Collected) -> list[str]:
    """The names in labels.txt beside gt.txt, as CVAT and Datumaro write it."""
    listing = join(parent(file), "labels.txt")
    if tree.at(listing) is None:
        return []
    collected.used.add(listing)
    lines = (text_of(tree, listing, collected.report) or "").splitlines()
    return [category_name(line) for line in lines if line.strip()]


def read(tree: Tree, report: Report) -> Raw:
    """Read frame, track, left, top, width, height in pixels, whether it counts, class, visibility (arXiv 1603.00831).

    The first pixel is 1 (motchallenge.net/instructions), and 0 in an export of CVAT, which names its classes. Rows that do not
    count are to be ignored where they are pedestrians or look like them, else they are left out, said so. Every frame is
    labelled.
    """
    collected = Collected(tree, report)
    _set_detections_aside(collected)
    unnamed = ""
    for file in _files(tree):
        folder = _folder_of_pictures(tree, file)
        if not folder:
            continue
        collected.used.add(file)
        names = _labels(tree, file, collected)
        unnamed = unnamed or ("" if names else file)
        collected.name_all(names)
        lines = (text_of(tree, file, report) or "").splitlines()
        parsed = [
            (number, numbers(line.split(","))) for number, line in enumerate(lines, start=1) if line.strip()
        ]
        pictures = _frames(tree, folder, {int(row[0]) for _, row in parsed if row})
        images = {frame: collected.at(path, split=split_of_folders(path)) for frame, path in pictures.items()}
        left_out = 0
        for number, row in parsed:
            reference = f"line {number}"
            if row is None or not _FEWEST <= len(row) <= _MOST:
                report.add("invalid_annotation", file, "7 to 10 numbers with commas are wanted", reference)
                continue
            image = images.get(int(row[0]))
            if image is None:
                reason = f"frame {int(row[0])} has no picture in {folder}"
                report.add("missing_image", file, reason, reference, lost=1, image=True)
                continue
            first = 0 if names else 1
            corners = xywh([row[2] - first, row[3] - first, row[4], row[5]])
            kind = row[7] if len(row) in _WITH_CLASS and row[7] > 0 else _PEDESTRIAN
            counts = row[6] != 0
            if not counts and not names and kind in _ALIKE:
                collected.ignore(image, corners, file, reference)
            elif not counts and not names and kind != _PEDESTRIAN:
                left_out += 1
            elif kind != int(kind) or kind > len(names or NAMES):
                collected.unknown(image, kind, f"the {len(names or NAMES)} classes", file, reference)
            else:
                collected.box(
                    image, (names or NAMES)[int(kind) - 1], corners, file, reference, ignore=not counts
                )
        if left_out:
            report.add(
                "other_task",
                file,
                f"{left_out} rows that the benchmark does not count (vehicles, occluders) are not read",
            )
    if any(image.split is None for image in collected.images.values()):
        collected.notes.append(
            "frames of one sequence look alike: a part drawn from all sequences knows the rest; hold whole ones out by folders "
            "train/, val/ and test/"
        )
    if unnamed:
        reason = "the files number their classes; the names are those of the MOT challenge: 1 is 'pedestrian'"
        report.add("unnamed_classes", unnamed, reason)
    return collected.raw()
