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
    "ignored": ("info", "repaired"),
    "side_picture": ("info", "dropped"),
    "repeated_labels": ("info", "dropped"),
    "repeated_id": ("error", "dropped"),
    "swapped_corners": ("warning", "repaired"),
    "box_order": ("warning", "repaired"),
    "similar_classes": ("warning", "repaired"),
    "several_versions": ("warning", "repaired"),
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
    "extra_columns": ("info", "repaired"),
    "unnamed_classes": ("warning", "repaired"),
    "renumbered_classes": ("warning", "repaired"),
    "unread_file": ("warning", "dropped"),
    "other_task": ("info", "dropped"),
    "emptied_image": ("error", "dropped"),
    "no_pseudo_box": ("info", "dropped"),
    "annotation_without_image": ("error", "dropped"),
    "rotated_box": ("warning", "repaired"),
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
    _named: set[str] = field(default_factory=set, repr=False)

    def names(self, file: str) -> bool:
        """Whether a fault names the file."""
        return printable(file) in self._named

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
        self._named.add(printable(file))
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

    def extend(self, other: "Report") -> None:
        """Take over the faults of another report."""
        self.faults += other.faults
        self.annotations_dropped += other.annotations_dropped
        self.images_dropped += other.images_dropped
        self._named |= other._named

    def first_cause(self) -> str:
        """The first fault of the commonest kind that lost annotations, in one sentence; empty where there is none."""
        causes = [
            kind for kind in self.kinds() if kind["severity"] == "error" and kind["code"] != "emptied_image"
        ]
        if not causes:
            return ""
        worst = max(causes, key=lambda kind: kind["count"])
        place = f", {worst['annotation']}" if worst["annotation"] else ""
        return (
            f"{worst['file']}{place}: {printable(worst['reason'], 160)} ({worst['count']} x {worst['code']})."
        )

    def kinds(self) -> list[dict]:
        """One row for each code, as its first fault with `count`: errors before warnings before the rest, the commonest first."""
        counts = Counter(fault["code"] for fault in self.faults)
        first: dict[str, dict] = {}
        for fault in self.faults:
            first.setdefault(fault["code"], fault)
        order = ("error", "warning", "info")
        ranked = sorted(first, key=lambda code: (order.index(first[code]["severity"]), -counts[code], code))
        return [first[code] | {"count": counts[code]} for code in ranked]

    def to_json(self, shown: int | None = SHOWN) -> dict:
        """The report as JSON: `counts` by code, `kinds` with the first fault of each, the first `shown` faults (None: all)."""
        listed = self.faults if shown is None else self.faults[:shown]
        actions = Counter(fault["action"] for fault in self.faults)
        return {
            "counts": dict(sorted(Counter(fault["code"] for fault in self.faults).items())),
            "kinds": self.kinds(),
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
