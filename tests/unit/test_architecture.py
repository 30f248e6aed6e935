"""The examples of docs/architecture.md do what the page says they do."""

import ast
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select
from sqlalchemy.orm import Mapped

from app.db.base import Base
from app.db.engine import Database, database_now
from app.db.tables import Job, Verification
from app.db.work import Work
from app.errors import Conflict
from app.ids import new_id
from app.queue import leases, tree, verifications
from app.queue.kinds import KINDS, Children, Kind
from app.queue.states import JobKind
from app.services import works
from models_store.archs.base import BuildSpec
from models_store.build import layers_of
from tests.queue_records import add_ranking, add_workspace
from worker.data.faults import Report
from worker.data.tree import walk
from worker.metrics import FeatureSet, registry

PAGE = Path(__file__).parents[2] / "docs" / "architecture.md"
LONGEST = 50


def example(title: str) -> str:
    section = PAGE.read_text(encoding="utf-8").split(f"### {title}\n")[1]
    code = re.search(r"```python\n(.*?)```", section, re.S).group(1)
    assert len(code.splitlines()) < LONGEST
    return code


def test_every_room_it_names_is_there():
    text = PAGE.read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:app|worker|models_store|outbound|tests)/[a-z_/]+(?:\.py)?)`", text))
    assert len(named) > 15
    for path in named:
        assert (PAGE.parents[1] / path).exists(), path


# where a place is imported when it is first used, as the page says
LATER = {
    "app/tracing.py",
    "app/cli/later.py",
    "worker/tasks.py",
    "models_store/__init__.py",
    "models_store/child.py",
    "models_store/fetch.py",
    "models_store/nursery.py",
}


def test_our_own_modules_are_imported_at_the_top_of_a_file_or_by_a_table():
    root = PAGE.parents[1]
    late = set()
    for path in [
        file
        for room in ("detrank", "app", "worker", "models_store", "outbound")
        for file in (root / room).rglob("*.py")
    ]:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = [
            node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        for node in [node for function in functions for node in ast.walk(function)]:
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not {name.partition(".")[0] for name in names} & {
                "detrank",
                "app",
                "worker",
                "models_store",
            }, path
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                constant = isinstance(node.args[0], ast.Constant) and node.args[0].value
                if not constant or constant.startswith(("app", "worker", "models_store")):
                    late.add(path.relative_to(root).as_posix())
    assert late == LATER


def test_a_metric(monkeypatch):
    made = {"np": np}
    exec(example("a metric"), made)
    monkeypatch.setattr(registry, "METRICS", registry.METRICS | {"nearest_mean": made["METRIC"]})
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 20)
    told = FeatureSet(features=rng.normal(size=(60, 4)) + 9.0 * labels[:, None], labels=labels)
    found = registry.score(told, ["nearest_mean"])["nearest_mean"]
    assert (found.value, found.undefined) == (1.0, None)
    alone = registry.score(FeatureSet(told.features, np.zeros(60, dtype=np.int64)), ["nearest_mean"])
    assert "one class" in alone["nearest_mean"].undefined


def test_a_format(tmp_path):
    reader = SimpleNamespace()
    exec(example("a format"), vars(reader))
    for name in ("a", "b"):
        Image.new("RGB", (20, 10)).save(tmp_path / f"{name}.png")
    (tmp_path / "a.boxes").write_text("cat 1 2 3 4\ndog 1 2 x 4\n")
    tree_of, report = walk(tmp_path), Report()
    assert reader.recognise(tree_of) == "1 .boxes files"
    raw = reader.read(tree_of, report)
    assert [(box.category, box.corners) for image in raw.images for box in image.boxes] == [
        ("cat", (1, 2, 3, 4))
    ]
    assert report.to_json()["counts"] == {"invalid_annotation": 1}


def test_an_architecture():
    made: dict = {}
    exec(example("an architecture"), made)
    architecture = made["ARCHITECTURE"]
    module = architecture.build(BuildSpec(3, architecture.input)).eval()
    names = [layer.name for layer in layers_of(architecture.face_of(module), ())]
    assert {"backbone.c4", "neck.roi"} <= set(names)
    assert module.transform.min_size == (320,)


@pytest.fixture
def toy(monkeypatch):
    """The kind of work of the page, as if it had its value in JobKind."""
    kind = str.__new__(JobKind, "tournament")
    kind._name_, kind._value_ = "TOURNAMENT", "tournament"
    monkeypatch.setitem(JobKind._value2member_map_, "tournament", kind)
    made = {
        "Work": Work,
        "Base": Base,
        "Mapped": Mapped,
        "KINDS": KINDS,
        "Kind": Kind,
        "Children": Children,
        "JobKind": JobKind,
        "tree": tree,
        "TOURNAMENT": kind,
        "new_id": new_id,
        "database_now": database_now,
        "verifications": verifications,
        "best_of": best_of,
    }
    exec(example("a kind of work"), made)
    yield SimpleNamespace(**made)
    del KINDS[kind]
    Base.metadata.remove(made["Tournament"].__table__)


def best_of(session, job_id) -> str:
    ended = session.scalars(select(Job).where(Job.parent_id == job_id, Job.state == "succeeded")).all()
    return max((job.payload["checkpoint_id"] for job in ended), default="nobody")


def test_a_kind_of_work(toy, tmp_path):
    """From one entry in kinds.py: sleeping, being asked, cancel, retry, progress, events and removal."""
    database = Database(f"sqlite:///{tmp_path / 'detrank.db'}")
    Base.metadata.create_all(database.engine)

    def end(job_id, how="finish"):
        with database.unit_of_work() as session:
            held = leases.claim(session, job_id, "w", lease_s=60)
        with database.unit_of_work() as session:
            if how == "fail":
                leases.fail(session, held, {"code": "x", "detail": "it broke"})
            else:
                write = toy.run(None, held.job) if held.job.kind is toy.TOURNAMENT else None
                leases.finish(session, held, write)

    def at():
        with database.reading() as session:
            return session.get(toy.Tournament, row_id)

    with database.unit_of_work() as session:
        workspace = add_workspace(session)
        ranking = add_ranking(session, workspace, [{}, {}])
        ids = [each for each in session.scalars(select(Job.payload["checkpoint_id"].as_string())) if each]
        row = toy.create(session, workspace, ranking.dataset_id, ids)
        row_id, own = row.id, row.job_id
        parts = session.scalars(select(Verification.job_id).order_by(Verification.id)).all()
    assert (at().state, at().stage) == ("queued", None)
    with database.unit_of_work() as session:
        assert leases.claim(session, own, "w", lease_s=60) is None, "it sleeps"
    end(parts[0])
    assert (at().state, at().stage) == ("running", "playing")
    with database.unit_of_work() as session:
        works.cancel(session, workspace, toy.Tournament, row_id)
    assert (at().state, at().winner) == ("cancelled", None)
    with database.unit_of_work() as session:
        works.retry(session, workspace, toy.Tournament, row_id)
    end(parts[1], "fail")
    assert (at().state, at().stage) == ("running", "counting")
    end(own)
    assert (at().state, at().winner) == ("succeeded", ids[0])
    with database.reading() as session:
        part = session.scalars(select(Verification.id).where(Verification.job_id == parts[0])).one()
    with database.unit_of_work() as session, pytest.raises(Conflict, match="a part of"):
        works.remove(session, workspace, Verification, part)
    with database.unit_of_work() as session:
        works.remove(session, workspace, toy.Tournament, row_id)
    with database.reading() as session:
        assert not session.scalars(select(Verification)).all()
        assert own not in set(session.scalars(select(Job.id)))
    database.dispose()
