"""Searches, studies, pretrainings and pseudo-labellings with results, as their jobs would have written them."""

import filled
from running import Record, Workspace
from sqlalchemy.orm import Session

from app.db.tables import Dataset, Pretraining, PseudoLabelling, Search, Study, Verification


def search(space: Workspace, dataset_id: str, checkpoint_ids: list[str], verification_ids: list[str]) -> str:
    """One whose first round is over and whose winner is known; the id."""
    body = {"dataset_id": dataset_id, "checkpoint_ids": checkpoint_ids, "budget_minutes": 30}
    made = space.http.post("/v1/searches", json=body).raise_for_status().json()
    maps = [0.31, 0.28, 0.19]
    seconds = [140.0, 160.0, 90.0]

    def part(n: int, stop: int) -> Record:
        return {
            "checkpoint_id": checkpoint_ids[n],
            "verification_id": verification_ids[n],
            "job_id": None,
            "begin": 0,
            "stop": stop,
            "predicted_s": 150.0,
            "seconds": seconds[n] * stop / 100,
            "state": "succeeded",
            "iterations": stop,
            "map": maps[n] * stop / 200 + 0.1,
            "ap50": maps[n] * 1.6,
            "error": None,
        }

    with space.service.database.unit_of_work() as session:
        row = session.get(Search, made["id"])
        for id in verification_ids:
            session.get(Verification, id).search_id = row.id
        terms = {"kind": "round", "left_s": 1200.0, "predicted_s": 450.0}
        row.rounds = [
            terms | {"rung": 0, "stop": 100, "seconds": 390.0, "parts": [part(n, 100) for n in range(3)]},
            terms | {"rung": 1, "stop": 200, "seconds": 600.0, "parts": [part(n, 200) for n in range(2)]},
        ]
        best = {"checkpoint_id": checkpoint_ids[0], "verification_id": verification_ids[0]}
        row.result = {
            "names": dict(zip(checkpoint_ids, filled.NAMES, strict=False)),
            "spent": {
                "budget_s": 1800.0,
                "ranking_s": 64.0,
                "training_s": 990.0,
                "total_s": 1054.0,
                "left_s": 746.0,
            },
            "best": best | {"iterations": 200, "whole": True, "rank": 1},
            "brute_force": None,
            "left_out": [],
            "warnings": [],
        }
    return made["id"]


def study(space: Workspace, dataset_id: str, checkpoint_ids: list[str]) -> str:
    """One that says which scores agree with mAP; the id."""
    body = {"dataset_ids": [dataset_id], "checkpoint_ids": checkpoint_ids, "recipe": "quick"}
    made = space.http.post("/v1/studies", json=body).raise_for_status().json()
    rows = [
        {
            "dataset": "wheat heads",
            "kind": kind,
            "metric": metric,
            "layer": layer,
            "level": "local",
            "measure": "weighted_tau",
            "value": value,
            "low": value - 0.3,
            "high": min(1.0, value + 0.3),
            "n": 12,
            "undefined": None,
            "excluded": {},
        }
        for kind, metric, layer, value in (
            ("metric", "tlogme", "backbone.c4", 0.71),
            ("metric", "logme", "backbone.c4", 0.64),
            ("baseline", "parameters", "", 0.35),
            ("metric", "h_score", "backbone.c3", 0.12),
        )
    ]
    with space.service.database.unit_of_work() as session:
        session.get(Study, made["id"]).result = {
            "correlations": {"measures": ["weighted_tau"], "rows": rows, "ahead": []},
            "verdict": ["tlogme at backbone.c4 orders the candidates best"],
            "names": dict(zip(checkpoint_ids, filled.NAMES, strict=False)) | {dataset_id: "wheat heads"},
            "left_out": [],
            "warnings": ["12 candidates on one dataset: the limits are wide"],
            "spent": {"scoring_s": 300.0, "training_s": 5400.0, "reused": 0, "reused_s": 0.0},
        }
    return made["id"]


def pretraining(space: Workspace, dataset_id: str, checkpoint_id: str) -> str:
    """One with its curve and its comparison; the id."""
    body = {
        "dataset_id": dataset_id,
        "architecture": "deformable_detr",
        "encoder_checkpoint": checkpoint_id,
        "iterations": 60,
    }
    made = space.http.post("/v1/pretrainings", json=body).raise_for_status().json()

    def arm(name: str, value: float) -> Record:
        return {
            "label_fraction": 0.05,
            "arm": "pretrained" if name == "pretrained" else "start",
            "checkpoint_id": checkpoint_id,
            "name": name,
            "map": value,
            "ap50": value * 1.7,
            "by_seed": {},
        }

    with space.service.database.unit_of_work() as session:
        row = session.get(Pretraining, made["id"])
        row.curves = [{"iteration": 10 * n, "loss": 4 / n} for n in range(1, 7)]
        row.result = {
            "comparison": {
                "dataset_id": dataset_id,
                "measured_on": ["val"],
                "arms": [arm("pretrained", 0.21), arm("what it started from", 0.18)],
                "gains": [],
                "left_out": [],
                "verdict": ["with 5 % of the labels it gained 3.0 mAP (1.1 to 4.9)"],
            }
        }
    return made["id"]


def pseudo_labelling(space: Workspace, dataset_id: str, checkpoint_id: str) -> str:
    """One whose boxes were measured; the id."""
    with space.service.database.unit_of_work() as session:
        row = session.get(Dataset, dataset_id)
        row.supervision = "none"
    body = {"dataset_id": dataset_id, "teacher": "detector", "detector_checkpoint": checkpoint_id}
    made = space.http.post("/v1/pseudo-labellings", json=body).raise_for_status().json()
    shares = {"precision": 0.84, "recall": 0.61, "ap50": 0.58, "corloc": 0.9}
    bins = [
        {"low": n / 10, "high": (n + 1) / 10, "boxes": 40, "score": n / 10 + 0.05, "right": min(1, n / 9)}
        for n in range(3, 10)
    ]

    def write(session: Session) -> None:
        row = session.get(PseudoLabelling, made["id"])
        row.result = {
            "teacher": {"confidence": 0.44},
            "looked_at": 340,
            "pictures": 322,
            "boxes": 1204,
            "quality": shares
            | {"f1": 0.71, "map": 0.33, "pictures": 68, "objects": 277, "boxes": 240}
            | {"measured_on": "validation pictures of wheat heads"}
            | {"per_class": [shares | {"category": "head", "objects": 200, "boxes": 180}]}
            | {"calibration": {"error": 0.07, "bins": bins, "fitted_on": None}},
            "warnings": ["18 pictures got no box"],
        }
        file = {"sha256": filled.picture(space, session, 5), "media_type": "image/jpeg", "about": {}}
        row.pictures = [file | {"file_name": "said-1.jpg", "title": "picture 1"}]
        row.made_dataset_id = taught
        row.review = _review()
        session.get(Dataset, taught).archive_sha256 = space.keep(session, filled.archive(6))

    taught = filled.dataset(space, "wheat, pseudo boxes")
    for job in reversed(space.http.get("/v1/jobs", params={"resource_id": made["id"]}).json()["items"]):
        if job["kind"] == "look":
            space.finish(job["id"])
    space.finish(made["job_id"], write)
    return made["id"]


def _review() -> Record:
    """Six boxes to review and two pictures to count in."""
    items = [
        {
            "number": n,
            "stratum": (n - 1) // 2,
            "image_id": n,
            "annotation_id": n,
            "category": "head",
            "bbox": [100.0 + 5 * n, 80.0, 90.0, 70.0],
            "score": 0.3 + 0.1 * n,
        }
        for n in range(1, 7)
    ]
    found = {"annotation_id": 10, "image_id": 1, "category": "stem", "score": 0.7}
    boxes = [found | {"bbox": [20.0, 30.0, 50.0, 60.0]}]
    return {
        "items": items,
        "pictures": [{"image_id": id, "boxes": boxes if id == 1 else []} for id in (1, 2)],
        "strata": [{"boxes": 400, "low": 0.3 + n / 5, "high": 0.5 + n / 5} for n in range(3)],
        "images": [
            {"id": id, "file_name": f"images/{id:06d}.jpg", "width": 400, "height": 300} for id in range(1, 7)
        ],
        "all_pictures": 340,
        "categories": ["head", "stem"],
    }
