"""A report as plain blocks, and the same blocks as one HTML page that stands alone or as Markdown."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2730; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.25rem; margin-top: 2.2rem; border-bottom: 1px solid #d5dce2; }
h3 { font-size: 1.05rem; margin-top: 1.6rem; }
table { border-collapse: collapse; font-size: 13px; margin: .8rem 0; display: block; overflow-x: auto; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #e4e9ed; text-align: left; }
th { background: #f2f5f7; } td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.strong td { font-weight: 600; background: #f8f5ec; }
figure { margin: 1rem 0; } img { max-width: 100%; height: auto; } figcaption { color: #54626e; font-size: 13px; }
"""
_NUMBER = re.compile(r"[-+−]?[\d.,]+( \[.*\])?|–")


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    text: str


@dataclass(frozen=True)
class Table:
    """Rows of text; those of `strong` (positions) stand out."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    strong: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Plot:
    """A PNG file that lies in `plots/` beside the report."""

    path: Path
    caption: str


Block = Heading | Paragraph | Table | Plot


def as_html(title: str, blocks: Sequence[Block]) -> str:
    """One page without any reference outside itself: style and pictures are inlined, all text is escaped."""
    body = "\n".join(_html(block) for block in blocks)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<h1>{escape(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def as_markdown(title: str, blocks: Sequence[Block]) -> str:
    """The same for a repository: pictures are files in `plots/` beside it."""
    return "\n\n".join([f"# {_md(title)}", *(_markdown(block) for block in blocks)]) + "\n"


def _html(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{escape(text)}</h{level}>"
        case Paragraph(text):
            return f"<p>{escape(text)}</p>"
        case Plot(path, caption):
            data = base64.b64encode(path.read_bytes()).decode("ascii")
            return (
                f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
                f"<figcaption>{escape(caption)}</figcaption></figure>"
            )
        case Table(header, rows, strong):
            head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
            lines = "\n".join(_row(row, number in strong) for number, row in enumerate(rows))
            return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{lines}\n</tbody>\n</table>"


def _row(row: Sequence[str], strong: bool) -> str:
    start = '<tr class="strong">' if strong else "<tr>"
    return f"{start}{''.join(map(_cell, row))}</tr>"


def _cell(text: str) -> str:
    kind = ' class="number"' if _NUMBER.fullmatch(text) else ""
    return f"<td{kind}>{escape(text)}</td>"


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {_md(text)}"
        case Paragraph(text):
            return _md(text)
        case Plot(path, caption):
            return f"![{_md(caption)}](plots/{path.name})"
        case Table(header, rows, strong):
            lines = [f"| {' | '.join(_md(cell) for cell in header)} |", f"|{'---|' * len(header)}"]
            for number, row in enumerate(rows):
                cells = [f"**{_md(cell)}**" if number in strong and cell else _md(cell) for cell in row]
                lines.append(f"| {' | '.join(cells)} |")
            return "\n".join(lines)


def _md(text: str) -> str:
    """Text in which nothing is markup; line breaks would end a table's row."""
    return re.sub(r"([\\`*_{}\[\]<>|#~])", r"\\\1", text).replace("\n", " ")
