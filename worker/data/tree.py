"""The files of an unpacked archive, found by looking names up, never by opening a path that a user wrote.

Every lookup goes through an index of the regular files really there, so a name such as `../../etc/passwd`
cannot lead anywhere.
"""

import functools
import html
import os
import re
import tempfile
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, unquote, unquote_plus

from worker.data.pictures import SUFFIXES
from worker.data.splits import split_of_folders

_LITTER = {"__macosx", "thumbs.db", "desktop.ini"}
_DRIVE = re.compile(r"^[A-Za-z]:")
# Label Studio stores an upload as the eight first hex digits of a UUID, a dash and its name.
_LABEL_STUDIO_KEY = re.compile(r"^(?:.*/)?[0-9a-f]{8}-([^/]+)$")


class NoSuchPicture(Exception):
    """A name that leads to no file here; `code` is `missing_image` or `unsafe_path`."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def _key(path: str) -> str:
    # macOS archives hold decomposed names, Windows ones another case, while the annotations hold what people typed.
    folded = unicodedata.normalize("NFC", path).casefold()
    return "/".join(part.strip() for part in folded.split("/"))


def join(*parts: str) -> str:
    """Join relative POSIX parts, leaving out empty ones and single dots."""
    return "/".join(piece for part in parts for piece in part.split("/") if piece not in ("", "."))


def parent(path: str) -> str:
    """The folder of a relative POSIX path; the empty string at the top."""
    return path.rpartition("/")[0]


def stem(path: str) -> str:
    """The file name without its folder and its last suffix, as pathlib has it, which takes ten times as long."""
    name = path.rpartition("/")[2]
    dot = name.rfind(".")
    return name[:dot] if 0 < dot < len(name) - 1 else name


def suffix(path: str) -> str:
    """The last suffix with its dot, in lower case; empty where there is none."""
    return path.rpartition("/")[2][len(stem(path)) :].lower()


def written_parts(name: str) -> list[str]:
    """The parts of a name as an annotation file or list writes it, relative to nothing in particular.

    Absolute paths, drives and addresses keep their parts, `.` goes, and `..` takes the part before it away. The result is
    looked up among the files that are there, so it cannot lead outside.
    """
    address = re.match(r"^[A-Za-z][A-Za-z0-9+.-]*://", name.strip())
    text = name.strip().replace("\\", "/")
    if address:
        text = text[address.end() :]
    # Label Studio's /data/local-files/?d=folder/a.jpg, and addresses with a query
    before, mark, query = text.partition("?")
    if mark:
        inner = parse_qs(query).get("d")
        text = inner[0] if inner else before if address else text
    parts: list[str] = []
    for part in text.split("/"):
        if part == ".." and parts:
            parts.pop()
        elif part not in ("", ".", ".."):
            parts.append(part)
    return parts


def points_outside(name: str) -> bool:
    """Whether a name is absolute, an address, or climbs with `..`: what only its ending can be trusted of."""
    text = name.strip().replace("\\", "/")
    return (
        text.startswith("/")
        or "://" in text
        or bool(_DRIVE.match(text))
        or ".." in text.split("/")
        or "\0" in text
    )


def _spellings(name: str) -> list[str]:
    """The name, and what it means where a program escaped it or put a key before it."""
    found = [name, unquote(name), html.unescape(name), unquote_plus(name)]
    if keyed := _LABEL_STUDIO_KEY.match(name):
        found.append(keyed[1])
    return list(dict.fromkeys(found))


@functools.lru_cache(maxsize=1 << 18)
def likeness(one: str, other: str) -> tuple[int, int]:
    """How alike two folders are: parts that they share from the front and the back, then words that they share anywhere.

    `train/images` is nearer to `train/labels` than `valid/images` is, as is `JPEGImages/vid0` to `Annotations/vid0`.
    """
    a, b = (_key(path).split("/") if path else [] for path in (one, other))
    shorter = min(len(a), len(b))
    front = next((place for place in range(shorter) if a[place] != b[place]), shorter)
    left = shorter - front
    back = next((place for place in range(left) if a[-1 - place] != b[-1 - place]), left)
    words = [set(re.findall(r"[a-z]+|\d+", _key(path))) for path in (one, other)]
    return front + back, len(words[0] & words[1])


@dataclass
class Tree:
    """Regular files under `root` (relative POSIX paths, sorted); `links` are the symbolic links left out.

    Pictures that lie inside such a file (parquet, TFRecord) are put into a folder in `scratch` (None: where temporary files
    go), which lives as long as the tree.
    """

    root: Path
    files: tuple[str, ...]
    links: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()
    scratch: Path | None = None
    _inside: dict[str, Path] = field(default_factory=dict, repr=False)
    _folder: tempfile.TemporaryDirectory[str] | None = field(default=None, repr=False)
    _exact: frozenset[str] = field(default=frozenset(), repr=False)
    _paths: dict[str, str] = field(default_factory=dict, repr=False)
    _names: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list), repr=False)
    _stems: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list), repr=False)

    def __post_init__(self) -> None:
        self._exact = frozenset(self.files)
        self.images = tuple(file for file in self.files if suffix(file) in SUFFIXES)
        for file in self.files:
            self._paths.setdefault(_key(file), file)
            name = file.rpartition("/")[2]
            self._names[_key(name)].append(file)
            if "%" in name and (plain := unquote(name)) != name:
                self._names[_key(plain)].append(file)
        for file in self.images:
            self._stems[_key(stem(file))].append(file)

    def absolute(self, file: str) -> Path:
        """The path on disk of one of `files`, or of a picture inside one."""
        return self._inside.get(file) or self.root / file

    def add_picture(self, file: str, number: str, written: str, data: bytes) -> str:
        """Put a picture that lies inside `file` beside the archive; its path, FILE/NAME, for `absolute` and reports.

        NAME is the last part of the `written` name where it is a picture's and not taken, else the number.
        """
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="inside-", dir=self.scratch)
        parts = written_parts(written)
        is_named = bool(parts) and suffix(parts[-1]) in SUFFIXES
        path = join(file, parts[-1]) if is_named else join(file, f"{number}.jpg")
        if path in self._inside:
            path = join(file, f"{number}-{path.rpartition('/')[2]}")
        place = Path(self._folder.name) / f"{len(self._inside):08d}"
        place.write_bytes(data)
        self._inside[path] = place
        return path

    def with_suffix(self, *suffixes: str) -> list[str]:
        """The files that end in one of the suffixes (lower case, with the dot)."""
        return [file for file in self.files if file.lower().endswith(suffixes)]

    def inventory(self) -> str:
        """What is here, for people: the commonest kinds of file with counts."""
        if not self.files:
            return "no files at all"
        kinds = Counter(suffix(file) or "no suffix" for file in self.files)
        return ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common(8))

    def at(self, path: str) -> str | None:
        """The file at exactly this relative path, else the one that differs in Unicode form or case only, or None."""
        return path if path in self._exact else self._paths.get(_key(path))

    def image_named(self, name: str, near: Sequence[str] = (), split: str | None = None) -> str:
        """The file that an annotation calls `name`: in the folders `near` first, then the one with the longest same ending.

        Names of other machines, escaped ones and ones with another suffix are found where that is unambiguous. Raises NoSuchPicture
        when there is none, several, or the name leads to the folder of another split.
        """
        code = "unsafe_path" if points_outside(name) else "missing_image"
        if "\0" in name or not written_parts(name):
            raise NoSuchPicture(code, "the file name is empty or broken")
        several: NoSuchPicture | None = None
        for spelling in _spellings(name):
            parts = written_parts(spelling)
            for folder in near:
                inside = (
                    "/".join(written_parts(f"{folder}/{spelling}"))
                    if ".." in spelling
                    else join(folder, *parts)
                )
                if found := self.at(inside):
                    return found
            candidates = self._names.get(_key(parts[-1]), []) if parts else []
            candidates = [file for file in candidates if file.endswith(parts[-1])] or candidates
            candidates = candidates or (self._of_stem(parts[-1]) if parts else [])
            if candidates:
                try:
                    return self._ending_so(candidates, parts, split, code, near[0] if near else "")
                except NoSuchPicture as refusal:
                    several = refusal
        if several:
            raise several
        outside = (
            ": it is a path of another place, and nothing here has its name" if code == "unsafe_path" else ""
        )
        raise NoSuchPicture(code, f"no such picture in the archive{outside}")

    def image_of_stem(self, name: str, near: Sequence[str] = (), split: str | None = None) -> str:
        """The picture whose file name without suffix is `name`, in the folders `near` first. Raises NoSuchPicture."""
        parts = written_parts(name)
        if points_outside(name) or not parts:
            raise NoSuchPicture("unsafe_path", "the name is empty or leads outside")
        candidates = self._stems.get(_key(parts[-1]), [])
        for folder in near:
            here = [file for file in candidates if _key(parent(file)) == _key(join(folder, *parts[:-1]))]
            if len(here) == 1:
                return here[0]
        if not candidates:
            raise NoSuchPicture("missing_image", "no such picture in the archive")
        return self._ending_so(candidates, parts, split, "missing_image")

    def set_aside(self, pictures: Sequence[str]) -> None:
        """Count some of the pictures as none: they are in `aside` then, and no annotation is matched with them by its stem."""
        self.aside = tuple(pictures)
        left_out = set(pictures)
        self.images = tuple(file for file in self.images if file not in left_out)
        for file in pictures:
            self._stems[_key(stem(file))].remove(file)

    def namesakes(self, file: str) -> list[str]:
        """The pictures with the stem of an annotation file, or those that it is called after (`a.png.json`)."""
        found = self._stems.get(_key(stem(file)), []) or self._names.get(_key(stem(file)), [])
        return [path for path in found if stem(path) == stem(file)] or found

    def picture_for(self, file: str) -> str:
        """The picture that an annotation file of the same stem belongs to, by the folders of both. Raises NoSuchPicture."""
        candidates = self.namesakes(file)
        beside = [path for path in candidates if parent(path) == parent(file)]
        if len(beside) == 1:
            return beside[0]
        own = split_of_folders(file)
        fitting = [path for path in candidates if own is None or split_of_folders(path) in (own, None)]
        best = nearest(file, fitting)
        if len(best) == 1:
            return best[0]
        if not candidates:
            raise NoSuchPicture("missing_image", "no picture has this name")
        if not fitting:
            raise NoSuchPicture(
                "missing_image", f"the only pictures of this name lie in another split, {candidates[0]}"
            )
        raise NoSuchPicture(
            "missing_image", f"{len(best)} pictures could be meant, such as {best[0]} and {best[1]}"
        )

    def _of_stem(self, name: str) -> list[str]:
        found = self._stems.get(_key(name), []) or self._stems.get(_key(stem(name)), [])
        return found or (self._numbered.get(int(name), []) if name.isascii() and name.isdigit() else [])

    @functools.cached_property
    def _numbered(self) -> dict[int, list[str]]:
        """Pictures by the number that they are called: an id of 12 means 000012.jpg."""
        found: dict[int, list[str]] = {}
        for name, files in self._stems.items():
            if name.isascii() and name.isdigit() and len(name) < 20:
                found.setdefault(int(name), []).extend(files)
        return found

    def _ending_so(
        self, candidates: list[str], parts: list[str], split: str | None, code: str, base: str = ""
    ) -> str:
        """The candidate that shares most folders with `parts` from the end on; of several, the one nearest to the folder `base`."""

        def shared(file: str) -> int:
            folders, wanted = _key(parent(file)).split("/"), [_key(part) for part in parts[:-1]]
            pairs = zip(reversed(folders), reversed(wanted), strict=False)
            return next(
                (place for place, (a, b) in enumerate(pairs) if a != b), min(len(folders), len(wanted))
            )

        wanted_split = split_of_folders("/".join(parts))
        if wanted_split:
            candidates = [file for file in candidates if split_of_folders(file) in (None, wanted_split)]
            if not candidates:
                raise NoSuchPicture(code, f"no such picture in the folders of {wanted_split}")
        most = max(shared(file) for file in candidates)
        best = [file for file in candidates if shared(file) == most]
        if len(best) > 1 and split:
            best = [file for file in best if split_of_folders(file) == split] or best
        if len(best) > 1 and base:
            best = nearest(f"{base}/", best)
        if len(best) > 1:
            raise NoSuchPicture(code, f"{len(best)} files are called {parts[-1]}; give the folder too")
        return best[0]


def nearest(file: str, candidates: Sequence[str]) -> list[str]:
    """Those of the candidates whose folder is most like that of `file`."""
    alike = [likeness(parent(file), parent(path)) for path in candidates]
    return [path for path, found in zip(candidates, alike, strict=True) if found == max(alike)]


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or was left behind by an operating system."""
    return name.casefold() in _LITTER or name.startswith(".")


def walk(root: Path) -> Tree:
    """Index the regular files under `root`; links are listed and not followed, hidden files and system litter left out."""
    root = root.resolve()
    files: list[str] = []
    links: list[str] = []
    pending = [""]
    while pending:
        folder = pending.pop()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                name = join(folder, entry.name)
                if is_litter(entry.name):
                    continue
                if entry.is_symlink():
                    links.append(name)
                elif entry.is_dir(follow_symlinks=False):
                    pending.append(name)
                elif entry.is_file(follow_symlinks=False):
                    files.append(name)
    return Tree(root=root, files=tuple(sorted(files)), links=tuple(sorted(links)))
