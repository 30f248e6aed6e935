"""What ingestion found wrong: the validation report, and the refusal of a dataset in which nothing is usable."""

from collections import Counter
from dataclasses import dataclass, field

SHOWN = 1000

# code -> (severity, action). "dropped" leaves the canonical form, "repaired" stays in it, changed.
CODES: dict[str, tuple[str, str]] = {
    "degenerate_box": ("error", "dropped"),
    "box_outside": ("error", "dropped"),
    "box_clipped": ("warning", "repaired"),
    "invalid_annotation": ("error", "dropped"),
    "invalid_mask": ("warning", "repaired"),
    "unknown_category": ("error", "dropped"),
    "unused_category": ("info", "dropped"),
    "duplicate_annotation": ("warning", "dropped"),
    "crowd": ("info", "repaired"),
    "missing_image": ("error", "dropped"),
    "unreadable_image": ("error", "dropped"),
    "image_too_large": ("error", "dropped"),
    "duplicate_image": ("warning", "dropped"),
    "unlisted_image": ("info", "dropped"),
    "label_without_image": ("error", "dropped"),
    "exif_rotation": ("warning", "repaired"),
    "converted_image": ("info", "repaired"),
    "size_mismatch": ("warning", "repaired"),
    "unsafe_path": ("error", "dropped"),
    "unreadable_file": ("error", "dropped"),
}


def printable(text: object, limit: int = 300) -> str:
    """Text of a user's file as it can be stored and shown: valid UTF-8, no control characters, at most `limit` long."""
    clean = str(text).encode("utf-8", "backslashreplace").decode("utf-8")
    clean = "".join(c if c.isprintable() else "�" for c in clean)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


@dataclass
class Report:
    """Every dropped or repaired image and annotation, in the order found."""

    faults: list[dict] = field(default_factory=list)
    annotations_dropped: int = 0
    images_dropped: int = 0

    def add(
        self,
        code: str,
        file: str,
        reason: str,
        annotation: object = None,
        *,
        lost: int | None = None,
        image: bool = False,
    ) -> None:
        """Record one fault.

        `annotation` is the annotation's id or place in its file; `lost` the number of annotations that leave with it
        (1 for a dropped annotation unless given); `image` says that a picture leaves.
        """
        severity, action = CODES[code]
        self.faults.append(
            {
                "severity": severity,
                "code": code,
                "file": printable(file),
                "annotation": None if annotation is None else printable(annotation),
                "reason": printable(reason, 500),
                "action": action,
            }
        )
        if action == "dropped":
            self.annotations_dropped += lost if lost is not None else int(annotation is not None)
            self.images_dropped += int(image)

    def to_json(self, shown: int | None = SHOWN) -> dict:
        """The report as JSON, with the first `shown` faults (None: all of them)."""
        listed = self.faults if shown is None else self.faults[:shown]
        actions = Counter(fault["action"] for fault in self.faults)
        return {
            "counts": dict(sorted(Counter(fault["code"] for fault in self.faults).items())),
            "dropped": actions["dropped"],
            "repaired": actions["repaired"],
            "images_dropped": self.images_dropped,
            "annotations_dropped": self.annotations_dropped,
            "faults": listed,
            "truncated": len(listed) < len(self.faults),
        }


class Unusable(Exception):
    """The folder holds no usable dataset.

    `reason` says what was found and what is accepted; `report` is the validation report up to that point (JSON).
    """

    def __init__(self, reason: str, report: dict) -> None:
        super().__init__(reason)
        self.reason = reason
        self.report = report
