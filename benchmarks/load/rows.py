"""A database as it is after a year: 10^5 jobs, and the rows that they were for. Made by inserts, in half a minute."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import insert, text

from app.db.engine import Database
from app.db.tables import Candidate, Checkpoint, Dataset, Job, Ranking, Score, Subset, Verification
from app.ids import new_id
from app.services import workspaces

CANDIDATES = 20
LAYERS = ("backbone.c3", "backbone.c4", "backbone.c5", "neck.roi")
METRICS = ("logme", "tlogme", "h_score", "knn", "parc")
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
STATES = ("succeeded",) * 16 + ("failed", "cancelled", "queued", "running")


@dataclass(frozen=True)
class Filled:
    """Ids of rows that are asked for: a ranking with 20 candidates that has ended, and others by their kind."""

    ranking: str
    dataset: str
    checkpoint: str
    verification: str
    job: str


def fill(database: Database, jobs: int) -> Filled:
    """Rows of the default workspace: a quarter of the jobs are parts of rankings, the others verifications."""
    with database.unit_of_work() as session:
        workspaces.ensure_default(session)
    datasets = [_dataset(n) for n in range(100)]
    checkpoints = [_checkpoint(n) for n in range(2000)]
    _insert(database, {Dataset: datasets, Checkpoint: checkpoints})
    subsets = [_subset(row["id"]) for row in datasets]
    _insert(database, {Subset: subsets})
    wanted = jobs // (4 * (CANDIDATES + 1))
    last: dict[str, Any] = {}
    for number in range(wanted):
        first = number * CANDIDATES % len(checkpoints)
        chosen = checkpoints[first : first + CANDIDATES]
        last = _ranking(number, datasets[number % len(datasets)], chosen)
        # scores are most of the rows: of the older rankings two for each candidate, of the last as many as asked for
        scores = [
            _score(last[Ranking][0]["id"], row["id"], metric, layer)
            for row in chosen
            for metric in METRICS[: None if number == wanted - 1 else 2]
            for layer in LAYERS[: None if number == wanted - 1 else 1]
        ]
        _insert(database, {**last, Score: scores})
    verifications: list[dict[str, Any]] = []
    own: list[dict[str, Any]] = []
    for number in range(jobs - wanted * (CANDIDATES + 1)):
        row, job = _verification(number, subsets[number % 100], checkpoints[number % len(checkpoints)])
        verifications.append(row)
        own.append(job)
    _insert(database, {Job: own, Verification: verifications})
    with database.engine.connect() as connection:
        connection.execute(text("ANALYZE"))
        connection.commit()
    return Filled(
        last[Ranking][0]["id"],
        datasets[0]["id"],
        checkpoints[0]["id"],
        verifications[-1]["id"],
        own[-1]["id"],
    )


def _insert(database: Database, rows: dict[Any, list[dict[str, Any]]]) -> None:
    with database.unit_of_work() as session:
        for table, its in rows.items():
            session.execute(insert(table), its)


def _common(prefix: str, number: int) -> dict[str, Any]:
    when = BEGAN + timedelta(minutes=number)
    return {"id": new_id(prefix), "workspace_id": workspaces.DEFAULT_WORKSPACE, "created_at": when}


def _dataset(number: int) -> dict[str, Any]:
    row = _common("ds", number)
    return row | {
        "name": f"dataset {number}",
        "state": "ready",
        "request": {},
        "supervision": "boxes",
        "summary": {"images": 400},
        "updated_at": row["created_at"],
    }


def _checkpoint(number: int) -> dict[str, Any]:
    row = _common("ckpt", number)
    return row | {
        "name": f"checkpoint {number}",
        "state": "ready",
        "request": {},
        "kind": "detector",
        "architecture": "torchvision/retinanet_resnet50_fpn",
        "parameters": 1_000_000 + number,
        "licence": "BSD-3-Clause",
        "manifest": {"layers": [{"name": layer, "dimensions": 256} for layer in LAYERS]},
        "updated_at": row["created_at"],
    }


def _subset(dataset_id: str) -> dict[str, Any]:
    row = _common("sub", 0)
    return row | {"dataset_id": dataset_id, "key": "all-0", "kind": "all", "seed": 0, "split": "train"}


def _job(kind: str, queue: str, row: dict[str, Any], number: int) -> dict[str, Any]:
    return _common("job", number) | {
        "kind": kind,
        "queue": queue,
        "resource_id": row["id"],
        "parent_id": None,
        "payload": {},
        "state": STATES[number % len(STATES)],
        "max_attempts": 3,
        "started_at": BEGAN,
        "finished_at": BEGAN,
    }


def _ranking(number: int, dataset: dict[str, Any], chosen: list[dict[str, Any]]) -> dict[Any, list[Any]]:
    row = _common("rk", number)
    job = _job("rank", "cpu", row, 0)
    parts = [_job("score", "gpu", row, 0) | {"parent_id": job["id"]} for _ in chosen]
    ids = [each["id"] for each in chosen]
    placed = [
        {
            "checkpoint_id": id,
            "name": f"checkpoint {place}",
            "rank": place,
            "value": 1.0 - place / 40,
            "z": 12.5,
            "interval": [0.9 - place / 40, 1.1 - place / 40],
            "near": ids[place : place + 2],
            "static_ranks": {"parameters": place},
            "group": place,
            "chance_of_best": 1.0 / place,
        }
        for place, id in enumerate(ids, 1)
    ]
    row |= {
        "state": "succeeded",
        "request": {
            "name": f"ranking {number}",
            "checkpoint_ids": ids,
            "layers": list(LAYERS),
            "metrics": list(METRICS),
        },
        "job_id": job["id"],
        "dataset_id": dataset["id"],
        "started_at": BEGAN,
        "finished_at": BEGAN,
        "result": {
            "ranked_by": {
                "metric": "tlogme",
                "layer": "backbone.c4",
                "level": "local",
                "quantity": "gain",
                "chosen_by": "default rule",
            },
            "order": placed,
            "summary": "candidates 2 to 4 cannot be told apart",
            "groups": [[id] for id in ids],
            "ties": [],
            "left_out": [],
            "warnings": [],
            "baselines": {"parameters": dict.fromkeys(ids, 1000000)},
            "verified": [],
        },
    }
    candidates = [
        {
            "ranking_id": row["id"],
            "checkpoint_id": id,
            "position": place,
            "state": "succeeded",
            "rank": place,
            "job_id": part["id"],
            "cost": {
                "parameters": 1_000_000,
                "peak_memory_bytes": 1 << 28,
                "ms_per_image": 31.5,
                "device": "cpu",
            },
            "timings": {"reading": 20.1, "scoring": 3.2},
            "warnings": [],
        }
        for place, (id, part) in enumerate(zip(ids, parts, strict=True), 1)
    ]
    return {Job: [job, *parts], Ranking: [row], Candidate: candidates}


def _score(ranking_id: str, checkpoint_id: str, metric: str, layer: str) -> dict[str, Any]:
    return {
        "ranking_id": ranking_id,
        "checkpoint_id": checkpoint_id,
        "metric": metric,
        "layer": layer,
        "level": "local",
        "value": 0.44,
        "seconds": 0.01,
        "details": {
            "notes": [],
            "objects": 1423,
            "dimensions": 96,
            "object_pixels": 61.5,
            "null": {"mean": 0.12, "std": 0.004, "permutations": 20},
            "z": 80.0,
            "interval": [0.41, 0.47],
            "zero_point": 0.21,
            "gain": 0.23,
            "gain_interval": [0.2, 0.26],
        },
        "replicates": b"01234567" * 20,
        "gain_replicates": b"01234567" * 20,
    }


def _verification(
    number: int, subset: dict[str, Any], checkpoint: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    row = _common("vf", number)
    job = _job("verify", "gpu", row, number)
    request = {"name": None, "seed": 0, "recipe": "quick"}
    row |= {
        "state": job["state"],
        "request": request,
        "job_id": job["id"],
        "dataset_id": subset["dataset_id"],
        "checkpoint_id": checkpoint["id"],
        "subset_id": subset["id"],
        "terms": uuid.uuid4().hex * 2,
        "map": 0.31,
        "ap50": 0.55,
        "split": "test",
    }
    return row, job
