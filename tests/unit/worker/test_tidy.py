"""What expires goes, what is in use stays."""

import io
import os
import threading
import time
from datetime import timedelta

import pytest
from sqlalchemy import select

from app.db.engine import database_now
from app.db.tables import (
    Blob,
    Checkpoint,
    Dataset,
    Event,
    FeatureFile,
    Idempotency,
    Job,
    Outbox,
    Upload,
    Verification,
    WorkerRecord,
)
from app.ids import new_id
from app.queue import events, leases, verifications
from app.storage.blobs import open_store
from app.storage.remember import remember_blob
from worker.declaration import Declaration, seen
from worker.leftovers import leftovers
from worker.sweeper import Sweeper, unheard
from worker.tidy import (
    forget_expired,
    forget_features,
    forget_history,
    remove_orphaned_blobs,
    tidy,
)

DAY_S = 24 * 3600


def here() -> Declaration:
    return Declaration("host:7", ["cpu"], device="cpu", concurrency=1)


@pytest.fixture
def store(settings):
    settings.min_free_disk_bytes = 0
    return open_store(settings)


def keep(bench, store, content: bytes, *, row: bool = True, age_s: float = 2 * DAY_S) -> str:
    stored = store.put(io.BytesIO(content))
    path = store.local_path(stored.sha256)
    os.utime(path, (time.time() - age_s,) * 2)
    if row:
        with bench.database.unit_of_work() as session:
            remember_blob(session, stored, "text/plain")
            session.get(Blob, stored.sha256).created_at = database_now(session) - timedelta(seconds=age_s)
    return stored.sha256


def verification(bench, state_sha256: str, **fields) -> str:
    """A verification that ended a month ago with a training state; its id."""
    with bench.database.unit_of_work() as session:
        now = database_now(session)
        dataset = session.get(Dataset, session.get(Job, bench.job_id).resource_id)
        row = {
            "id": new_id("ckpt"),
            "workspace_id": dataset.workspace_id,
            "name": "c",
            "state": "ready",
            "request": {},
        }
        checkpoint = Checkpoint(**row, created_at=now, updated_at=now)
        session.add(checkpoint)
        session.flush()
        request = {"dataset_id": dataset.id, "checkpoint_id": checkpoint.id, "seed": 0, "recipe": "quick"}
        made = verifications.add(session, workspace_id=dataset.workspace_id, request=request)
        made.state_sha256, made.state_iteration = state_sha256, 7
        made.state, made.finished_at = "failed", now - timedelta(days=30)
        for name, value in fields.items():
            setattr(made, name, value)
        return made.id


def test_training_states_are_let_go_long_after_the_end(bench, store):
    old, young, running = (keep(bench, store, name) for name in (b"old", b"young", b"running"))
    picture, plot = keep(bench, store, b"picture"), keep(bench, store, b"plot")
    with bench.database.reading() as session:
        now = database_now(session)
    files = {"pictures": [{"sha256": picture}], "plots": [{"sha256": plot}]}
    ids = [
        verification(bench, old, **files),
        verification(bench, young, finished_at=now),
        verification(bench, running, state="running"),
    ]
    tidy(bench.database, bench.settings, store)
    with bench.database.reading() as session:
        assert [session.get(Verification, id).state_sha256 for id in ids] == [None, young, running]
    assert sorted(store) == sorted([young, running, picture, plot])


def test_only_old_files_that_nobody_refers_to_are_removed(bench, store):
    source, archive, preview = (keep(bench, store, name) for name in (b"source", b"archive", b"preview"))
    with bench.database.unit_of_work() as session:
        dataset = session.get(Dataset, session.get(Job, bench.job_id).resource_id)
        dataset.source_sha256, dataset.archive_sha256 = source, archive
        dataset.previews = [{"sha256": preview, "file_name": "a.jpg"}]
    young = keep(bench, store, b"young", age_s=60)
    young_without_row = keep(bench, store, b"young, no row", row=False, age_s=60)
    touched = keep(bench, store, b"stored again", age_s=2 * DAY_S)
    store.put(io.BytesIO(b"stored again"))
    orphan = keep(bench, store, b"orphan")
    without_row = keep(bench, store, b"no row", row=False)
    assert sorted(remove_orphaned_blobs(bench.database, store)) == sorted([(orphan, 6), (without_row, 6)])
    assert sorted(store) == sorted([source, archive, preview, young, young_without_row, touched])
    with bench.database.reading() as session:
        assert session.get(Blob, orphan) is None
        assert session.get(Blob, source) is not None


def aged(path, age_s: float):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    for each in (path, path.parent):
        os.utime(each, (time.time() - age_s,) * 2)
    return path


def test_scratch_that_somebody_still_writes_to_stays(bench, store):
    scratch = bench.settings.scratch_dir
    for name, age_s in (("old", 2 * DAY_S), ("young", 60), ("busy", 2 * DAY_S)):
        aged(scratch / name / "file", age_s)
    (scratch / "busy" / "file").touch()
    (scratch / "single").write_text("x")
    os.utime(scratch / "single", (time.time() - 2 * DAY_S,) * 2)
    (scratch / "link").symlink_to(scratch / "young")
    tidy(bench.database, bench.settings, store)
    assert sorted(path.name for path in scratch.iterdir()) == ["busy", "link", "young"]


def test_what_killed_processes_left_goes_and_what_is_whole_stays(bench, store):
    home, half = bench.settings.home, "0123456789abcdef" * 2
    cache = bench.settings.cache_dir
    left = {
        "halves": [cache / f"datasets/abc.{half}.part/images/1.png", cache / f"pictures/ab/cd.{half}"],
        "half stored": [home / "storage/partial" / half],
        "messages": [home / "broker/cpu/1.tmp", home / "broker/cpu/1.taken"],
    }
    whole = [cache / "datasets/abc/annotations.json", cache / "pictures/ab/cd", home / "broker/cpu/1.msg"]
    upload, running = home / "storage/uploads/up_1/0", home / "storage/uploads/up_2/0"
    for path in (*(path for paths in left.values() for path in paths), *whole, upload):
        aged(path, 2 * DAY_S)
    aged(running, 60)
    os.utime(cache / f"datasets/abc.{half}.part", (time.time() - 2 * DAY_S,) * 2)
    said = tidy(bench.database, bench.settings, store, dry_run=True)
    assert all(path.exists() for paths in left.values() for path in paths)
    assert upload.exists()
    done = tidy(bench.database, bench.settings, store)
    assert said == done
    assert {kind: done[kind].count for kind in left} == {kind: len(paths) for kind, paths in left.items()}
    assert (done["upload files"].count, done["upload files"].size_bytes) == (1, 1)
    assert not any(path.exists() for paths in left.values() for path in paths)
    assert not upload.exists()
    assert running.exists()
    assert all(path.exists() for path in whole)
    assert not any(leftovers(bench.settings, store).values())


def test_a_dry_run_says_what_a_round_does_and_changes_nothing(bench, store):
    old, orphan = keep(bench, store, b"old state"), keep(bench, store, b"orphan")
    id = verification(bench, old)
    said = tidy(bench.database, bench.settings, store, dry_run=True)
    assert (said["training states"].count, said["stored files"].count, said["stored files"].size_bytes) == (
        1,
        2,
        15,
    )
    with bench.database.reading() as session:
        assert session.get(Verification, id).state_sha256 == old
    assert sorted(store) == sorted([old, orphan])
    assert tidy(bench.database, bench.settings, store) == said
    assert sorted(store) == []
    assert not any(one.count for one in tidy(bench.database, bench.settings, store).values())


def test_expired_rows_go(bench):
    with bench.database.unit_of_work() as session:
        now = database_now(session)
        workspace_id = session.get(Job, bench.job_id).workspace_id
        for id, expires_s in (("up_old", -1), ("up_new", 60)):
            session.add(
                Upload(
                    id=id,
                    workspace_id=workspace_id,
                    length_bytes=1,
                    created_at=now,
                    expires_at=now + timedelta(seconds=expires_s),
                )
            )
        for key, age_s in (("old", DAY_S + 60), ("new", 60)):
            session.add(
                Idempotency(
                    workspace_id=workspace_id,
                    key=key,
                    fingerprint="f",
                    status=200,
                    body={},
                    created_at=now - timedelta(seconds=age_s),
                )
            )
        session.add(
            WorkerRecord(
                name="gone:1", queues=[], details={}, started_at=now, seen_at=now - timedelta(days=2)
            )
        )
        seen(session, Declaration("here:2", ["cpu"], device="cpu", concurrency=1))
    with bench.database.unit_of_work() as session:
        gone, uploads = forget_expired(session, bench.settings)
    assert uploads == ["up_old"]
    assert {kind: one.count for kind, one in gone.items()} == {
        "idempotency keys": 1,
        "workers": 1,
        "uploads": 1,
    }
    with bench.database.reading() as session:
        assert session.scalars(select(Upload.id)).all() == ["up_new"]
        assert session.scalars(select(Idempotency.key)).all() == ["new"]
        assert session.scalars(select(WorkerRecord.name)).all() == ["here:2"]


def test_history_is_forgotten_progress_first(bench):
    with bench.database.unit_of_work() as session:
        job = session.get(Job, bench.job_id)
        now = database_now(session)
        for kind, age in (("progress", 2 * 3600), ("log", 2 * 3600), ("log", 31 * DAY_S), ("progress", 60)):
            events.append(session, job, kind, {"age": age}, now=now - timedelta(seconds=age))
    with bench.database.unit_of_work() as session:
        forget_history(session, bench.settings)
    with bench.database.reading() as session:
        kept = session.scalars(select(Event).where(Event.kind != "state").order_by(Event.seq)).all()
    assert [(event.kind, event.data["age"]) for event in kept] == [("log", 7200), ("progress", 60)]


def test_copies_of_remote_files_go_a_day_after_their_last_use(bench, store):
    folder = bench.settings.cache_dir / "blobs" / "ab"
    folder.mkdir(parents=True)
    for name, age_s in (("used", 60), ("unused", 2 * DAY_S)):
        (folder / name).write_bytes(b"copy")
        os.utime(folder / name, (time.time() - age_s,) * 2)
    tidy(bench.database, bench.settings, store)
    assert [path.name for path in folder.iterdir()] == ["used"]


def test_features_that_were_used_longest_ago_are_forgotten_and_their_files_go(bench, store):
    with bench.database.unit_of_work() as session:
        now = database_now(session)
    files = {name: keep(bench, store, name.encode()) for name in ("old", "younger", "youngest")}
    with bench.database.unit_of_work() as session:
        for age, (name, sha256) in enumerate(reversed(files.items())):
            session.add(
                FeatureFile(key=name, sha256=sha256, size_bytes=10, used_at=now - timedelta(hours=age))
            )
    assert remove_orphaned_blobs(bench.database, store) == []
    with bench.database.unit_of_work() as session:
        forget_features(session, max_bytes=25)
    with bench.database.reading() as session:
        assert set(session.scalars(select(FeatureFile.key))) == {"younger", "youngest"}
    assert remove_orphaned_blobs(bench.database, store) == [(files["old"], 3)]
    with bench.database.unit_of_work() as session:
        forget_features(session, max_bytes=0)
    with bench.database.reading() as session:
        assert session.scalars(select(FeatureFile.key)).all() == []


def test_a_round_of_all_of_it_on_nothing_at_all(bench, store):
    tidy(bench.database, bench.settings, store)


def test_a_worker_is_deaf_only_if_idle_while_a_job_was_announced_often(bench):
    def ask(name="me", queues=("cpu",)):
        with bench.database.reading() as session:
            return unheard(session, name, list(queues))

    assert not ask()
    with bench.database.unit_of_work() as session:
        session.query(Outbox).update({"rings": 3})
    assert ask()
    assert not ask(queues=["gpu"])
    other = bench.add()
    with bench.database.unit_of_work() as session:
        leases.claim(session, other, "me", lease_s=60)
    assert not ask()
    assert ask("another")


def test_a_sweeper_signs_in_puts_back_and_signs_out(bench, store):
    bench.settings.sweep_s = 0.05
    woken = []
    bench.claim(lease_s=-1.0)
    sweeper = Sweeper(bench.database, bench.settings, store, here(), lambda: woken.append(1))
    sweeper.start()
    give_up = time.monotonic() + 30
    while not woken:
        assert time.monotonic() < give_up
        time.sleep(0.01)
    assert bench.job().state == "queued"
    with bench.database.reading() as session:
        assert (
            session.get(WorkerRecord, "host:7") is None
            or session.get(WorkerRecord, "host:7").details["pid"] == 7
        )
    sweeper.stop()
    with bench.database.reading() as session:
        assert session.scalars(select(WorkerRecord)).all() == []


def _record(bench, name: str) -> WorkerRecord | None:
    with bench.database.reading() as session:
        return session.get(WorkerRecord, name)


def test_a_worker_that_stays_deaf_ends(bench, store, monkeypatch):
    ended = threading.Event()
    monkeypatch.setattr("worker.sweeper.SHORTEST_SILENCE_S", 0.3)
    monkeypatch.setattr("worker.sweeper.os.kill", lambda pid, number: ended.set())
    bench.settings.sweep_s, bench.settings.bell_s = 0.05, 0.01
    sweeper = Sweeper(bench.database, bench.settings, store, here(), lambda: None)
    sweeper.start()
    assert not ended.wait(0.6), "nothing was announced"
    with bench.database.unit_of_work() as session:
        session.query(Outbox).update({"rings": 3})
    assert ended.wait(30)
    sweeper.stop()
