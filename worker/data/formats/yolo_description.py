"""What describes YOLO labels: data.yaml or Darknet's obj.data, files of class names, and the pictures of each split."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from worker.data.faults import Report
from worker.data.formats import split_lists
from worker.data.formats.raw import category_name, head_of, text_of
from worker.data.splits import split_named
from worker.data.tree import NoSuchPicture, Tree, join, parent, written_parts

_MAX_YAML_BYTES = 1 << 20
_MAX_CLASSES = 100_000
_NAMES_FILE = re.compile(
    r"(?:_?(?:classes|class|class_?(?:names?|list|labels?)|labels?|label_?(?:list|names?|map)|names|obj|objects|categories"
    r"|predefined_classes|_?darknet)\.(?:txt|names|labels)|.*\.(?:names|labels))",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"^\s*(\d+)\s*[:,\t ]\s*(.+?)\s*$")
# A model's architecture, or how it was trained: beside many datasets, and nothing about their labels.
_OF_A_MODEL = frozenset({"backbone", "head", "lr0", "epochs", "weights", "anchors"})


@dataclass
class Description:
    """One description: the classes in order ('' where one has no name), what it lists for each split, key points per object.

    `key_points` is Ultralytics' kpt_shape: how many, and 2 or 3 numbers for each.
    """

    file: str
    names: list[str] = field(default_factory=list)
    members: list[tuple[str, str]] = field(default_factory=list)
    root: str = ""
    key_points: tuple[int, int] | None = None


def _loaded(text: str) -> Any:
    """YAML with every scalar as the text it is written as: `no`, 0012 and 1.0 are names here. Raises YAMLError."""
    try:
        return yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506  # it makes nothing but text, lists and dictionaries
    except yaml.YAMLError:
        # Windows paths between double quotes are no escapes, and tabs are blanks
        return yaml.load(text.replace("\\", "/").replace("\t", "  "), Loader=yaml.BaseLoader)  # noqa: S506


def names_in(given: Any, tree: Tree, near: str, report: Report) -> list[str]:
    """The classes of a `names` entry: a list, a dictionary either way round, a file, or words between commas."""
    if isinstance(given, str):
        file = _file_named(tree, given, near)
        return (
            names_of_file(tree, file, report) if file else [category_name(word) for word in given.split(",")]
        )
    if isinstance(given, list):
        entries = [next(iter(item.values()), "") if isinstance(item, dict) else item for item in given]
        return [category_name(item) for item in entries[:_MAX_CLASSES]]
    if not isinstance(given, dict):
        return []
    if not all(str(key).isdigit() for key in given) and all(str(value).isdigit() for value in given.values()):
        given = {value: key for key, value in given.items()}
    numbered = {int(key): category_name(name) for key, name in given.items() if str(key).isdigit()}
    numbered = {key: name for key, name in numbered.items() if key < _MAX_CLASSES}
    return [numbered.get(index, "") for index in range(max(numbered, default=-1) + 1)]


def _file_named(tree: Tree, name: str, near: str) -> str | None:
    try:
        return tree.image_named(name, [near]) if "." in name else None
    except NoSuchPicture:
        return None


def names_of_file(tree: Tree, file: str, report: Report) -> list[str]:
    """One class a line, or `0 cat`, `1: dog` a line."""
    lines = (text_of(tree, file, report) or "").rstrip().splitlines()
    numbered = [_NUMBERED.match(line) for line in lines]
    if lines and all(match and int(match[1]) == place for place, match in enumerate(numbered)):
        return [category_name(match[2]) for match in numbered if match]
    return [category_name(line) for line in lines]


def _words(value: Any) -> list[str]:
    return [
        word for word in (value if isinstance(value, list) else [value]) if isinstance(word, str) and word
    ]


def _of_yaml(tree: Tree, file: str, report: Report) -> Description | None:
    try:
        content = _loaded(head_of(tree, file, _MAX_YAML_BYTES))
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        report.add("unreadable_file", file, f"not valid YAML: {error}")
        return None
    if not isinstance(content, dict) or _OF_A_MODEL & content.keys():
        return None
    if not {"names", "nc", "kpt_shape"} & content.keys() and not {"train", "val"} <= content.keys():
        return None
    found = Description(file, names_in(content.get("names"), tree, parent(file), report))
    for key in ("train", "val", "valid", "validation", "test"):
        found.members += [(split_named(key) or key, word) for word in _words(content.get(key))]
    found.root = content["path"] if isinstance(content.get("path"), str) else ""
    shape = content.get("kpt_shape")
    if isinstance(shape, list) and len(shape) == 2 and all(str(side).isdigit() for side in shape):
        found.key_points = int(shape[0]), int(shape[1])
    return found


def _of_data(tree: Tree, file: str, used: set[str], report: Report) -> Description | None:
    """Darknet's `key = value` lines."""
    rows = [line.split("=", 1) for line in head_of(tree, file, _MAX_YAML_BYTES).splitlines() if "=" in line]
    content = {key.strip().lower(): value.strip() for key, value in rows}
    if not {"names", "train", "classes"} & content.keys():
        return None
    found = Description(file)
    if names := _file_named(tree, content.get("names", ""), parent(file)):
        used.add(names)
        found.names = names_of_file(tree, names, report)
    found.members = [
        (split_named(key) or key, content[key]) for key in ("train", "valid", "val", "test") if key in content
    ]
    return found


def is_of_a_model(tree: Tree, file: str) -> bool:
    """Whether a YAML is a model's or a training's."""
    try:
        content = _loaded(head_of(tree, file, _MAX_YAML_BYTES))
    except (yaml.YAMLError, RecursionError, ValueError):
        return False
    return isinstance(content, dict) and bool(_OF_A_MODEL & content.keys())


def descriptions(tree: Tree, used: set[str], report: Report) -> list[Description]:
    """The descriptions, one a folder (the one that says most), those with names and splits first."""
    found = [_of_yaml(tree, file, report) for file in tree.with_suffix(".yaml", ".yml")]
    found += [_of_data(tree, file, used, report) for file in tree.with_suffix(".data")]
    ranked = sorted(
        (each for each in found if each),
        key=lambda each: (not each.names, not each.members, each.file.count("/")),
    )
    best: dict[str, Description] = {}
    for each in ranked:
        best.setdefault(parent(each.file), each)
    used.update(each.file for each in best.values())
    used.update(file for file in tree.with_suffix(".yaml", ".yml") if is_of_a_model(tree, file))
    return list(best.values())


def names_files(tree: Tree, report: Report) -> list[Description]:
    """The files of class names, as descriptions that say nothing else."""
    found = []
    for file in tree.with_suffix("/notes.json", "notes.json"):
        # Label Studio's, beside the labels that it exports
        try:
            rows = json.loads(head_of(tree, file, _MAX_YAML_BYTES)).get("categories")
            by_number = {int(row["id"]): row["name"] for row in rows}
        except (ValueError, TypeError, KeyError, AttributeError):
            continue
        found.append(Description(file, names_in(by_number, tree, parent(file), report)))
    for file in tree.files:
        if _NAMES_FILE.fullmatch(file.rpartition("/")[2]):
            names = names_of_file(tree, file, report)
            if names and not all(re.match(r"^\d+(\s+-?[\d.]+){4,}$", name) for name in names):
                found.append(Description(file, names))
    return found


def nearest_description(label: str, found: list[Description]) -> Description | None:
    """The description whose folder is the deepest above the label file; else the first."""

    def depth(each: Description) -> int:
        folder = parent(each.file)
        return len(folder) if f"{label}".startswith(f"{folder}/" if folder else "") else -1

    return max(found, key=depth, default=None)


def splits_of(tree: Tree, each: Description, used: set[str], report: Report) -> dict[str, str]:
    """Picture -> split, from the folders and lists that a description names."""
    splits: dict[str, str] = {}
    for split, word in each.members:
        for path in _members(tree, each, word, split, used, report):
            splits.setdefault(path, split)
    return splits


def _members(
    tree: Tree, each: Description, word: str, split: str, used: set[str], report: Report
) -> Iterator[str]:
    base, parts = parent(each.file), written_parts(word)
    if word.lower().endswith(".txt"):
        try:
            listing = tree.image_named(word, [base, join(base, each.root), each.root])
        except NoSuchPicture:
            return
        used.add(listing)
        yield from split_lists.members(tree, listing, split, report)
        return
    # Paths of another machine are usual here, so what is in the archive decides: the longest ending that pictures lie in.
    while True:
        folder = "/" + join(*parts) + "/" if parts else "/"
        found = [image for image in tree.images if folder in f"/{parent(image)}/"]
        if found or not parts:
            yield from found
            return
        # `valid/images` that is not there does not mean `images`
        if split_named(parts[0]) or len(parts) == 1:
            return
        parts = parts[1:]
