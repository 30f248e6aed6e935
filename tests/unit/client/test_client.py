"""The client against a scripted server: what it sends, what it makes of the answers."""

import base64
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from detrank import Client, ProblemError, Unreachable, http, uploads
from detrank.files import pack

Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _seconds: None)


def client_of(handler: Handler) -> Client:
    return Client("http://detrank.test/", "detrank_key", transport=httpx.MockTransport(handler))


def test_a_problem_document_becomes_an_error_that_carries_it() -> None:
    problem = {
        "title": "t",
        "detail": "no metric is called x",
        "errors": [{"pointer": "/metrics/0", "message": "m"}],
    }
    with pytest.raises(ProblemError, match="no metric is called x") as caught:
        client_of(lambda _: httpx.Response(422, json=problem)).get("/v1/rankings")
    assert caught.value.status == 422
    assert caught.value.problem["errors"] == problem["errors"]


@pytest.mark.parametrize(
    "answer", [httpx.Response(500, text="<html>"), httpx.Response(404, json=["no"]), httpx.Response(302)]
)
def test_an_answer_that_is_not_ours_is_said_to_be_so(answer: httpx.Response) -> None:
    with pytest.raises(Unreachable, match="is a detrank service there"):
        client_of(lambda _: answer).get("/v1/jobs")


def test_the_key_is_sent_and_every_post_can_be_told_from_the_next() -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(202, json={"id": "rk_1"})

    service = client_of(handler)
    service.rankings.create("ds_1", ["ckpt_1"], metrics=["logme"], seed=None)
    service.rankings.create("ds_1", ["ckpt_1"])
    assert seen[0].headers["Authorization"] == "Bearer detrank_key"
    assert json.loads(seen[0].content) == {
        "dataset_id": "ds_1",
        "checkpoint_ids": ["ckpt_1"],
        "metrics": ["logme"],
    }
    assert seen[0].headers["Idempotency-Key"] != seen[1].headers["Idempotency-Key"]


def test_a_post_is_tried_again_under_the_same_idempotency_key() -> None:
    keys: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["Idempotency-Key"])
        if len(keys) == 1:
            raise httpx.ReadError("cut off")
        return httpx.Response(503 if len(keys) == 2 else 202, json={"id": "job_1", "title": "busy"})

    assert client_of(handler).jobs.cancel("job_1")["id"] == "job_1"
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_no_answer_at_all_names_the_service() -> None:
    def handler(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(Unreachable, match=r"http://detrank\.test does not answer"):
        client_of(handler).get("/v1/jobs")


def test_a_list_goes_on_to_its_last_page() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert request.url.params["state"] == "ready"
        if "cursor" in request.url.params:
            return httpx.Response(200, json={"items": [{"id": 3}], "next_cursor": None})
        return httpx.Response(200, json={"items": [{"id": 1}, {"id": 2}], "next_cursor": "c"})

    assert [record["id"] for record in client_of(handler).datasets.list(state="ready")] == [1, 2, 3]


def test_following_asks_by_etag_and_ends_with_the_final_state() -> None:
    answers = [
        httpx.Response(200, json={"state": "running", "n": 1}, headers={"ETag": 'W/"1"'}),
        httpx.Response(304),
        httpx.Response(200, json={"state": "succeeded", "n": 2}, headers={"ETag": 'W/"2"'}),
    ]
    tags: list[str | None] = []

    def handler(request: httpx.Request) -> httpx.Response:
        tags.append(request.headers.get("If-None-Match"))
        return answers[len(tags) - 1]

    assert [record["n"] for record in client_of(handler).rankings.follow("rk_1")] == [1, 1, 2]
    assert tags == [None, 'W/"1"', 'W/"1"']


def test_waiting_gives_up_after_the_time_limit() -> None:
    service = client_of(lambda _: httpx.Response(200, json={"state": "running"}))
    with pytest.raises(TimeoutError, match="still running"):
        service.jobs.wait("job_1", timeout_s=-1)


def test_events_resume_after_the_last_one_seen() -> None:
    streams = [
        'id: 4\nevent: progress\ndata: {"done":\ndata: 1}\n\n: ping\n\nevent: log\ndata: "one\u2028line"\n\n',
        "id: 5\nevent: end\ndata: {}\n\n",
    ]
    asked: list[str | None] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.headers.get("Last-Event-ID"))
        headers = {"Content-Type": "text/event-stream; charset=utf-8"}
        return httpx.Response(200, text=streams[len(asked) - 1], headers=headers)

    events = list(client_of(handler).jobs.events("job_1", after=3))
    assert asked == ["3", "4"]
    assert [(event["id"], event["event"], event["data"]) for event in events] == [
        (4, "progress", {"done": 1}),
        (None, "log", "one\u2028line"),
        (5, "end", {}),
    ]


def test_a_small_file_is_the_raw_body(tmp_path: Path) -> None:
    archive = tmp_path / "my set.zip"
    archive.write_bytes(b"bytes" * 1000)

    def handler(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/v1/datasets"
        assert dict(request.url.params) == {"name": "my set", "seed": "3"}
        assert request.headers["Content-Length"] == "5000"
        assert request.read() == archive.read_bytes()
        return httpx.Response(202, json={"id": "ds_1"})

    sent: list[tuple[int, int]] = []
    assert (
        client_of(handler).datasets.add(archive, seed=3, format=None, on_sent=lambda *at: sent.append(at))[
            "id"
        ]
        == "ds_1"
    )
    assert sent == [(5000, 5000)]


def test_an_empty_file_is_sent_so_that_the_service_can_refuse_it(tmp_path: Path) -> None:
    (tmp_path / "empty.zip").touch()
    service = client_of(lambda _: httpx.Response(422, json={"detail": "the body is empty"}))
    with pytest.raises(ProblemError, match="the body is empty"):
        service.datasets.add(tmp_path / "empty.zip")


class TusServer:
    """Takes chunks, and breaks the connection after half of the second one."""

    def __init__(self) -> None:
        self.received, self.length, self.patches, self.filename = b"", -1, 0, ""

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.method != "POST" or request.url.path == "/v1/uploads":
            assert request.headers["Tus-Resumable"] == "1.0.0"
        if request.method == "HEAD":
            return httpx.Response(200, headers={"Upload-Offset": str(len(self.received))})
        if request.method == "PATCH":
            assert int(request.headers["Upload-Offset"]) == len(self.received)
            self.patches += 1
            body = request.read()
            if self.patches == 2:
                self.received += body[: len(body) // 2]
                raise httpx.WriteError("cut off")
            self.received += body
            return httpx.Response(204, headers={"Upload-Offset": str(len(self.received))})
        if request.url.path == "/v1/uploads":
            self.length = int(request.headers["Upload-Length"])
            self.filename = base64.b64decode(request.headers["Upload-Metadata"].split()[1]).decode()
            return httpx.Response(201, headers={"Location": "http://elsewhere.test/v1/uploads/up_1"})
        return httpx.Response(202, json={"id": "ckpt_1", "asked": json.loads(request.content)})


def test_a_large_file_goes_on_after_a_broken_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "SMALL_BYTES", 10)
    monkeypatch.setattr(uploads, "CHUNK_BYTES", 100)
    weights, server = tmp_path / "wéights.pth", TusServer()
    weights.write_bytes(bytes(range(256)) * 2)
    record = client_of(server).checkpoints.add(weights, licence="MIT")
    assert server.received == weights.read_bytes()
    assert (server.length, server.filename, server.patches) == (512, "wéights.pth", 6)
    assert record["asked"] == {"name": "wéights", "licence": "MIT", "upload_id": "up_1"}


def test_a_source_by_name_is_json() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert json.loads(request.content) == {"source": "timm://resnet18", "sha256": "00"}
        return httpx.Response(202, json={"id": "ckpt_1"})

    client_of(handler).checkpoints.add("timm://resnet18", sha256="00")


def test_a_folder_is_packed_without_hidden_files(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    (folder / "images").mkdir(parents=True)
    (folder / ".git").mkdir()
    for name in ("images/b.png", "images/a.png", ".DS_Store", ".git/config"):
        (folder / name).write_text(name)
    assert pack(folder, tmp_path / "set.zip") == 2
    with zipfile.ZipFile(tmp_path / "set.zip") as archive:
        assert archive.namelist() == ["images/a.png", "images/b.png"]
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert archive.read("images/a.png") == b"images/a.png"


@pytest.mark.parametrize(
    ("make", "error"), [(lambda p: None, FileNotFoundError), (lambda p: p.mkdir(), ValueError)]
)
def test_what_cannot_be_sent_is_said_before_anything_is_sent(
    tmp_path: Path, make: Callable[[Path], None], error: type[Exception]
) -> None:
    def handler(_: httpx.Request) -> httpx.Response:
        raise AssertionError("nothing must be sent")

    make(tmp_path / "x")
    with pytest.raises(error, match="x"):
        client_of(handler).datasets.add(tmp_path / "x")


def test_weights_appear_when_they_are_whole_and_a_refusal_leaves_nothing(tmp_path: Path) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.params.get("as") == "plain":
            return httpx.Response(409, json={"detail": "it was not fine-tuned here", "status": 409})
        return httpx.Response(200, content=b"weights" * 1000)

    client = client_of(handler)
    file = client.checkpoints.download("ckpt_1", tmp_path / "w.safetensors")
    assert file.read_bytes() == b"weights" * 1000
    with pytest.raises(ProblemError, match="not fine-tuned"):
        client.checkpoints.download("ckpt_1", tmp_path / "w.zip", plain=True)
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_what_is_not_given_of_a_verification_is_left_to_the_service() -> None:
    asked: list[dict] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content))
        return httpx.Response(202, json={"id": "vf_1"})

    client = client_of(handler)
    client.verifications.create("ds_1", "ckpt_1", recipe=None, epochs=2, shots=None)
    client.rankings.verify("rk_1", top_k="all", recipe=None)
    assert asked == [{"dataset_id": "ds_1", "checkpoint_id": "ckpt_1", "epochs": 2}, {"top_k": "all"}]


def test_a_source_is_named_and_nothing_is_sent() -> None:
    bodies = []

    def answer(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        return httpx.Response(202, json={})

    client = client_of(answer)
    client.datasets.add("hf://datasets/org/birds@main", format="coco")
    client.datasets.add("file:///mnt/a%20set/", name="mine", seed=None)
    assert bodies == [
        {"name": "birds", "format": "coco", "source": "hf://datasets/org/birds@main"},
        {"name": "mine", "source": "file:///mnt/a%20set/"},
    ]
