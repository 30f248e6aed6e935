"""Which names an archive may use: the part of safe unpacking that needs no archive at all."""

import re
import unicodedata
from dataclasses import dataclass, field

from app.errors import UnusableArchive

MAX_PART_BYTES = 255
MAX_PATH_BYTES = 1024
MAX_DEPTH = 32
NESTED = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")
LITTER = frozenset({"__macosx", "thumbs.db", "desktop.ini"})

_DRIVE = re.compile(r"^[A-Za-z]:")


def refuse(code: str, entry: str, found: str, remedy: str) -> UnusableArchive:
    """The refusal of an archive because of one entry; says what was found and what to change."""
    shown = entry.encode("utf-8", "backslashreplace").decode()
    shown = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in shown)
    shown = shown if len(shown) <= 200 else shown[:200] + "..."
    return UnusableArchive(
        f"Entry {shown!r}: {found} {remedy}",
        code=code,
        errors=[{"pointer": f"/archive/{shown}", "message": found}],
    )


def safe_parts(name: str) -> tuple[str, ...]:
    """The path of an entry as parts below the target folder; `()` for the folder itself.

    Raises UnusableArchive for names that leave the folder, are absolute, or cannot be kept on every disk.
    """
    if "\0" in name:
        raise refuse(
            "archive_bad_name", name, "the name holds a NUL byte.", "Rename the file and pack again."
        )
    if any(0xD800 <= ord(c) <= 0xDFFF for c in name):
        raise refuse("archive_bad_name", name, "the name is not UTF-8.", "Rename the file and pack again.")
    if any(unicodedata.category(c) == "Cc" for c in name):
        raise refuse(
            "archive_bad_name", name, "the name holds control characters.", "Rename the file and pack again."
        )
    # some Windows programs write backslashes, which no other system would read as folders
    slashed = name.replace("\\", "/")
    if slashed.startswith("/") or _DRIVE.match(slashed):
        raise refuse(
            "archive_absolute_path",
            name,
            "the path is absolute.",
            "Pack the folder itself, with relative paths.",
        )
    parts = tuple(part for part in slashed.split("/") if part not in ("", "."))
    if ".." in parts:
        raise refuse(
            "archive_path_escapes",
            name,
            "the path leaves the archive with '..'.",
            "Pack the folder itself, without '..'.",
        )
    if len(parts) > MAX_DEPTH or len(slashed.encode()) > MAX_PATH_BYTES:
        raise refuse(
            "archive_name_too_long",
            name,
            f"the path has {len(parts)} levels and {len(slashed.encode())} bytes.",
            f"Use at most {MAX_DEPTH} levels and {MAX_PATH_BYTES} bytes.",
        )
    if any(len(part.encode()) > MAX_PART_BYTES for part in parts):
        raise refuse(
            "archive_name_too_long",
            name,
            "a name in the path is too long.",
            f"Use at most {MAX_PART_BYTES} bytes.",
        )
    return parts


def refuse_twice(name: str, found: str) -> UnusableArchive:
    """The refusal of a name that is another's."""
    return refuse("archive_duplicate_name", name, found, "Keep one of them, or rename one.")


def is_litter(parts: tuple[str, ...]) -> bool:
    """Dotfiles and what operating systems leave beside pictures."""
    return any(part.startswith(".") or part.casefold() in LITTER for part in parts)


def is_nested(parts: tuple[str, ...]) -> bool:
    """An archive in the archive."""
    return bool(parts) and parts[-1].casefold().endswith(NESTED)


def _key(parts: tuple[str, ...]) -> str:
    return unicodedata.normalize("NFC", "/".join(parts))


@dataclass
class NamesSeen:
    """Refuses two entries that some disk would keep as one: equal names, names that differ only in their Unicode form, and a
    file where another entry needs a folder. Names that differ in case are two files, where the disk keeps them apart."""

    files: dict[str, str] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)

    def add_file(self, parts: tuple[str, ...]) -> None:
        name, key = "/".join(parts), _key(parts)
        earlier = self.files.get(key)
        if earlier is not None:
            how = "comes twice." if earlier == name else f"is the same as {earlier!r} but for Unicode form."
            raise refuse_twice(name, f"the name {how}")
        self._add_folders(parts[:-1])
        if key in self.folders:
            raise refuse("archive_duplicate_name", name, "is a file and a folder.", "Rename one of them.")
        self.files[key] = name

    def add_folder(self, parts: tuple[str, ...]) -> None:
        self._add_folders(parts)

    def _add_folders(self, parts: tuple[str, ...]) -> None:
        for depth in range(1, len(parts) + 1):
            key = _key(parts[:depth])
            if key in self.files:
                raise refuse(
                    "archive_duplicate_name",
                    "/".join(parts[:depth]),
                    "is a file and a folder.",
                    "Rename one of them.",
                )
            self.folders.add(key)
