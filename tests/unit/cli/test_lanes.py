"""Which worker of the embedded service takes what, and when it is started."""

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar
from uuid import uuid4

import pytest
from typer.main import get_command

from app.cli.main import build
from app.db.engine import Database, database_now
from app.db.migrate import upgrade
from app.db.tables import Checkpoint, Workspace
from app.embedded import lanes
from app.ids import new_id
from app.queue.broker import Broker, has_messages
from app.queue.kinds import KINDS, QUEUES
from app.queue.states import JobKind
from app.settings import Settings

WHOLES = {JobKind.RANK, JobKind.SEARCH, JobKind.STUDY, JobKind.PRETRAIN, JobKind.PSEUDO_LABEL}
SHORT = {JobKind.INGEST, JobKind.INSPECT} | WHOLES


def test_short_work_shares_its_queue_with_nothing_that_lasts() -> None:
    assert {kind for kind, how in KINDS.items() if how.queue == "cpu"} == SHORT
    assert {how.queue for how in KINDS.values()} == set(QUEUES)


def test_every_queue_has_a_worker_that_the_command_line_knows() -> None:
    assert set(lanes.PROCESSES) == set(QUEUES)
    worker = get_command(build()).commands["worker"]
    for queue, processes in lanes.PROCESSES.items():
        _, _, _, _, name, *words = lanes.worker_command(queue, processes)
        assert name == "worker"
        found = worker.make_context(name, words).params
        assert (found["queues"], found["concurrency"], found["while_stdin"]) == (queue, processes, True)


def test_a_message_is_seen_in_its_queue_alone(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    assert not has_messages(settings, "gpu")
    broker = Broker(settings)
    broker.ring("job_1", "score", "gpu")
    broker.close()
    assert has_messages(settings, "gpu")
    assert not has_messages(settings, "long")


@pytest.mark.parametrize("url", ["redis://127.0.0.1:6379/0", "amqp://127.0.0.1"])
def test_on_a_server_nobody_looks_and_every_worker_starts_at_once(url: str) -> None:
    assert has_messages(Settings(broker_url=url, queue_prefix=uuid4().hex), "gpu")


def test_extraction_starts_with_the_first_checkpoint_that_is_registered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data_dir=tmp_path)
    upgrade(settings.resolved_database_url)
    database = Database(settings.resolved_database_url)
    asked = Idle.asked = {}
    monkeypatch.setattr(lanes, "ASKED_EVERY_S", 0.0)
    monkeypatch.setattr(lanes, "worker_command", lambda queue, _: [queue])
    monkeypatch.setattr(lanes, "Supervisor", Idle)
    register(database)
    with lanes.workers(settings):
        assert {queue: wanted() for queue, wanted in asked.items()} == {
            "cpu": True,
            "gpu": False,
            "long": False,
        }
        register(database)
        assert {queue: wanted() for queue, wanted in asked.items()} == {
            "cpu": True,
            "gpu": True,
            "long": False,
        }
    database.dispose()


def register(database: Database) -> None:
    with database.unit_of_work() as session:
        now = database_now(session)
        if session.get(Workspace, "ws_1") is None:
            session.add(Workspace(id="ws_1", name="other", created_at=now))
            session.flush()
        row = {"workspace_id": "ws_1", "name": "c", "state": "processing", "request": {}}
        session.add(Checkpoint(id=new_id("ckpt"), **row, created_at=now, updated_at=now))


class Idle:
    """Stands for a supervisor that starts nothing; when each queue's worker is wanted stands in `asked`."""

    asked: ClassVar[dict[str, Callable[[], bool]]]

    def __init__(self, command: list[str], wanted: Callable[[], bool]) -> None:
        self.asked[command[0]] = wanted

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass
