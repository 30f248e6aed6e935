"""Cheap work for kill schedules, sent through the API, and what must be the same of every run of it."""

import io
import json
import time
import uuid
import zipfile
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx
import numpy as np
import PIL.Image
import torch
import torchvision

from tests.deployments import comparable
from tests.small_detr import small_detr

# how many things there are to ask for of each kind; those of one kind and variant must come to the same
VARIANTS = {"dataset": 6, "checkpoint": 3, "ranking": 1, "pretraining": 1, "pseudo_labelling": 1}
# jobs of the works that have children
JOBS_OF = {
    "ranking": ("rank", "score"),
    "pretraining": ("pretrain", "propose", "learn"),
    "pseudo_labelling": ("pseudo_label", "look", "teach"),
}
RANKING: dict[str, Any] = {
    "metrics": ["logme", "h_score"],
    "layers": ["backbone.c4"],
    "max_images": None,
    "image_size": 64,
    "seed": 5,
}
PRETRAINING: dict[str, Any] = {
    "architecture": "deformable_detr",
    "config": small_detr(),
    "proposals": "random",
    "max_proposals": 6,
    "iterations": 4,
    "image_size": 64,
    "batch_size": 4,
    "evaluations": 1,
}
PSEUDO_LABELLING: dict[str, Any] = {
    "teacher": "image_labels",
    "proposals": ["objectness"],
    "layers": ["backbone.c4"],
    "epochs": 2,
    "image_size": 64,
}
# of the last two, what must not depend on who was killed
SAID = {
    "pretraining": ("plan", "recall", "trained_on", "held_out", "iterations", "finished", "warnings"),
    "pseudo_labelling": ("boxes", "labelled", "looked_at", "said", "quality", "warnings"),
}
ENDED = ("ready", "invalid", "succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class Work:
    """One thing asked of the service: works of one kind and variant must come to the same."""

    kind: str  # one of VARIANTS
    variant: int = 0


@cache
def archive(variant: int, images: int = 40) -> bytes:
    """COCO: random pictures of 48 pixels with two boxes each, of two categories."""
    rng = np.random.default_rng(variant)
    packed, annotations = io.BytesIO(), []
    with zipfile.ZipFile(packed, "w") as file:
        for index in range(images):
            content = io.BytesIO()
            coarse = rng.integers(0, 255, (6, 6, 3), dtype=np.uint8)
            PIL.Image.fromarray(coarse).resize((48, 48)).save(content, "png")
            file.writestr(f"set/images/{index}.png", content.getvalue())
            for category in (0, 1):
                x, y, w, h = (int(value) for value in rng.integers((0, 0, 12, 12), (20, 20, 26, 26)))
                annotations.append(
                    {
                        "id": len(annotations),
                        "image_id": index,
                        "category_id": category,
                        "bbox": [x, y, w, h],
                        "area": w * h,
                        "iscrowd": 0,
                    }
                )
        document = {
            "images": [{"id": i, "file_name": f"{i}.png", "width": 48, "height": 48} for i in range(images)],
            "annotations": annotations,
            "categories": [{"id": i, "name": name} for i, name in enumerate("ab")],
        }
        file.writestr("set/annotations.json", json.dumps(document))
    return packed.getvalue()


def _without_seconds(document: Any) -> Any:
    """The document without entries that say how long something took."""
    if isinstance(document, list):
        return [_without_seconds(each) for each in document]
    if not isinstance(document, dict):
        return document
    return {name: _without_seconds(value) for name, value in document.items() if "second" not in name}


@cache
def weights(variant: int) -> bytes:
    torch.manual_seed(variant)
    model = torchvision.models.squeezenet1_1(weights=None).half()
    content = io.BytesIO()
    torch.save(model.state_dict(), content)
    return content.getvalue()


class Service:
    """The API as a client that tries again until it is answered; a key makes sure that nothing is asked twice."""

    def __init__(self, url: str, patience_s: float) -> None:
        self._http = httpx.Client(base_url=url, timeout=30)
        self._patience_s = patience_s
        self.refused: dict[str, int] = {}  # how often each passing answer came

    def ask(self, method: str, path: str, **request: Any) -> Any:
        headers = {"Idempotency-Key": uuid.uuid4().hex} if method == "POST" else {}
        give_up = time.monotonic() + self._patience_s
        while True:
            try:
                answer = self._http.request(method, path, headers=headers, **request)
                if answer.is_success:
                    return answer.json()
                if answer.status_code < 500 and answer.status_code not in (409, 429):
                    raise AssertionError(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
                said = str(answer.status_code)
            except httpx.TransportError as failure:
                said = type(failure).__name__
            self.refused[said] = self.refused.get(said, 0) + 1
            if time.monotonic() > give_up:
                raise AssertionError(f"{method} {path}: {said} for {self._patience_s:g} s")
            time.sleep(0.3)

    def send(self, work: Work, dataset_id: str, checkpoint_ids: list[str]) -> str:
        """Asks for it; the path of what was made. The ids are of what works of several jobs work on."""
        match work.kind:
            case "dataset":
                made = self.ask(
                    "POST", "/v1/datasets", params={"name": "set", "seed": 1}, content=archive(work.variant)
                )
                return f"/v1/datasets/{made['id']}"
            case "checkpoint":
                params = {"name": "body", "architecture": "torchvision/squeezenet1_1"}
                made = self.ask("POST", "/v1/checkpoints", params=params, content=weights(work.variant))
                return f"/v1/checkpoints/{made['id']}"
            case "ranking":
                asked = RANKING | {"checkpoint_ids": checkpoint_ids}
            case "pretraining":
                asked = PRETRAINING | {"encoder_checkpoint": checkpoint_ids[0]}
            case _:
                asked = PSEUDO_LABELLING | {"backbone_checkpoint": checkpoint_ids[0]}
        path = f"/v1/{work.kind.replace('_', '-')}s"
        return f"{path}/{self.ask('POST', path, json=asked | {'dataset_id': dataset_id})['id']}"

    def came_to(self, path: str) -> dict[str, Any]:
        """What must not depend on who was killed meanwhile: all but ids, moments and measured costs."""
        record = self.ask("GET", path)
        if "/rankings/" in path:
            return {"state": record["state"], "error": record["error"], **comparable(record)}
        for kind, names_of_it in SAID.items():
            if f"/{kind.replace('_', '-')}s/" in path:
                found = {name: record[name] for name in ("state", "error", *names_of_it)} | self._made(record)
                return _without_seconds(found)
        names = ["state", "error", "format", "supervision", "digest", "summary", "architecture", "parameters"]
        names += ["weights_sha256", "manifest"]
        found = {name: record[name] for name in names if name in record}
        if "/datasets/" in path:
            found["report"] = self.ask("GET", f"{path}/report")
        return found

    def _made(self, record: dict[str, Any]) -> dict[str, Any]:
        """Of a pretraining the weights that were made."""
        id = record.get("trained_checkpoint_id")
        return {"made": self.ask("GET", f"/v1/checkpoints/{id}")["weights_sha256"]} if id else {}

    def wait(self, paths: list[str]) -> None:
        """Until all of them have ended. Raises AssertionError after the patience."""
        give_up, open_paths = time.monotonic() + self._patience_s, list(paths)
        while open_paths:
            open_paths = [path for path in open_paths if self.ask("GET", path)["state"] not in ENDED]
            if open_paths and time.monotonic() > give_up:
                raise AssertionError(f"not ended after {self._patience_s:g} s: {', '.join(open_paths[:5])}")
            time.sleep(0.5 if open_paths else 0)
