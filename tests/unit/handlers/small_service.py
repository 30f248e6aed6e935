"""A bench with datasets that can be learned in seconds and several small candidates, and whoever does all its jobs."""

import hashlib
import io
import shutil
from datetime import UTC, datetime
from pathlib import Path

import torch
import torchvision
from handler_bench import Bench
from safetensors.torch import load_file, save
from sqlalchemy import select, update
from test_ingest_job import zipped

from app.db.tables import Checkpoint, Dataset, Job
from tests.squares import squares

DATASET = "ds_" + "1" * 32
OTHER_DATASET = "ds_" + "2" * 32
CHECKPOINTS = ["ckpt_" + str(n) * 32 for n in range(1, 4)]
OPTIONS = {
    "norm": "frozen",
    "neck_channels": 16,
    "head_width": 32,
    "rpn_pre_nms_top_n_train": 50,
    "rpn_post_nms_top_n_train": 20,
    "rpn_pre_nms_top_n_test": 50,
    "rpn_post_nms_top_n_test": 10,
    "box_batch_size_per_image": 16,
}


def made(folder: Path) -> Path:
    """The files of a bench with two ready datasets and three ready checkpoints."""
    torch.set_num_threads(1)
    bench = Bench(folder, f"sqlite:///{folder / 'detrank.db'}")
    for number, id in enumerate((DATASET, OTHER_DATASET), 1):
        job = bench.work(bench.dataset(zipped(squares(folder / f"set{number}", images=10 + 2 * number))))
        assert job.state == "succeeded", job.error
        _called(bench, Dataset, job.resource_id, id)
    torch.manual_seed(0)
    weights = io.BytesIO()
    torch.save(torchvision.models.mobilenet_v3_small().state_dict(), weights)
    job = bench.work(
        bench.checkpoint(weights.getvalue(), architecture="torchvision/mobilenet_v3_small", options=OPTIONS)
    )
    assert job.state == "succeeded", job.error
    _called(bench, Checkpoint, job.resource_id, CHECKPOINTS[0])
    for number, id in enumerate(CHECKPOINTS[1:], 1):
        _another(bench, id, number)
    bench.database.dispose()
    return folder


def copied(original: Path, folder: Path, **settings: object) -> Bench:
    shutil.copytree(original, folder)
    return Bench(folder, f"sqlite:///{folder / 'detrank.db'}", **settings)


def work_all(bench: Bench, most: int = 200) -> list[Job]:
    """Does every queued job, those added on the way too, in the order in which they were made."""
    done = []
    while (job_id := queued(bench)) is not None:
        done.append(bench.work(job_id))
        assert len(done) < most, "it does not come to an end"
    return done


def queued(bench: Bench, *kinds: str) -> str | None:
    query = select(Job.id).where(Job.state == "queued").order_by(Job.id).limit(1)
    with bench.database.reading() as session:
        return session.scalar(query.where(Job.kind.in_(kinds)) if kinds else query)


def _called(bench: Bench, table: type, before: str, id: str) -> None:
    # the bench's own ids are no ids of the API
    with bench.database.unit_of_work() as session:
        session.execute(
            update(table).where(table.id == before).values(id=id, name=f"{table.__tablename__} {id[-1]}")
        )
        session.execute(update(Job).where(Job.resource_id == before).values(resource_id=id))


def _another(bench: Bench, id: str, seed: int) -> None:
    """The first checkpoint with a little noise on its weights: converting each anew takes seconds."""
    first = bench.get(Checkpoint, CHECKPOINTS[0])
    tensors = load_file(bench.store.local_path(first.weights_sha256))
    torch.manual_seed(seed)
    noisy = {
        name: tensor * (1 + 0.2 * torch.randn_like(tensor)) if tensor.ndim > 1 else tensor
        for name, tensor in tensors.items()
    }
    content = save(noisy)
    about = {"weights_sha256": hashlib.sha256(content).hexdigest()}
    with bench.database.unit_of_work() as session:
        now = datetime.now(UTC)
        session.add(
            Checkpoint(
                id=id,
                workspace_id="ws_1",
                name=f"checkpoint {id[-1]}",
                state="ready",
                request={},
                kind=first.kind,
                architecture=first.architecture,
                format=first.format,
                parameters=first.parameters,
                manifest=first.manifest | about,
                weights_sha256=bench.blob(session, content),
                created_at=now,
                updated_at=now,
            )
        )
