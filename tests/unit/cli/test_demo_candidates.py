"""The demo's candidates are pinned, named apart, and say whose they are."""

import re

from app.cli.demo.candidates import CANDIDATES
from app.cli.demo.run import FEWEST_CANDIDATES


def test_every_candidate_is_one_checked_file_of_one_version() -> None:
    assert len(CANDIDATES) >= FEWEST_CANDIDATES >= 4
    for one in CANDIDATES:
        assert re.fullmatch(r"pypi://[a-z0-9-]+==[0-9.]+/[\w./-]+\.pth?", one["source"])
        assert re.fullmatch(r"[0-9a-f]{64}", one["sha256"])
        assert one["licence"]
        assert one["provenance"]["trained_on"]


def test_no_two_are_the_same() -> None:
    for field in ("name", "source", "sha256"):
        assert len({one[field] for one in CANDIDATES}) == len(CANDIDATES)
