"""What a worker says of itself: found out without torch in the parent, told by children after their jobs."""

import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from app.db.tables import WorkerRecord
from worker import machine
from worker.declaration import Declaration, seen, tell_models


def record(bench, name: str = "host:7") -> WorkerRecord:
    with bench.database.reading() as session:
        return session.get(WorkerRecord, name)


def tell(bench, declaration: Declaration) -> WorkerRecord:
    with bench.database.unit_of_work() as session:
        seen(session, declaration)
    return record(bench, declaration.name)


def known(declaration: Declaration) -> Declaration:
    declaration.start()
    until = time.monotonic() + 30
    while "device" not in declaration.details:
        assert time.monotonic() < until
        time.sleep(0.01)
    return declaration


def test_the_machine_is_described_without_loading_torch():
    code = (
        "import sys; from worker import celery_app, machine; found = machine.facts('cpu'); "
        "assert not {'torch', 'numpy'} & set(sys.modules), 'the parent loaded science'; "
        "assert found['memory_total_bytes'] > found['memory_free_bytes'] > 0, found; "
        "assert found['device'] == 'cpu' and found['device_name'] and found['precisions'][0] == 'float32', found; "
        "import importlib.metadata; assert found['torch'] == importlib.metadata.version('torch')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=os.environ | {"DETRANK_DATA_DIR": "/nowhere"},
    )
    assert done.returncode == 0, done.stderr


def test_a_container_s_limit_counts(tmp_path, monkeypatch):
    (tmp_path / "memory.max").write_text("3000000000\n")
    (tmp_path / "memory.current").write_text("1000000000\n")
    monkeypatch.setattr(machine, "CONTROL_GROUP", tmp_path)
    found = machine.memory()
    assert found["memory_total_bytes"] == 3_000_000_000
    assert found["memory_free_bytes"] <= 2_000_000_000
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.memory()["memory_total_bytes"] != 3_000_000_000
    monkeypatch.setattr(machine, "MEMORY_INFO", tmp_path / "none")
    assert machine.memory() == {"memory_total_bytes": None, "memory_free_bytes": None}


def test_a_card_is_looked_for_only_where_one_may_be_seen(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not machine.may_have_card()
    monkeypatch.setattr(machine, "may_have_card", lambda: True)
    monkeypatch.setattr(machine, "_asked_of_torch", lambda asked: {"device": "cpu"})
    assert machine.facts("auto")["device"] == "cpu", "a card that torch cannot use is none"


def test_a_device_that_cannot_be_asked_says_why():
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    found = machine.facts("cuda:0")
    assert found["device"] == "cuda:0"
    assert "could not be asked" in found["problem"]
    assert machine.cuda_facts("auto") == {"device": "cpu"}


@pytest.mark.gpu
def test_a_card_is_described():
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    found = machine.facts("auto")
    assert found["device"].startswith("cuda")
    assert found["memory_total_bytes"] >= found["memory_free_bytes"] > 0
    assert "float16" in found["precisions"]


def test_a_worker_signs_in_at_once_and_tells_of_its_machine_when_it_knows(bench):
    declaration = Declaration("host:7", ["gpu"], device="cpu", concurrency=2)
    first = tell(bench, declaration)
    assert (first.queues, first.details["pid"], first.details["concurrency"]) == (["gpu"], 7, 2)
    assert "device" not in first.details
    found = tell(bench, known(declaration)).details
    assert (found["device"], found["pid"]) == ("cpu", 7)
    assert found["memory_total_bytes"] > 0


def test_children_tell_what_they_keep_and_the_parent_leaves_it_there(bench, monkeypatch):
    declaration = known(Declaration("host:7", ["gpu"], device="cpu", concurrency=1))
    tell(bench, declaration)
    held = [{"architecture": "a", "weights_sha256": "0" * 64, "device": "cpu", "size_bytes": 5}]
    kept = SimpleNamespace(models=lambda: SimpleNamespace(held=lambda: held))
    monkeypatch.setitem(sys.modules, "worker.models", kept)
    tell_models(bench.database, "host:7")
    assert tell(bench, declaration).details["models"] == [{"pid": os.getpid(), **held[0]}]
    with bench.database.unit_of_work() as session:
        row = session.get(WorkerRecord, "host:7")
        row.details = row.details | {"models": [{"pid": 2**22 + 1, **held[0]}, *row.details["models"]]}
    held.clear()
    tell_models(bench.database, "host:7")
    assert record(bench).details["models"] == [], "the dead keep nothing"
    tell_models(bench.database, "host:8")
    monkeypatch.delitem(sys.modules, "worker.models")
    tell_models(bench.database, "host:7")


def test_what_a_child_said_of_a_card_s_memory_is_younger_than_the_parent_s(bench):
    declaration = Declaration("host:7", ["gpu"], device="cuda", concurrency=1)
    declaration._details |= {"device": "cuda", "memory_total_bytes": 100, "memory_free_bytes": 90}
    assert tell(bench, declaration).details["memory_free_bytes"] == 90
    with bench.database.unit_of_work() as session:
        row = session.get(WorkerRecord, "host:7")
        row.details = row.details | {"models": [], "memory_free_bytes": 40}
    assert tell(bench, declaration).details["memory_free_bytes"] == 40
