"""The files of an unpacked archive, found by looking names up, never by opening a path that a user wrote.

Every lookup goes through an index of the regular files really there, so a name such as `../../etc/passwd`
cannot lead anywhere.
"""

import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from worker.data.pictures import SUFFIXES
from worker.data.splits import split_of_folders

_LITTER = {"__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini"}
_DRIVE = re.compile(r"^[A-Za-z]:")


class NotFound(Exception):
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
    """The file name without its folder and its last suffix."""
    return PurePosixPath(path).stem


def safe_parts(name: str) -> list[str]:
    """The parts of a relative name written in an annotation file.

    Raises NotFound(unsafe_path) for absolute names and for names with `..`.
    """
    text = name.strip().replace("\\", "/")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if text.startswith("/") or _DRIVE.match(text) or ".." in parts or "\0" in text:
        raise NotFound(
            "unsafe_path", "absolute paths and '..' are refused; name the picture relative to the archive"
        )
    if not parts:
        raise NotFound("missing_image", "the file name is empty")
    return parts


@dataclass
class Tree:
    """Regular files under `root` (relative POSIX paths, sorted); `links` are the symbolic links left out."""

    root: Path
    files: tuple[str, ...]
    links: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    _paths: dict[str, str] = field(default_factory=dict, repr=False)
    _names: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list), repr=False)
    _stems: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list), repr=False)

    def __post_init__(self) -> None:
        self.images = tuple(file for file in self.files if PurePosixPath(file).suffix.lower() in SUFFIXES)
        for file in self.files:
            self._paths.setdefault(_key(file), file)
            self._names[_key(PurePosixPath(file).name)].append(file)
        for file in self.images:
            self._stems[_key(stem(file))].append(file)

    def absolute(self, file: str) -> Path:
        """The path of one of `files` on disk."""
        return self.root / file

    def with_suffix(self, *suffixes: str) -> list[str]:
        """The files that end in one of the suffixes (lower case, with the dot)."""
        return [file for file in self.files if file.lower().endswith(suffixes)]

    def inventory(self) -> str:
        """What is here, for people: the commonest kinds of file with counts."""
        if not self.files:
            return "no files at all"
        kinds = Counter(PurePosixPath(file).suffix.lower() or "no suffix" for file in self.files)
        return ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common(8))

    def at(self, path: str) -> str | None:
        """The file at exactly this relative path (Unicode form and case aside), or None."""
        return self._paths.get(_key(path))

    def image_named(self, name: str, near: Sequence[str] = (), split: str | None = None) -> str:
        """The file that an annotation calls `name`: in the folders `near` first, then the only one ending so.

        Raises NotFound when there is none, several, or the name points outside the archive.
        """
        parts = safe_parts(name)
        for folder in near:
            if found := self.at(join(folder, *parts)):
                return found
        endings = self._names.get(_key(parts[-1]), [])
        whole = "/" + _key("/".join(parts))
        exact = [file for file in endings if ("/" + _key(file)).endswith(whole)]
        return self._only(exact or endings, name, split)

    def image_of_stem(self, name: str, near: Sequence[str] = (), split: str | None = None) -> str:
        """The picture whose file name without suffix is `name`, in the folders `near` first. Raises NotFound."""
        parts = safe_parts(name)
        candidates = self._stems.get(_key(parts[-1]), [])
        for folder in near:
            here = [file for file in candidates if _key(parent(file)) == _key(join(folder, *parts[:-1]))]
            if len(here) == 1:
                return here[0]
        return self._only(candidates, name, split)

    def _only(self, candidates: list[str], name: str, split: str | None) -> str:
        if len(candidates) > 1 and split:
            candidates = [file for file in candidates if split_of_folders(file) == split] or candidates
        if not candidates:
            raise NotFound("missing_image", "no such picture in the archive")
        if len(candidates) > 1:
            raise NotFound(
                "missing_image",
                f"{len(candidates)} files are called {PurePosixPath(name).name}; give the folder too",
            )
        return candidates[0]


def walk(root: Path) -> Tree:
    """Index the regular files under `root`; links are listed and not followed, system litter is left out."""
    root = root.resolve()
    files: list[str] = []
    links: list[str] = []
    pending = [""]
    while pending:
        folder = pending.pop()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                name = join(folder, entry.name)
                if entry.name in _LITTER or entry.name.startswith("._"):
                    continue
                if entry.is_symlink():
                    links.append(name)
                elif entry.is_dir(follow_symlinks=False):
                    pending.append(name)
                elif entry.is_file(follow_symlinks=False):
                    files.append(name)
    return Tree(root=root, files=tuple(sorted(files)), links=tuple(sorted(links)))
