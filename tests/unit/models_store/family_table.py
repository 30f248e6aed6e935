"""The table of families in docs/checkpoints.md: tests put their measured differences there with DETRANK_WRITE_DOCS=1."""

import os
from pathlib import Path

PAGE = Path(__file__).resolve().parents[3] / "docs" / "checkpoints.md"
BEGIN, END = "<!-- families: begin -->", "<!-- families: end -->"
HEADER = (
    "| family | read from | held against | largest difference |",
    "|---|---|---|---|",
)


def rows() -> dict[str, str]:
    """Family and source to the row, as the page has them."""
    inside = PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    found = [line for line in inside.splitlines() if line.startswith("| ") and line not in HEADER]
    return {key_of(line): line for line in found}


def key_of(line: str) -> str:
    return "|".join(line.split("|")[1:3])


def measured(family: str, source: str, against: str, **differences: float) -> None:
    """Put a row into the page, in the place of an older one; nothing without DETRANK_WRITE_DOCS."""
    if os.environ.get("DETRANK_WRITE_DOCS") != "1":
        return
    said = ", ".join(f"{name} {value:.1e}" for name, value in differences.items())
    line = f"| {family} | {source} | {against} | {said} |"
    known = {**rows(), key_of(line): line}
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    table = "\n".join((BEGIN, *HEADER, *(known[key] for key in sorted(known)), END))
    PAGE.write_text(before + table + rest.partition(END)[2], encoding="utf-8")


def furthest(ours, theirs) -> float:
    """The largest absolute difference of two tensors."""
    return float((ours - theirs).abs().max())
