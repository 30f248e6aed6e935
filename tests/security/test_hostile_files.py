"""A share of the hostile files (tests/security/hostile) through the readers themselves; all of them go through a real service in
test_hostile_files_reach_worker.py."""

import random
from pathlib import Path

import pytest

from app.errors import UnusableArchive
from app.storage.archives import ArchiveLimits, unpack
from models_store import Limits, convert, errors
from tests.security.hostile import cases
from tests.security.hostile.checkpoints import MARKER
from worker.data import faults
from worker.data.encodings import encoding_of_names
from worker.data.ingest import ingest
from worker.memory_limit import memory_limit

ALL = list(cases())
LIMITS = ArchiveLimits(files=30_000, total_bytes=1 << 30, file_bytes=1 << 30, ratio=200)
# those that take seconds are left to the slow half
HEAVY = (
    "million",
    "100,000",
    "20,000",
    "500,000",
    "000 pixels",
    "3,000",
    "bomb",
    "200,000",
    "long line",
    "columns",
    "quote",
    "deep",
)
LIGHT = [case for case in ALL if not any(word in case.name for word in HEAVY)]


def drawn(route: str, count: int) -> list:
    return random.Random(3).sample([case for case in LIGHT if case.route == route], count)


def test_there_are_hundreds_of_them_with_names_of_their_own() -> None:
    assert len({case.name for case in ALL}) == len(ALL) > 500


@pytest.mark.parametrize("case", drawn("datasets", 90), ids=lambda case: case.name)
@pytest.mark.filterwarnings("ignore")
def test_a_hostile_archive_is_refused_or_costs_what_is_hostile_in_it(case, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(case.make())
    (tmp_path / "out").mkdir()
    try:
        root = unpack(source, tmp_path / "in", LIMITS, lambda: None, encoding_of_names).root
        ingest(root, tmp_path / "out")
        assert case.spared, "it was taken"
    except (UnusableArchive, faults.Unusable):
        assert not list((tmp_path / "out").iterdir())
    assert {path.name for path in tmp_path.iterdir()} <= {"source", "in", "out"}


@pytest.mark.parametrize("case", drawn("checkpoints", 12), ids=lambda case: case.name)
def test_a_hostile_checkpoint_is_refused(case, tmp_path: Path) -> None:
    MARKER.unlink(missing_ok=True)
    (tmp_path / "x.pth").write_bytes(case.make())
    code = None
    try:
        convert(tmp_path / "x.pth", tmp_path / "out", limits=Limits(cpu_s=60, wall_s=120))
        assert case.spared, "it was taken"
    except errors.Unusable as refusal:
        code = refusal.code
    assert code not in ("loader_failed", "killed", "too_slow")
    assert {path.name for path in tmp_path.iterdir()} == ({"x.pth"} if code else {"x.pth", "out"})
    assert not MARKER.exists()


def test_a_bound_on_memory_ends_where_it_ends() -> None:
    with pytest.raises(MemoryError), memory_limit(64 << 20):
        bytearray(128 << 20)
    assert len(bytearray(128 << 20)) == 128 << 20
    with memory_limit(0):
        assert len(bytearray(64 << 20)) == 64 << 20
