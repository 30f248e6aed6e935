"""What a reader gathers on its way: pictures, boxes, regions to ignore, and a fault for everything that it cannot use."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from worker.data.faults import Report
from worker.data.formats.locate import locate
from worker.data.formats.pairing import agreement, may_be_one
from worker.data.formats.raw import Corners, Raw, RawBox, RawImage, category_name, text_of
from worker.data.splits import split_named, split_of_file, split_of_folders
from worker.data.tree import NoSuchPicture, Tree, stem


@dataclass
class Collected:
    """The pictures and boxes of one tree; `raw` hands them over."""

    tree: Tree
    report: Report
    images: dict[str, RawImage] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    categories: dict[str, None] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    _names: dict[str, str] = field(default_factory=dict)
    _ignored: list[tuple[RawImage, Corners, str, str]] = field(default_factory=list)
    _claims: dict[str, tuple[str, int, bool]] = field(default_factory=dict)

    def named(
        self,
        written: object,
        file: str,
        *,
        split: str | None = None,
        declared: tuple[int, int] | None = None,
        relative: bool = False,
        lost: int = 0,
    ) -> RawImage | None:
        """The picture that `file` calls `written`; None and a fault, with `lost` annotations, where it is not there."""
        hint = split or split_of_file(file)
        try:
            name = written if isinstance(written, str) else ""
            path = locate(self.tree, name, file, hint)
            self._claim(path, name, file, lost)
        except NoSuchPicture as missing:
            self.report.add(
                missing.code, str(written), f"{missing.reason} (named in {file})", lost=lost, image=True
            )
            return None
        return self.at(path, split=hint, declared=declared, relative=relative)

    def _claim(self, path: str, name: str, file: str, lost: int) -> None:
        """Hold a name that leads to a picture against the one that led there before. Raises NoSuchPicture.

        `cam2/a.jpg` leads to `cam1/a.jpg` where the pictures of cam2 are not there: the name that agrees more with the path
        has it, and none of two that agree as much.
        """
        known, before, contested = self._claims.setdefault(path, (name, 0, False))
        if may_be_one(known, name) and not contested:
            # The longer one says more of where it belongs.
            self._claims[path] = max(known, name, key=len), before + lost, False
            return
        ahead = agreement(path, name) - agreement(path, known)
        if ahead >= 0 and not contested:
            reason = f"the only picture of this name, {path}, is also called {name} (named in {file})"
            self.report.add("missing_image", known, reason, lost=before, image=True)
            self.images.pop(path, None)  # what was read for the other goes with it
        if ahead == 0:
            self._claims[path] = known, 0, True
        if ahead <= 0:
            raise NoSuchPicture(
                "missing_image", f"the only picture of this name, {path}, is also called {known}"
            )
        self._claims[path] = name, lost, False

    def at(
        self,
        path: str,
        *,
        split: str | None = None,
        declared: tuple[int, int] | None = None,
        relative: bool = False,
    ) -> RawImage:
        """The picture at a path of the tree, new or known; its own folder tells the split where nothing else does."""
        return self.images.setdefault(
            path, RawImage(path, split or split_of_folders(path), declared=declared, relative=relative)
        )

    def box(
        self,
        image: RawImage,
        category: object,
        corners: Sequence[float] | None,
        file: str,
        reference: str,
        *,
        crowd: bool = False,
        ignore: bool = False,
        segmentation: list[list[float]] | dict | None = None,
        wanted: str = "four finite numbers are wanted",
    ) -> bool:
        """Add one box (xyxy); False and a fault where it has no class or no four numbers (`wanted` says what is)."""
        name = self._name(category)
        if corners is not None and len(corners) == 4 and name:
            x1, y1, x2, y2 = corners
            image.boxes.append(RawBox(name, (x1, y1, x2, y2), file, reference, crowd, segmentation, ignore))
            return True
        image.dropped += 1
        if corners is None or len(corners) != 4:
            self.report.add("invalid_annotation", file, f"the box cannot be read: {wanted}", reference)
        else:
            self.report.add("unknown_category", file, "the annotation names no class", reference)
        return False

    def _name(self, category: object) -> str:
        if not isinstance(category, str):
            return category_name(category)
        if category not in self._names:
            self._names[category] = category_name(category)
        return self._names[category]

    def unknown(self, image: RawImage, value: object, known: str, file: str, reference: str) -> None:
        """A box of a class that the archive does not name leaves, with a fault."""
        image.dropped += 1
        self.report.add("unknown_category", file, f"class {value!r} is not one of {known}", reference)

    def no_box(self, image: RawImage, what: str, file: str, reference: str) -> None:
        """An annotation of another kind (a point, a line) leaves, with a fault."""
        image.dropped += 1
        self.report.add("invalid_annotation", file, f"{what} has no box", reference)

    def ignore(self, image: RawImage, corners: Sequence[float] | None, file: str, reference: str) -> None:
        """A region in which detections of every class are to be ignored (KITTI's DontCare)."""
        if corners is None or len(corners) != 4:
            self.report.add(
                "invalid_annotation", file, "the region to ignore has no four finite numbers", reference
            )
            return
        x1, y1, x2, y2 = corners
        self._ignored.append((image, (x1, y1, x2, y2), file, reference))

    def name_all(self, names: Iterable[str]) -> None:
        """Classes in the order of the archive, whether they have boxes or not."""
        self.categories.update(dict.fromkeys(name for name in map(category_name, names) if name))

    def _take_lists(self) -> None:
        """Splits from lists such as KITTI's ImageSets/train.txt, whose lines name labelled pictures; the narrower list wins."""
        by_name: dict[str, list[RawImage]] = {}
        for path, image in self.images.items():
            for name in {stem(path), path.rpartition("/")[2]}:
                by_name.setdefault(name.casefold(), []).append(image)
        files = [
            file
            for file in self.tree.with_suffix(".txt")
            if split_named(stem(file)) and file not in self.used
        ]
        for file in sorted(files, key=lambda file: not stem(file).lower().startswith("trainval")):
            lines = [
                line.split()[0] for line in (text_of(self.tree, file) or "").splitlines() if line.strip()
            ]
            found = [by_name.get(line.rpartition("/")[2].casefold(), []) for line in lines]
            if lines and 2 * sum(len(images) == 1 for images in found) >= len(lines):
                self.used.add(file)
                for images in found:
                    if len(images) == 1:
                        images[0].split = split_named(stem(file))

    def raw(self) -> Raw:
        """All that was gathered. A region to ignore becomes a crowd of every class: COCO's way to ignore detections there."""
        self._take_lists()
        in_use = {box.category for image in self.images.values() for box in image.boxes}
        names = [*self.categories, *sorted(in_use - self.categories.keys())]
        for image, corners, file, reference in self._ignored:
            image.boxes.extend(RawBox(name, corners, file, reference, crowd=True) for name in names)
        return Raw(list(self.images.values()), self.used, names, notes=self.notes)


def xywh(values: Sequence[float] | None) -> Corners | None:
    """Corners of (x, y, width, height); None stays None, and so does anything but four numbers."""
    if values is None or len(values) != 4:
        return None
    x, y, width, height = values
    return x, y, x + width, y + height


def around(points: Sequence[Sequence[float]]) -> Corners | None:
    """The upright box around points (x, y); None without two of them."""
    if len(points) < 2:
        return None
    xs, ys = [point[0] for point in points], [point[1] for point in points]
    return min(xs), min(ys), max(xs), max(ys)


def flat(points: Sequence[Sequence[float]]) -> list[list[float]] | None:
    """COCO's segmentation of one polygon; None for fewer than three points."""
    return [[value for point in points for value in point[:2]]] if len(points) >= 3 else None
