"""A service with something of everything in it, as jobs would have written it."""

import io
import json
import math
import zipfile
from typing import Any

import numpy as np
import PIL.Image
from running import Record, Workspace
from sqlalchemy.orm import Session

from app.db.tables import Candidate, Checkpoint, Dataset, Ranking, Score, Verification
from app.queue import events

NAMES = [
    "resnet50 imagenet",
    "resnet50 on aerial pictures",
    "mobilenet v2",
    "swin tiny",
    "squeezenet",
    "efficientnet lite0",
]


def _pixels(seed: int) -> bytes:
    """A soft JPEG of 400 x 300."""
    pixels = np.random.default_rng(seed).integers(40, 200, (6, 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    PIL.Image.fromarray(pixels).resize((400, 300), PIL.Image.Resampling.BICUBIC).save(out, "JPEG")
    return out.getvalue()


def picture(space: Workspace, session: Session, seed: int) -> str:
    return space.keep(session, _pixels(seed))


def dataset(space: Workspace, name: str = "wheat heads") -> str:
    id = space.dataset(name=name)
    counts = [0, 3, 40, 310, 620, 280, 90, 14, 0, 0, 0, 0]
    with space.service.database.unit_of_work() as session:
        row = session.get(Dataset, id)
        row.summary = {
            "images": 340,
            "annotations": 1357,
            "crowd": 0,
            "ignored": 12,
            "images_without_boxes": 7,
            "categories": [
                {"id": n, "name": name, "annotations": 900 // n, "images": 300 // n}
                for n, name in enumerate(["head", "stem", "leaf with rust", "weed"], 1)
            ],
            "splits": {
                "train": {"images": 272, "annotations": 1080},
                "val": {"images": 68, "annotations": 277},
            },
            "splits_from": "drawn",
            "objects": {
                "by_area": {"small": 353, "medium": 900, "large": 104},
                "side": {"edges": [0, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 1024], "counts": counts},
                "per_image": {"min": 0, "median": 4.0, "max": 19},
            },
            "image_sizes": {
                "longest_side": {"edges": [0, 128, 256, 384, 512, 640], "counts": [0, 0, 100, 200, 40, 0]},
                "width": {"min": 300, "median": 500, "max": 640},
                "height": {"min": 300, "median": 400, "max": 480},
            },
            "notes": ["splits were drawn with seed 0"],
        }
        fault = {"severity": "error", "action": "dropped", "reason": "the box has no area"}
        row.report = {
            "counts": {"box_clipped": 11, "degenerate_box": 3},
            "faults": [
                fault | {"code": "degenerate_box", "file": f"labels/{n}.xml", "annotation": f"object {n}"}
                for n in range(3)
            ],
        }
        row.previews = [{"sha256": picture(space, session, n), "file_name": f"{n}.jpg"} for n in range(4)]
    return id


def checkpoint(space: Workspace, name: str) -> str:
    id = space.checkpoint(name=name, parameters=23_500_000, licence="Apache-2.0")
    with space.service.database.unit_of_work() as session:
        row = session.get(Checkpoint, id)
        row.manifest = {
            "backbone": "torchvision/resnet50",
            "num_classes": 4,
            "class_names": ["head", "stem", "leaf with rust", "weed"],
            "input": {
                "min_size": 800,
                "max_size": 1333,
                "mean": [0.485, 0.456, 0.406],
                "channel_order": "rgb",
            },
            "layers": [
                {"name": f"backbone.c{n}", "kind": "map", "stride": 2**n, "channels": 8, "trained": True}
                for n in (2, 3, 4, 5)
            ],
            "published": {"coco_ap": 37.0},
            "notes": ["the input is ImageNet's: the file does not say"],
            "warnings": ["3 tensors of the file have no place"],
            "dropped_keys": ["fc.weight", "fc.bias", "ema.count"],
        }
    return id


def ranking(space: Workspace, dataset_id: str, names: list[str], *, fails: int = 0) -> Record:
    """A ranking that is done: scores with intervals, the last `fails` candidates left out with their error."""
    ids = [checkpoint(space, name) for name in names]
    body = {"dataset_id": dataset_id, "checkpoint_ids": ids}
    made = space.http.post("/v1/rankings", json=body).raise_for_status().json()
    order = []
    for n, id in enumerate(ids):
        if n >= len(ids) - fails:
            space.fail(
                space.job_of(made, id), "tensor backbone.conv1.weight has 4 channels, and pictures have 3"
            )
            continue
        value = 0.61 - 0.035 * n
        space.finish(
            space.job_of(made, id),
            lambda session, id=id, n=n, value=value: _score(session, made, id, n, value),
        )
        order.append((id, value))
    space.rank(made, order, ids[len(ids) - fails :] if fails else ())
    with space.service.database.unit_of_work() as session:
        row = session.get(Ranking, made["id"])
        result = dict(row.result)
        for n, placed in enumerate(result["order"]):
            placed["interval"] = [placed["value"] - 0.03, placed["value"] + 0.03]
            placed["near"] = [
                other for other, _ in order[max(0, n - 1) : n + 2] if other != placed["checkpoint_id"]
            ]
        result["summary"] = "candidates 1 and 2 cannot be told apart"
        row.result = result
    return space.http.get(f"/v1/rankings/{made['id']}").json()


def _score(session: Session, made: Record, id: str, n: int, value: float) -> None:
    details: Record = {"notes": [], "objects": 1080, "interval": [value - 0.03, value + 0.03], "z": 443.0}
    details["null"] = {"mean": 0.1, "std": 0.001, "permutations": 20}
    for metric in ("logme", "tlogme", "h_score"):
        for layer in ("backbone.c3", "backbone.c4"):
            session.add(
                Score(
                    ranking_id=made["id"],
                    checkpoint_id=id,
                    metric=metric,
                    layer=layer,
                    level="local",
                    value=value if metric != "h_score" else None,
                    undefined="one class alone" if metric == "h_score" else None,
                    seconds=0.4,
                    details=details if metric != "h_score" else {"notes": []},
                    replicates=b"01234567" * 20,
                )
            )
    candidate = session.get(Candidate, (made["id"], id))
    candidate.cost = {
        "parameters": 23_500_000,
        "ms_per_image": 12.0 + 37 * abs(math.sin(3 * n)),
        "peak_memory_bytes": (180 + 20 * n) << 20,
        "device": "cpu",
    }
    candidate.timings = {"read": 8.2, "score": 1.1, "total": 9.3}


def _found(seed: int, images: int) -> Record:
    """A document of predictions on pictures of 400 x 300: some of four objects found, some boxes false."""
    draw = np.random.default_rng(seed)
    out = []
    for id in range(1, images + 1):
        corners = [[40 + 90 * n, 60 + 20 * (id % 5), 100 + 90 * n, 150 + 20 * (id % 5)] for n in range(4)]
        objects = [{"box": box, "category": n % 3, "ignored": n == 3} for n, box in enumerate(corners)]
        found = []
        for n, box in enumerate(corners):
            moved = (np.array(box) + draw.normal(0, 4, 4)).round(1).tolist()
            outcome = "ignored" if n == 3 else "hit"
            hits = n if outcome == "hit" else None
            found.append(
                {
                    "box": moved,
                    "category": n % 3,
                    "score": round(draw.uniform(0.2, 0.95), 3),
                    "outcome": outcome,
                    "object": hits,
                }
            )
        for _ in range(3):
            x, y = draw.uniform(0, 300), draw.uniform(0, 220)
            found.append(
                {
                    "box": [round(x, 1), round(y, 1), round(x + 60, 1), round(y + 50, 1)],
                    "category": 1,
                    "score": round(draw.uniform(0.06, 0.7), 3),
                    "outcome": "false",
                    "object": None,
                }
            )
        kept = [one for one in found if one["score"] >= 0.4]
        hits = sum(one["outcome"] == "hit" for one in kept)
        false = sum(one["outcome"] == "false" for one in kept)
        out.append(
            {
                "image_id": id,
                "file_name": f"{id:06d}.jpg",
                "width": 400,
                "height": 300,
                "split": "val",
                "f1": 2 * hits / max(1, hits + false + 3),
                "hits": hits,
                "false": false,
                "missed": 3 - hits,
                "objects": objects,
                "detections": sorted(found, key=lambda one: -one["score"]),
            }
        )
    out.sort(key=lambda image: image["f1"])
    return {"threshold": 0.4, "categories": ["head", "stem", "weed"], "images": out}


def archive(images: int) -> bytes:
    """A canonical archive with its pictures alone."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for id in range(1, images + 1):
            made.writestr(f"images/{id:06d}.jpg", _pixels(id))
    return out.getvalue()


def verification(
    space: Workspace, dataset_id: str, *, done: bool, name: str = "to be verified", level: float = 0.412
) -> Record:
    """One with curves; done, or at work."""
    body = {"dataset_id": dataset_id, "checkpoint_id": checkpoint(space, name), "recipe": "quick"}
    made = space.http.post("/v1/verifications", json=body).raise_for_status().json()
    points: list[dict[str, Any]] = [{"iteration": 10 * n, "loss": 3 / (1 + n / 4)} for n in range(1, 31)]
    for n in (9, 19, 29):
        points[n]["val"] = {"map": 0.1 + n / 100}

    def write(session: Session) -> None:
        row = session.get(Verification, made["id"])
        box = {"map": level, "ap50": 0.67, "ap75": 0.43, "small": 0.2, "medium": 0.44, "large": None}
        precision = {"0.50": [1.0, 0.9, 0.7, 0.2, 0.0], "0.75": [0.9, 0.6, 0.3, 0.0, 0.0]}
        curves = {"recall": [0.0, 0.25, 0.5, 0.75, 1.0], "precision": precision}
        classes = [{"category": "head", "ap": 0.5}, {"category": "weed", "ap": None}]
        found = {"box": box, "mask": None, "per_class": classes, "images": 68, "curves": curves}
        row.result = {
            "val": found,
            "test": None,
            "best": {"iteration": 300},
            "iterations": 300,
            "finished": "completed",
            "warnings": [],
        }
        row.curves, row.seconds = points, 95.0
        file = {"sha256": picture(space, session, 9), "file_name": "worst-1.jpg", "media_type": "image/jpeg"}
        found = {
            "sha256": space.keep(session, json.dumps(_found(round(1000 * level), 30)).encode()),
            "file_name": "predictions.json",
            "media_type": "application/json",
            "title": "what was found",
            "about": {},
        }
        row.pictures = [file | {"title": "worst: 3 of 9 found", "about": {"image_id": 1}}, found]
        session.get(Dataset, dataset_id).archive_sha256 = space.keep(session, archive(30))
        row.plots = []

    if done:
        space.finish(made["job_id"], write)
    else:
        space.claim(made["job_id"])
        with space.service.database.unit_of_work() as session:
            for point in points[:12]:
                events.append(session, session.get(Verification, made["id"]), "curve", point)
    return made
