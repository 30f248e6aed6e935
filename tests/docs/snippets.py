"""What stands in README.md and docs/ to be typed: commands and Python, page by page."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```", re.M | re.S)
NEEDS = {"needs-network", "needs-registry", "needs-servers", "needs-docker", "needs-minutes"}


@dataclass(frozen=True)
class Block:
    """A fenced block. needs: why it is not run here."""

    page: Path
    language: str
    needs: str
    text: str

    @property
    def commands(self) -> list[str]:
        """Lines to be typed into a shell; those that are continued are one."""
        lines = re.sub(r"\\\n\s*", "", self.text).splitlines()
        if self.language == "console":
            return [line[2:] for line in lines if line.startswith("$ ")]
        begins = re.compile(r"(?:[A-Z_]+=\S+ )*(detrank|curl|make|pip|docker) ")
        return [line for line in lines if self.language in ("", "bash", "sh") and begins.match(line)]


def blocks(page: Path) -> Iterator[Block]:
    for fence, text in FENCE.findall(page.read_text(encoding="utf-8")):
        language, _, needs = fence.partition(" ")
        yield Block(page, language, needs, text)


def without_comment(command: str) -> str:
    return re.split(r"\s{2,}#", command)[0].removesuffix("&").strip()
