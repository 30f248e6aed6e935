"""The ledger of files: whatever looks like labels was used, is known to be harmless, or is named in the report.

A reader says in `Raw.used` which files it took annotations, names, splits or sizes from; nothing else is believed to be read.
"""

import re
from collections.abc import Callable, Iterable, Sequence

from worker.data.faults import Report, Unusable
from worker.data.formats.raw import Raw, head_of
from worker.data.tree import NoSuchPicture, Tree, stem, suffix
from worker.data.unread_kinds import kind_of

# suffix -> the formats that are written in it
LABELS: dict[str, str] = {
    ".txt": "YOLO, KITTI, DOTA, VisDrone, MOT or WIDER FACE text",
    ".json": "COCO, LabelMe, VIA, CreateML, Label Studio, Labelbox, Supervisely, SuperAnnotate, Datumaro, Darwin or BDD100K JSON",
    ".jsonl": "Hugging Face metadata or AutoML JSON lines",
    ".ndjson": "Labelbox or Ultralytics JSON lines",
    ".odgt": "CrowdHuman's JSON lines",
    ".geojson": "GeoJSON",
    ".xml": "PASCAL VOC or CVAT XML",
    ".csv": "a table of boxes or labels",
    ".tsv": "a table of boxes or labels",
    ".lst": "MXNet or plain lists",
    ".xls": "a spreadsheet",
    ".xlsx": "a spreadsheet",
    ".parquet": "Hugging Face parquet",
    ".arrow": "Hugging Face arrow",
    ".tfrecord": "TFRecord",
    ".tfrecords": "TFRecord",
    ".record": "TFRecord",
    ".rec": "MXNet RecordIO",
    ".mat": "MATLAB",
    ".npy": "NumPy",
    ".npz": "NumPy",
    ".h5": "HDF5",
    ".hdf5": "HDF5",
    ".pkl": "pickle",
    ".db": "a database",
    ".sqlite": "a database",
    ".yaml": "YOLO's data.yaml",
    ".yml": "YOLO's data.yaml",
    ".names": "Darknet names",
    ".labels": "Darknet names",
    ".data": "Darknet data",
    ".pbtxt": "a TensorFlow label map",
    ".zip": "an archive",
    ".tar": "an archive",
    ".tgz": "an archive",
    ".gz": "an archive",
    ".7z": "an archive",
    ".rar": "an archive",
}
_ABOUT_NO_PICTURE = frozenset({".yaml", ".yml", ".names", ".labels", ".data", ".pbtxt"})
_OPENINGS = frozenset({"{", '{"', "[", "[{", "[[", '["'})  # of JSON
_LINES_LOOKED_AT = 50
_SEVERAL = 4  # faults below which nothing is said about a whole set
_NOT_UNDERSTOOD = ("invalid_annotation", "unknown_category")
# What describes, draws or made a dataset and holds no labels.
_HARMLESS_SUFFIXES = re.compile(
    r"\.(md|rst|html?|css|js|pdf|docx?|pptx?|rtf|tex|bib|log|lock|pyc?|ipynb|sh|bat|m|c|cpp|h|cfg|toml|ini|cache|pth?|onnx|weights"
    r"|safetensors|url|sha256|md5|xmp|aae|jgw|tfw|pgw|prj)"
)
_HARMLESS_NAMES = re.compile(
    r"(read[-_ ]?me|licen[cs]e|copying|copyright|notice|sources?|citation|cite|change[-_ ]?log|credits|authors|attribution"
    r"|requirements|environment|dockerfile|makefile|terms)([-_. ].*)?",
    re.IGNORECASE,
)
_MAKING = frozenset({"dataset_infos.json", "dataset_info.json", "dataset-metadata.json", "package.json"})


_NUMBER = re.compile(r"[-+]?\d+(\.\d+)?([eE][-+]?\d+)?")


def is_harmless(file: str) -> bool:
    """Whether a file is known to hold no labels: a README, a licence, code, weights, a cache."""
    name = file.rpartition("/")[2]
    return (
        _HARMLESS_SUFFIXES.fullmatch(suffix(file)) is not None
        or _HARMLESS_NAMES.fullmatch(name) is not None
        or name.lower() in _MAKING
    )


def unread_files(tree: Tree, used: Iterable[str]) -> list[str]:
    """The files of the tree that are no pictures, were not used and are not known to be harmless."""
    known = {*tree.images, *tree.aside, *used}
    return [file for file in tree.files if file not in known and not is_harmless(file)]


def name_unread(tree: Tree, raw: Raw, report: Report) -> list[str]:
    """Give every unread file that the report does not name yet a fault; returns those that look like labels."""
    unread = unread_files(tree, raw.used)
    labels = [file for file in unread if _looks_like_labels(tree, file)]
    first = set(labels)
    for file in [*labels, *(file for file in unread if file not in first)]:
        if not report.names(file):
            might = LABELS.get(suffix(file))
            report.add(
                "unread_file",
                file,
                f"not read; it might be {might}" if might else "not read: no known kind of picture or labels",
            )
    return labels


def _looks_like_labels(tree: Tree, file: str) -> bool:
    """By its suffix, else by its content: JSON, or lines with rows of numbers (`output.manifest`, `a.ann`, `labels`)."""
    if suffix(file) in LABELS:
        return not _is_about_no_picture(tree, file)
    head = head_of(tree, file)
    if "\0" in head or "\ufffd" in head:
        return False
    lines = [line.split() for line in head.splitlines()[:_LINES_LOOKED_AT]]
    return head.lstrip()[:2].rstrip() in _OPENINGS or any(_has_numbers(words) for words in lines if words)


def _is_about_no_picture(tree: Tree, file: str) -> bool:
    """Whether a file describes a set or is prose or a list of words: text without rows of numbers and names of pictures."""
    if suffix(file) in _ABOUT_NO_PICTURE:
        return True
    if suffix(file) != ".txt" or tree.namesakes(file):
        return False
    lines = [line.split() for line in head_of(tree, file, 1 << 14).splitlines()[:_LINES_LOOKED_AT]]
    return not any(_has_numbers(words) or _names_a_picture(tree, words) for words in lines if words)


def _has_numbers(words: list[str]) -> bool:
    return (
        sum(_NUMBER.fullmatch(word.strip(",;")) is not None for word in words) >= 4
        or words[0].count(",") >= 4
    )


def _names_a_picture(tree: Tree, words: list[str]) -> bool:
    try:
        return tree.image_named(words[0].split(",")[0]) in tree.images
    except NoSuchPicture:
        return False


def pictures_at_stake(tree: Tree, raw: Raw, unread: Sequence[str]) -> int:
    """How many pictures without annotations the unread label files may be about.

    A file that has the stem of a picture is about that picture; any other, such as a table, about all of them.
    """
    answered = {image.path for image in raw.images} if raw.supervision != "none" else set()
    stems: dict[str, int] = {}
    for path in tree.images:
        stems.setdefault(stem(path).casefold(), 0)
        stems[stem(path).casefold()] += path not in answered
    mentioned = {stem(file).casefold() for file in unread}
    if mentioned - stems.keys():
        return sum(stems.values())
    return sum(stems[name] for name in mentioned)


def refuse_unread(
    tree: Tree, raw: Raw, unread: Sequence[str], might_be: Callable[[], str], name: str, report: Report
) -> None:
    """Raises Unusable where most of the labels were not read.

    That is: nothing but names of files and folders was used while something looks like labels, or more pictures are at stake
    in unread files than got an answer from the used ones. `might_be` names other formats that recognise the tree.
    """
    if not unread:
        return
    answered = len(raw.images) if raw.supervision != "none" else 0
    at_stake = pictures_at_stake(tree, raw, unread)
    if raw.used and at_stake <= answered:
        return
    kinds = dict.fromkeys(
        LABELS.get(suffix(file), "labels of a kind that nobody here knows") for file in unread
    )
    known = kind_of(tree, unread[0])
    is_or_might = f"it is {known}" if known else f"it might be {might_be() or '; or '.join(kinds)}"
    what = f"{len(unread)} files that look like labels were not read, such as {unread[0]}"
    first = f"{cause} " if (cause := report.first_cause()) else ""
    raise Unusable(
        f"{first}{what}: {is_or_might}. Read as {name}, {answered} pictures have labels and "
        f"{at_stake} are left without. Give another format, repair or take out these files, or, to do without them, "
        f"give format={name}.",
        report.to_json(),
    )


def refuse_garbled(raw: Raw, name: str, report: Report) -> None:
    """Raises Unusable where more annotations could not be understood than could: the files are in another format, or broken."""
    counts = report.to_json(shown=0)["counts"]
    lost = sum(counts.get(code, 0) for code in _NOT_UNDERSTOOD)
    kept = sum(len(image.boxes) + len(image.labels) for image in raw.images)
    if 0 < kept < lost and lost >= _SEVERAL:
        raise Unusable(
            f"{report.first_cause()} Read as {name}, {lost} annotations could not be understood and {kept} could: most labels would "
            f"be lost. Repair the files, give another format, or, to do without those, give format={name}.",
            report.to_json(),
        )


def refuse_misplaced(raw: Raw, kept: int, name: str, report: Report) -> None:
    """Raises Unusable where more boxes end before they begin or lie outside their pictures than `kept` ones are right.

    Their four numbers mean something else then. Boxes of no size at all are common, and mean nothing.
    """
    boxes = (box.corners for image in raw.images for box in image.boxes)
    lost = report.to_json(shown=0)["counts"].get("box_outside", 0)
    lost += sum(x2 < x1 or y2 < y1 for x1, y1, x2, y2 in boxes)
    if 0 < kept < lost and lost >= _SEVERAL:
        raise Unusable(
            f"{report.first_cause()} Read as {name}, {lost} boxes end before they begin or lie outside their pictures and {kept} are right: "
            "the numbers seem to mean something else, such as a width in place of a right border, or other pictures. Repair the "
            f"files, give another format, or, to do without those, give format={name}.",
            report.to_json(),
        )
