"""Words as the teacher, from the folder that somebody sends to the dataset that it makes: real, tiny jobs."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from handler_bench import Bench
from small_service import work_all
from sqlalchemy import select, update
from test_ingest_job import zipped

from app.db.tables import Checkpoint, Dataset, FeatureFile, Job, PseudoLabelling
from app.schemas.pseudo_labellings import PseudoLabellingCreate
from app.services import pseudo_labelling_views, pseudo_labellings
from models_store import archives
from tests import open_vocabulary_models as small
from tests.documents import misfits
from tests.squares import squares

torch.set_num_threads(1)
DATASET, TEACHER = "ds_" + "1" * 32, "ckpt_" + "1" * 32


def named(bench: Bench, table: type, before: str, id: str) -> None:
    """The bench's own ids are no ids of the API."""
    with bench.database.unit_of_work() as session:
        session.execute(update(table).where(table.id == before).values(id=id))
        session.execute(update(Job).where(Job.resource_id == before).values(resource_id=id))


def sent(bench: Bench, folder: Path, family: str) -> None:
    """The folder as it is packed and sent; it becomes TEACHER."""
    packed = archives.pack(small.saved(family, folder / family), folder)
    job = bench.work(bench.checkpoint(packed.read_bytes()))
    assert job.state == "succeeded", job.error
    named(bench, Checkpoint, job.resource_id, TEACHER)


@pytest.fixture
def ready(bench: Bench, tmp_path: Path) -> Bench:
    """With a dataset of red and blue squares."""
    job = bench.work(bench.dataset(zipped(squares(tmp_path / "set", images=6))))
    assert job.state == "succeeded", job.error
    named(bench, Dataset, job.resource_id, DATASET)
    return bench


def asked(bench: Bench, **changes: Any) -> str:
    fields = {"dataset_id": DATASET, "teacher": "words", "words_checkpoint": TEACHER, "confidence": 0.0}
    body = PseudoLabellingCreate(**(fields | changes))
    return bench.add(lambda session: pseudo_labellings.create(session, "ws_1", body, bench.settings).id)


def view(bench: Bench, id: str) -> Any:
    with bench.database.reading() as session:
        return pseudo_labelling_views.shown(session, session.get_one(PseudoLabelling, id), None)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["grounding-dino", "omdet-turbo"])
def test_a_dataset_from_words(ready: Bench, tmp_path: Path, family: str) -> None:
    sent(ready, tmp_path, family)
    own = ready.get(Checkpoint, TEACHER)
    assert (own.state, own.kind) == ("ready", "open_vocabulary")
    assert own.architecture == "transformers/" + family.replace("-", "_")
    # of random weights no token is sure
    unsure = {"text_threshold": 0.0} if family == "grounding-dino" else {}
    words = {"red": ["red square", "red"], "blue": []}
    id = asked(ready, words=words, **unsure)
    done = work_all(ready)
    found = view(ready, id)
    assert found.state == "succeeded", (found.error, [job.error for job in done])
    assert found.boxes >= found.labelled == 6
    assert found.quality.objects == 12
    assert found.said["prompts"] == {"red": ["red square", "red"], "blue": ["blue"]}
    made = ready.get(Dataset, found.made_dataset_id)
    assert (made.supervision, made.lineage["teacher"]) == ("pseudo_boxes", "words")
    assert made.lineage["settings"]["words"] == words
    with zipfile.ZipFile(ready.store.local_path(made.archive_sha256)) as archive:
        content = json.loads(archive.read("annotations.json"))
    assert [each["name"] for each in content["categories"]] == ["red", "blue"]
    assert sum("score" in each for each in content["annotations"]) == found.boxes
    with ready.database.reading() as session:
        keys = set(session.scalars(select(FeatureFile.key)))
        assert misfits(session) == []
    # thresholds are no reason to look again
    fewer = asked(ready, words=words, max_boxes=1, **unsure)
    work_all(ready)
    assert view(ready, fewer).boxes == 6
    with ready.database.reading() as session:
        assert set(session.scalars(select(FeatureFile.key))) == keys
    assert ready.left_behind() == []


def test_what_only_the_tokenizer_knows_ends_the_work_with_the_reason(ready: Bench, tmp_path: Path) -> None:
    sent(ready, tmp_path, "owlvit")
    id = asked(ready, words={"red": ["zzzzzzzzzzzzzzzzzz"]})
    work_all(ready)
    found = view(ready, id)
    assert (found.state, found.error["code"], found.made_dataset_id) == ("failed", "prompt_too_long", None)
    assert "give a shorter one" in found.error["detail"]
    id = asked(ready, words={"red": []}, confidence=1.0)
    work_all(ready)
    assert view(ready, id).error["code"] == "no_pseudo_boxes"


def test_a_folder_without_its_tokenizer_says_what_is_missing(bench: Bench, tmp_path: Path) -> None:
    folder = small.saved("owlv2", tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    job = bench.work(bench.checkpoint(archives.pack(folder, tmp_path).read_bytes()))
    assert (job.state, job.error["code"]) == ("failed", "no_tokenizer")
    assert "save the whole processor beside the model" in job.error["detail"]
