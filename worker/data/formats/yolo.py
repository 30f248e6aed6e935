"""YOLO text labels with an Ultralytics `data.yaml`: one `class cx cy w h` (or `class x1 y1 x2 y2 ...`) a line, as fractions."""

from collections.abc import Iterator

import yaml

from worker.data.faults import Report
from worker.data.formats.raw import Raw, RawBox, RawImage, category_name, head_of, numbers, text_of
from worker.data.splits import split_named, split_of_folders
from worker.data.tree import NotFound, Tree, join, parent, stem

NAME = "yolo"
TITLE = "YOLO text labels with data.yaml (Ultralytics), labels/ mirroring images/"
_MAX_YAML_BYTES = 1 << 20
_NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels")


def _description(tree: Tree, report: Report | None = None) -> tuple[str, dict] | None:
    """The first YAML file that describes a dataset, and its content."""
    for file in tree.with_suffix(".yaml", ".yml"):
        text = head_of(tree, file, _MAX_YAML_BYTES)
        try:
            content = yaml.safe_load(text)
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            if report is not None:
                report.add("unreadable_file", file, f"not valid YAML: {error}")
            continue
        if isinstance(content, dict) and ("names" in content or "nc" in content):
            return file, content
    return None


def _is_label_file(tree: Tree, file: str) -> bool:
    lines = head_of(tree, file).splitlines()
    words = lines[0].split() if lines else []
    return len(words) >= 5 and numbers(words) is not None


def _label_files(tree: Tree) -> list[str]:
    stems = {stem(image).casefold() for image in tree.images}
    return [file for file in tree.with_suffix(".txt") if stem(file).casefold() in stems]


def recognise(tree: Tree) -> str | None:
    """The evidence for this format in the tree, or None."""
    labels = [file for file in _label_files(tree)[:50] if _is_label_file(tree, file)]
    described = _description(tree)
    if labels:
        return f"YOLO label files, such as {labels[0]}" + (f", and {described[0]}" if described else "")
    if described and "names" in described[1] and {"train", "val", "test"} & described[1].keys():
        return f"{described[0]}"
    return None


def _names(tree: Tree, content: dict, report: Report) -> list[str]:
    given = content.get("names")
    if isinstance(given, dict):
        keys = [key for key in given if isinstance(key, int) and 0 <= key < 100_000]
        return [
            category_name(given.get(index)) or f"class {index}" for index in range(max(keys, default=-1) + 1)
        ]
    if isinstance(given, list):
        return [category_name(name) or f"class {index}" for index, name in enumerate(given)]
    for file in tree.files:
        if file.rpartition("/")[2].lower() in _NAME_FILES:
            return [
                category_name(line) or f"class {index}"
                for index, line in enumerate((text_of(tree, file, report) or "").splitlines())
            ]
    count = content.get("nc")
    return (
        [f"class {index}" for index in range(count)] if isinstance(count, int) and 0 < count < 100_000 else []
    )


def _members(tree: Tree, base: str, word: str, split: str, report: Report) -> Iterator[str]:
    # `../train/images` and paths of another machine are usual here: only what is in the archive is compared.
    wanted = [part for part in word.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    listing = tree.at(join(base, *wanted)) if word.lower().endswith(".txt") else None
    if listing is None:
        folder = "/" + join(*wanted) + "/"
        yield from (image for image in tree.images if folder in f"/{parent(image)}/" or not wanted)
        return
    for line in (text_of(tree, listing, report) or "").splitlines():
        name = "/".join(
            part for part in line.strip().replace("\\", "/").split("/") if part not in ("", ".", "..")
        )
        try:
            yield tree.image_named(name, [base], split)
        except NotFound as missing:
            if name:
                report.add("missing_image", line, f"{missing.reason} (listed in {listing})", image=True)


def _splits(tree: Tree, file: str, content: dict, report: Report) -> dict[str, str]:
    """Picture -> split, from the folders or list files that the YAML names under train, val and test."""
    splits: dict[str, str] = {}
    for key in ("train", "val", "valid", "test"):
        split = split_named(key) or key
        value = content.get(key)
        for word in value if isinstance(value, list) else [value]:
            if isinstance(word, str):
                for image in _members(tree, parent(file), word, split, report):
                    splits.setdefault(image, split)
    return splits


def _label_file(tree: Tree, image: str, labels: dict[str, list[str]]) -> str | None:
    parts = image.split("/")
    for place in reversed(range(len(parts) - 1)):
        if parts[place].lower() == "images":
            mirrored = join(*parts[:place], "labels", *parts[place + 1 : -1], stem(image) + ".txt")
            if found := tree.at(mirrored):
                return found
    if beside := tree.at(join(parent(image), stem(image) + ".txt")):
        return beside
    candidates = labels.get(stem(image).casefold(), [])
    return candidates[0] if len(candidates) == 1 else None


def _box(words: list[str], names: list[str], file: str, reference: str, report: Report) -> RawBox | None:
    values = numbers(words)
    if values is None or not (len(values) == 5 or (len(values) >= 7 and len(values) % 2 == 1)):
        report.add(
            "invalid_annotation",
            file,
            f"'{' '.join(words)}': 'class cx cy w h' or 'class x1 y1 x2 y2 x3 y3 ...' is wanted",
            reference,
        )
        return None
    index = int(values[0])
    if index != values[0] or index < 0 or (names and index >= len(names)):
        report.add(
            "unknown_category",
            file,
            f"class {words[0]} is not one of the {len(names)} named classes",
            reference,
        )
        return None
    category = names[index] if names else f"class {index}"
    if len(values) == 5:
        _, cx, cy, width, height = values
        return RawBox(
            category, (cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2), file, reference
        )
    xs, ys = values[1::2], values[2::2]
    return RawBox(category, (min(xs), min(ys), max(xs), max(ys)), file, reference, segmentation=[values[1:]])


def read(tree: Tree, report: Report) -> Raw:
    """Read the labels of every picture; a picture without a label file is background, as in Ultralytics."""
    described = _description(tree, report)
    file, content = described or ("", {})
    names = _names(tree, content, report)
    splits = _splits(tree, file, content, report)
    labels: dict[str, list[str]] = {}
    for label in _label_files(tree):
        labels.setdefault(stem(label).casefold(), []).append(label)
    images: list[RawImage] = []
    used: set[str] = set()
    for path in tree.images:
        image = RawImage(path, splits.get(path) or split_of_folders(path), relative=True)
        images.append(image)
        label = _label_file(tree, path, labels)
        if label is None:
            continue
        used.add(label)
        for place, line in enumerate((text_of(tree, label, report) or "").splitlines(), start=1):
            words = line.split()
            if words and (box := _box(words, names, label, f"line {place}", report)):
                image.boxes.append(box)
    for label in tree.with_suffix(".txt"):
        if label not in used and _is_label_file(tree, label):
            lines = sum(bool(line.strip()) for line in (text_of(tree, label) or "").splitlines())
            report.add("label_without_image", label, "no picture of this name", lost=lines)
    if not names:
        in_use = {box.category for image in images for box in image.boxes}
        names = sorted(in_use, key=lambda name: int(name.split()[1]))
    return Raw(images, list(dict.fromkeys(names)))
