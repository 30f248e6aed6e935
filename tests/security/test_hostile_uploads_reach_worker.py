"""What only the worker can find out: the resource ends as `invalid` with the reason, nothing else happens, work goes on."""

import collections
import io
import json
import pickle
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import PIL.Image
import pytest
import torch

from detrank import ProblemError
from tests.deployments import Deployment, children, deployment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
PATIENCE_S = 200
MARKER = Path("/tmp/detrank-hostile-upload-ran")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployment(tmp_path_factory.mktemp("hostile"), MAX_ATTEMPTS=2) as started:
        yield started


def zip_of(**entries: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def png(width: int = 64, height: int = 64) -> bytes:
    """A black picture of one bit a pixel, which is small however large it is."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    squeeze, row = zlib.compressobj(1), b"\0" * (1 + (width + 7) // 8)
    pixels = b"".join(squeeze.compress(row) for _ in range(height)) + squeeze.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def dataset_zip(**pictures: bytes) -> bytes:
    """COCO with one box in every picture."""
    sizes = {name: struct.unpack(">II", content[16:24]) for name, content in pictures.items()}
    document = {
        "images": [
            {"id": i, "file_name": name, "width": sizes[name][0], "height": sizes[name][1]}
            for i, name in enumerate(pictures, 1)
        ],
        "annotations": [
            {"id": i, "image_id": i, "category_id": 1, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0}
            for i, _ in enumerate(pictures, 1)
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }
    images = {f"images/{name}": content for name, content in pictures.items()}
    return zip_of(**{"annotations.json": json.dumps(document).encode()}, **images)


def noise_png(seed: int) -> bytes:
    buffer = io.BytesIO()
    PIL.Image.effect_noise((64, 64), 40 + seed).convert("RGB").save(buffer, "png")
    return buffer.getvalue()


def linked_tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        link = tarfile.TarInfo("images/a.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return buffer.getvalue()


def linked_zip() -> bytes:
    link = zipfile.ZipInfo("images/a.png")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(link, b"/etc/passwd")
    return buffer.getvalue()


DATASETS: dict[str, tuple[Callable[[], bytes], str]] = {
    "zip slip": (lambda: zip_of(**{"../../evil.txt": b"x", "a.txt": b"y"}), "archive_path_escapes"),
    "absolute path": (lambda: zip_of(**{"/tmp/detrank-evil.txt": b"x"}), "archive_absolute_path"),
    "link in a zip": (linked_zip, "archive_link"),
    "link in a tar": (linked_tar, "archive_link"),
    "zip bomb": (lambda: zip_of(**{"a.csv": bytes(64 << 20)}), "archive_ratio"),
    "truncated zip": (lambda: dataset_zip(a=noise_png(1))[:-50], "archive_corrupt"),
    "only a huge picture": (lambda: dataset_zip(**{"huge.png": png(50_000, 50_000)}), "unusable_dataset"),
    "no dataset": (lambda: zip_of(**{"readme.md": b"hello"}), "unusable_dataset"),
    "broken and deep JSON": (
        lambda: zip_of(
            **{
                "annotations.json": b'{"images": [{"file_name": "a.png"' + b"[" * 100_000,
                "images/a.png": noise_png(2),
            }
        ),
        "unusable_dataset",
    ),
}


@pytest.mark.parametrize("name", DATASETS)
def test_hostile_dataset_is_invalid(running: Deployment, name: str) -> None:
    make, code = DATASETS[name]
    dataset = send(running, "datasets", make())
    assert (dataset["state"], dataset["error"]["code"]) == ("invalid", code), dataset["error"]
    assert dataset["error"]["detail"]
    assert not Path("/tmp/detrank-evil.txt").exists()
    assert not list(running.home.rglob("evil.txt"))
    assert left_behind(running) == []
    check_ranking_refused(running, dataset)


def test_huge_picture_among_good_ones_is_dropped(running: Deployment) -> None:
    content = dataset_zip(**{"huge.png": png(50_000, 50_000), "a.png": noise_png(3), "b.png": noise_png(4)})
    dataset = send(running, "datasets", content)
    assert dataset["state"] == "ready", dataset["error"]
    assert dataset["summary"]["images"] == 2
    report = running.client.datasets.report(dataset["id"])
    [fault] = [fault for fault in report["faults"] if fault["code"] == "image_too_large"]
    assert "huge.png" in fault["file"]


class Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(MARKER), "w"))


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def shape_bomb() -> bytes:
    """A tensor of 4 TB that takes 1.5 kB."""
    return saved({"backbone.weight": torch.zeros(1).as_strided((1_000_000, 1_000_000), (0, 0))})


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


CHECKPOINTS: dict[str, Callable[[], bytes]] = {
    "pickle with a payload": lambda: pickle.dumps({"state_dict": Payload()}),
    "torch file with a payload": lambda: saved({"state_dict": Payload()}),
    "old torch file with a payload": lambda: _legacy({"weight": torch.zeros(3), "x": Payload()}),
    "no known architecture": lambda: saved(collections.OrderedDict(a=torch.zeros(3), b=torch.zeros(3, 3))),
    "shape bomb": shape_bomb,
    "truncated": lambda: saved({"a": torch.zeros(100_000)})[:5000],
    "not a state dict": lambda: saved([1, 2, 3]),
    "safetensors that claims too much": lambda: struct.pack("<Q", 2**60) + b"{}" * 50,
    "text": lambda: b"hello " * 500,
}


def _legacy(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_hostile_checkpoint_is_invalid(running: Deployment, name: str) -> None:
    MARKER.unlink(missing_ok=True)
    checkpoint = send(running, "checkpoints", CHECKPOINTS[name]())
    assert checkpoint["state"] == "invalid"
    assert checkpoint["error"]["type"].endswith(("unusable_checkpoint", "invalid_request")), checkpoint[
        "error"
    ]
    assert checkpoint["error"]["detail"]
    assert checkpoint["weights_sha256"] is None
    assert not MARKER.exists()
    assert left_behind(running) == []


def test_worker_is_the_same_process_and_still_works(running: Deployment) -> None:
    """Comes last: after all of the above the worker has not even been restarted."""
    assert running.worker is not None
    before = set(children(running.worker.pid))
    dataset = send(running, "datasets", dataset_zip(**{f"{i}.png": noise_png(i + 10) for i in range(3)}))
    assert dataset["state"] == "ready", dataset["error"]
    assert running.worker.poll() is None
    assert set(children(running.worker.pid)) == before
    assert "did not stop" not in running.log("worker")
    assert "WorkerLostError" not in running.log("worker")


def send(running: Deployment, kind: str, content: bytes) -> dict[str, Any]:
    client = running.client
    assert client is not None
    answer = httpx.post(f"{client.url}/v1/{kind}", params={"name": "hostile"}, content=content, timeout=60)
    assert answer.status_code == 202, answer.text
    job = client.jobs.wait(answer.json()["job_id"], timeout_s=PATIENCE_S)
    assert job["state"] in ("succeeded", "failed")
    assert job["attempt"] == 1, "trying again cannot make a hostile file better"
    return client.get(f"/v1/{kind}/{answer.json()['id']}")


def check_ranking_refused(running: Deployment, dataset: dict[str, Any]) -> None:
    with pytest.raises(ProblemError) as refused:
        running.client.rankings.create(dataset["id"], ["ckpt_0197c0de9a5b7f0e8a5b7f0e8a5b7f0e"])
    assert 400 <= refused.value.status < 500


def left_behind(running: Deployment) -> list[Path]:
    scratch = running.home / "scratch"
    return [path for path in scratch.rglob("*") if path.is_file()] if scratch.exists() else []
