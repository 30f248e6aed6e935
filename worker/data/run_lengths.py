"""COCO's run lengths as numbers, checked: its C code trusts them and writes where they lead."""

from collections.abc import Sequence

_MOST_GROUPS = 6  # of five bits: more than the longest run of a picture can need


def run_lengths(counts: str | bytes | Sequence[int], pixels: int) -> list[int]:
    """The runs behind `counts`, which COCO writes as numbers or packed into a string.

    Raises ValueError when they are none, or do not add up to `pixels`.
    """
    runs = _unpacked(counts) if isinstance(counts, str | bytes) else list(counts)
    if not all(isinstance(run, int) and not isinstance(run, bool) and run >= 0 for run in runs):
        raise ValueError("run lengths must be whole numbers from 0")
    if sum(runs) != pixels:
        raise ValueError(f"its runs cover {sum(runs)} pixels of {pixels}")
    return runs


def box_of(runs: Sequence[int], height: int) -> tuple[float, float, float, float] | None:
    """The xyxy corners around a mask of that many rows, whose runs go down its columns, background first; None if it is empty."""
    start, columns, rows = 0, [], []
    for place, run in enumerate(runs):
        if place % 2 and run:
            first, last = divmod(start, height), divmod(start + run - 1, height)
            columns += [first[0], last[0]]
            rows += [first[1], last[1]] if first[0] == last[0] else [0, height - 1]
        start += run
    return (min(columns), min(rows), max(columns) + 1, max(rows) + 1) if columns else None


def _unpacked(packed: str | bytes) -> list[int]:
    # Groups of five bits, lowest first, bit 6 says that another follows; from the fourth run on the difference to the
    # run before the last one is written.
    data = packed.encode("utf-8") if isinstance(packed, str) else packed
    runs: list[int] = []
    place = 0
    while place < len(data):
        value, groups, more = 0, 0, True
        while more:
            if place >= len(data) or groups > _MOST_GROUPS or not 0 <= data[place] - 48 < 64:
                raise ValueError("the packed run lengths are broken")
            group = data[place] - 48
            value |= (group & 0x1F) << (5 * groups)
            more = bool(group & 0x20)
            place, groups = place + 1, groups + 1
            if not more and group & 0x10:
                value -= 1 << (5 * groups)
        runs.append(value + runs[-2] if len(runs) > 2 else value)
    return runs
