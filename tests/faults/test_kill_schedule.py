"""A short kill schedule with every disturbance once; `python -m tests.faults.schedule` plays long ones."""

import os

import pytest

from tests.faults.schedule import play
from tests.faults.servers import NoServer
from tests.faults.works import JOBS_OF

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.mark.parametrize(
    ("broker", "kills", "trees"), [("embedded", 6, tuple(JOBS_OF)), ("redis", 3, ("ranking",))]
)
def test_nothing_is_lost_doubled_or_left_whatever_is_killed(
    broker: str, kills: int, trees: tuple[str, ...]
) -> None:
    try:
        outcome = play(broker, kills, seed=5, patience_s=300, trees=trees)
    except NoServer as missing:
        if os.environ.get("DETRANK_REQUIRE_SERVICES") == "1":
            raise
        pytest.skip(str(missing))
    assert outcome.problems == []
    assert sum(outcome.done[name] for name in ("process", "worker", "group", "api")) == kills
    others = {"freeze", "flush", "disk"} | ({"broker", "postgres"} if broker == "redis" else set())
    assert others - set(outcome.done) - set(outcome.skipped) == set()
    assert outcome.struck_jobs, "no job was struck"
    hit = sum(outcome.hit[kind] for kind in JOBS_OF["ranking"])
    assert hit, f"no ranking of several candidates was struck: {outcome.hit}"
