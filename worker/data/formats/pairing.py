"""Which of several label files, or of several written names, a picture belongs to, where the pictures of the others are not there."""

from collections import defaultdict
from collections.abc import Iterable

from worker.data.pictures import SUFFIXES
from worker.data.tree import NoSuchPicture, Tree, likeness, parent, suffix, written_parts


class Taken(NoSuchPicture):
    """The only picture of this name belongs to another label file, which lies nearer to it."""


def pictures_of(tree: Tree, files: Iterable[str]) -> dict[str, str | NoSuchPicture]:
    """The picture that each label file of the same stem belongs to, or why there is none.

    `cam1/a.xml` and `cam2/a.xml` may both find `cam1/a.jpg` where the pictures of cam2 were not sent: of several files for one
    picture those in the folder most like its own keep it, so one file for each class still adds up.
    """
    found: dict[str, str | NoSuchPicture] = {}
    claims: dict[str, list[str]] = defaultdict(list)
    for file in files:
        try:
            found[file] = path = tree.picture_for(file)
            claims[path].append(file)
        except NoSuchPicture as refusal:
            found[file] = refusal
    for path, claiming in claims.items():
        alike = {file: likeness(parent(file), parent(path)) for file in claiming}
        nearest = max(alike.values())
        keeper = next(file for file in claiming if alike[file] == nearest)
        for file in claiming:
            if alike[file] < nearest:
                found[file] = Taken(
                    "missing_image", f"the only picture of this name, {path}, belongs to {keeper}"
                )
    return found


def _folders(name: str) -> list[str]:
    return [part.casefold() for part in written_parts(name)[:-1]]


def may_be_one(one: str, other: str) -> bool:
    """Whether two written names may mean one picture: their folders agree as far as both say them, and so do their suffixes."""
    a, b = _folders(one), _folders(other)
    shared = min(len(a), len(b))
    kinds = {kind for name in (one, other) if (kind := suffix(name)) in SUFFIXES}
    return a[len(a) - shared :] == b[len(b) - shared :] and len(kinds) < 2


def agreement(path: str, written: str) -> int:
    """How many folders of a path and of a written name are the same, from the end on."""
    pairs = zip(reversed(_folders(path)), reversed(_folders(written)), strict=False)
    return next(
        (place for place, (a, b) in enumerate(pairs) if a != b), min(map(len, map(_folders, (path, written))))
    )


def without_contested(found: dict[str, str | None]) -> dict[str, str | None]:
    """{written name: picture} where each picture has one name: of names with different folders that lead to one picture the one
    that agrees most with its path keeps it, and none where several do. The pictures of the others are not there."""
    claims: dict[str, list[str]] = defaultdict(list)
    for name, path in found.items():
        if path is not None:
            claims[path].append(name)
    result = dict(found)
    for path, names in claims.items():
        if all(may_be_one(names[0], name) for name in names[1:]):
            continue
        best = max(names, key=lambda name: agreement(path, name))
        most = agreement(path, best)
        alone = all(may_be_one(best, name) for name in names if agreement(path, name) == most)
        result.update((name, None) for name in names if not alone or not may_be_one(best, name))
    return result
