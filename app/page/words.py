"""Numbers, times and states as people say them. All take what the API answers, and say – for null."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

NONE = "–"

# state -> (word, mark): a mark beside the colour, for who cannot tell colours apart
STATES = {
    "ready": ("ready", "✓"),
    "succeeded": ("done", "✓"),
    "processing": ("being read", "◔"),
    "queued": ("waiting", "○"),
    "running": ("running", "◔"),
    "cancelling": ("stopping", "◌"),
    "failed": ("failed", "✕"),
    "invalid": ("unusable", "✕"),
    "cancelled": ("cancelled", "–"),
}
ENDED = frozenset({"ready", "succeeded", "failed", "invalid", "cancelled"})
_AGO = ((86400 * 365, "year"), (86400 * 30, "month"), (86400, "day"), (3600, "hour"), (60, "minute"))


def ended(record: dict[str, Any]) -> bool:
    """Whether nothing more will happen to it by itself."""
    return record["state"] in ENDED


def state_word(state: str) -> str:
    return STATES.get(state, (state, ""))[0]


def state_mark(state: str) -> str:
    return STATES.get(state, (state, ""))[1]


def ago(text: str | None, now: datetime | None = None) -> str:
    """An RFC 3339 time as the distance from now: `3 minutes ago`."""
    if text is None:
        return NONE
    seconds = ((now or datetime.now(UTC)) - datetime.fromisoformat(text)).total_seconds()
    for size, unit in _AGO:
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def duration(seconds: float | None) -> str:
    """Seconds as `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds is None:
        return NONE
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest and minutes < 10 else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def took(record: dict[str, Any]) -> str:
    """How long work was at work, so far or in all."""
    if record.get("started_at") is None:
        return NONE
    until = record.get("finished_at")
    end = datetime.fromisoformat(until) if until else datetime.now(UTC)
    return duration(max(0.0, (end - datetime.fromisoformat(record["started_at"])).total_seconds()))


def count(value: float | None) -> str:
    """A whole number with separators."""
    return NONE if value is None else f"{value:,.0f}"


def millions(value: int | None) -> str:
    if value is None:
        return NONE
    return f"{value / 1e6:.1f} M" if value >= 1e5 else f"{value:,}"


def size(value: float | None) -> str:
    """Bytes in binary units."""
    if value is None:
        return NONE
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def milliseconds(value: float | None) -> str:
    if value is None:
        return NONE
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def fits(training: dict[str, Any] | None) -> str:
    """Whether a fine-tuning fits into the device's memory, as a word."""
    return {True: "yes", False: "no"}.get((training or {}).get("fits"), "not known")  # type: ignore[arg-type]


def score(value: float | None, interval: Sequence[float] | None = None) -> str:
    """A score with as many digits as its interval deserves: the first two of half its width; without one, three."""
    if value is None:
        return NONE
    return f"{value:.{_digits(value, interval)}f}".replace("-", "−")


def half_width(value: float | None, interval: Sequence[float] | None) -> str:
    """Half of an interval, in the digits of its score; nothing where there is none."""
    if value is None or not interval:
        return ""
    return f"{(interval[1] - interval[0]) / 2:.{_digits(value, interval)}f}"


def _digits(value: float, interval: Sequence[float] | None) -> int:
    half = (interval[1] - interval[0]) / 2 if interval else 0.0
    if half > 0:
        return min(6, max(0, 1 - math.floor(math.log10(half))))
    return 3 if abs(value) < 10 else 1


def precision(value: float | None) -> str:
    """mAP, by custom in points of 100."""
    return NONE if value is None else f"{100 * value:.1f}"


def difference(value: float | None) -> str:
    """Of two mAPs, in points of 100, with its sign."""
    return NONE if value is None else f"{100 * value:+.1f}".replace("-", "−")


def gained(gain: dict[str, Any]) -> str:
    """A gain of mAP with its 95 % limits, in points of 100."""
    if gain["low"] is None or gain["high"] is None:
        return f"{difference(gain['mean'])} (no interval)"
    return f"{difference(gain['mean'])} ({difference(gain['low'])} to {difference(gain['high'])})"


def share(value: float | None) -> str:
    """A probability; what rounds to nothing or to all is not said to be that."""
    if value is None:
        return NONE
    if 0 < value < 0.01:
        return "< 1 %"
    return "> 99 %" if 0.99 < value < 1 else f"{100 * value:.0f} %"


def progress(at: dict[str, Any] | None) -> str:
    """How far a job is: `34 of 80 images, about 12 s left`."""
    if not at or not at.get("total"):
        return (at or {}).get("message") or ""
    said = f"{at['done']:,} of {at['total']:,} {at.get('unit') or ''}".strip()
    return f"{said}, about {duration(at['eta_s'])} left" if at.get("eta_s") else said


def sentence(code: str) -> str:
    """A code as words: `degenerate_box` is `degenerate box`."""
    return code.replace("_", " ")


def family(architecture: str | None) -> str:
    """An architecture without who made it: what forms name a fresh one by."""
    return (architecture or "").rpartition("/")[2]


FILTERS = {
    "family": family,
    "ago": ago,
    "count": count,
    "difference": difference,
    "duration": duration,
    "gained": gained,
    "fits": fits,
    "half_width": half_width,
    "millions": millions,
    "milliseconds": milliseconds,
    "precision": precision,
    "progress": progress,
    "score": score,
    "sentence": sentence,
    "share": share,
    "size": size,
    "state_mark": state_mark,
    "state_word": state_word,
    "took": took,
}
