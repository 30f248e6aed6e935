"""What holds for every page, whatever it shows"""

from html.parser import HTMLParser
from typing import Any

from running import Workspace


class Shape(HTMLParser):
    """What a page links to, its ids, its form fields without a label, and what must not be in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.fields: list[dict[str, Any]] = []
        self.labelled: set[str] = set()
        self.inline: list[str] = []
        self.headings: list[str] = []
        self.depth: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.links += [found[name] or "" for name in ("href", "src", "action") if name in found]
        if "id" in found:
            self.ids.append(found["id"] or "")
        if tag in ("input", "select", "textarea"):
            self.fields.append(found | {"in_label": "label" in self.depth})
        if tag == "label" and "for" in found:
            self.labelled.add(found["for"] or "")
        self.inline += [f"{tag} {name}" for name in found if name == "style" or name.startswith("on")]
        if tag == "script" and "src" not in found:
            self.inline.append("script")
        if tag in ("h1", "h2", "h3"):
            self.headings.append(tag)
        if tag not in ("input", "img", "meta", "link", "br", "circle", "line", "path", "rect", "polyline"):
            self.depth.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.depth:
            while self.depth.pop() != tag:
                pass


def look(space: Workspace, at: str, status: int = 200) -> str:
    """The page at an address, held against what holds for every page."""
    answer = space.http.get(at, headers={"Accept": "text/html"})
    assert answer.status_code == status, answer.text[:500]
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    shape = Shape(answer.text)
    assert shape.inline == []
    assert [link for link in shape.links if link.startswith(("http", "//"))] == []
    assert len(shape.ids) == len(set(shape.ids))
    assert shape.headings[0] == "h1"
    assert shape.headings.count("h1") == 1
    for field in shape.fields:
        named = field.get("id") in shape.labelled or field["in_label"] or "aria-label" in field
        assert named or field.get("type") == "hidden", field
    return answer.text
