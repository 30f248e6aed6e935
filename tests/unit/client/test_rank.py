"""`rank` in one call against a scripted service: what is sent, what is found again, what is shown, what is refused."""

import asyncio
import hashlib
import json
import re
import warnings
from pathlib import Path
from typing import Any

import httpx
import pandas
import pytest

import detrank
from detrank import AsyncClient, Client, ProblemError
from detrank.progress import NotebookBars, TerminalBars

Record = dict[str, Any]
PREFIXES = {"datasets": "ds", "checkpoints": "ckpt", "rankings": "rk", "jobs": "job"}


class Service:
    """Datasets and checkpoints are processed at their second sight, rankings end at their third."""

    def __init__(self) -> None:
        self.things: dict[str, Record] = {}
        self.sights: dict[str, int] = {}
        self.posts: list[str] = []
        self.outcome = "succeeded"

    def __call__(self, request: httpx.Request) -> httpx.Response:
        _, _, kind, *rest = request.url.path.split("/")
        if request.method == "POST":
            return self.post(kind, request)
        if rest:
            return self.look(rest[0])
        asked = request.url.params
        found = [
            one
            for one in self.things.values()
            if one["id"].startswith(PREFIXES[kind])
            and asked.get("name", "") in (one["name"] or "")
            and asked.get("state", one["state"]) == one["state"]
        ]
        return httpx.Response(200, json={"items": found, "next_cursor": None})

    def post(self, kind: str, request: httpx.Request) -> httpx.Response:
        body = request.read()
        fields = (
            json.loads(body)
            if request.headers["Content-Type"] == "application/json"
            else dict(request.url.params)
        )
        id = f"{PREFIXES[kind]}_{len(self.posts)}"
        self.posts.append(f"{kind} {fields.get('name') or fields.get('source') or ''}".strip())
        self.things[id] = {
            "id": id,
            "name": fields.get("name") or "named",
            "state": "queued" if kind == "rankings" else "processing",
            "request": fields,
            "source_sha256": hashlib.sha256(body).hexdigest(),
            "error": None,
            "job_id": None,
        }
        if kind == "rankings":
            self.things[id] |= ranking(fields["checkpoint_ids"]) | {
                "id": id,
                "dataset_id": fields["dataset_id"],
            }
        return httpx.Response(202, json=self.things[id])

    def look(self, id: str) -> httpx.Response:
        if id not in self.things:
            return httpx.Response(404, json={"detail": f"there is no {id}", "code": "not_found"})
        thing = self.things[id]
        self.sights[id] = self.sights.get(id, 0) + 1
        if id.startswith("rk") and self.sights[id] == 3:
            thing["state"] = self.outcome
        elif not id.startswith("rk") and self.sights[id] == 2:
            broken = thing["name"] == "broken"
            thing["state"] = "invalid" if broken else "ready"
            thing["error"] = (
                {"detail": "it holds no weights", "code": "unusable_checkpoint"} if broken else None
            )
        return httpx.Response(200, json=thing)


def ranking(ids: list[str], **more: Any) -> Record:
    candidates = [
        {
            "checkpoint_id": id,
            "name": f"<{id}>",
            "rank": n,
            "state": "succeeded",
            "value": 1.0 / n,
            "interval": [1.0 / n - 0.06, 1.0 / n + 0.06],
            "gain": None,
            "gain_interval": None,
            "zero_point": None,
            "z": 443.25,
            "predicted_map": None,
            "chance_of_best": 0.5,
            "map": None,
            "near": [other for other in ids if other != id],
            "scores": [
                {
                    "metric": "logme",
                    "layer": "backbone.c4",
                    "level": "local",
                    "value": 1.0 / n,
                    "undefined": None,
                    "z": 1.0,
                    "zero_point": None,
                    "gain": None,
                }
            ],
            "cost": {
                "parameters": 10,
                "ms_per_image": 4.0 * n,
                "peak_memory_bytes": 1,
                "licence": "MIT",
                "device": "cpu",
            },
            "verifications": [],
        }
        for n, id in enumerate(ids, 1)
    ]
    return {
        "state": "queued",
        "stage": None,
        "name": None,
        "order_by": "score",
        "ranked_by": {"metric": "logme", "layer": "backbone.c4", "level": "local", "quantity": "value"},
        "candidates": candidates,
        "left_out": [],
        "summary": "candidates 1 and 2 cannot be told apart",
        "verified": [],
        "warnings": [
            {"code": "near_tie", "detail": "twice said"},
            {"code": "few_objects", "detail": "12 objects"},
        ],
        "error": None,
    } | more


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    monkeypatch.setattr("time.sleep", lambda _: None)
    return Service()


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("set.zip", "a.pth", "broken.pth"):
        (tmp_path / name).write_text(name)
    return tmp_path


def client_of(service: Service) -> Client:
    return Client("http://detrank.test", transport=httpx.MockTransport(service))


@pytest.mark.usefixtures("files")
def test_files_and_names_are_sent_waited_for_and_ranked(service: Service) -> None:
    r = client_of(service).rank("set.zip", ["a.pth", "timm://resnet18"], max_images=40)
    assert service.posts == ["datasets set", "checkpoints a", "checkpoints timm://resnet18", "rankings"]
    assert type(r) is detrank.Ranking
    assert (r.state, [one.rank for one in r.candidates]) == ("succeeded", [1, 2])
    assert service.things[r.id]["request"]["max_images"] == 40
    assert r.best is not None
    assert r.best.checkpoint_id == "ckpt_1"


@pytest.mark.usefixtures("files")
def test_what_the_service_has_is_not_sent_again(service: Service) -> None:
    client = client_of(service)
    first = client.rank("set.zip", ["a.pth", "timm://resnet18"])
    before = list(service.posts)
    again = client.rank("set.zip", ["a.pth", "timm://resnet18", "ckpt_1", first.candidates[0].checkpoint_id])
    assert service.posts == [*before, "rankings"]
    assert [one.checkpoint_id for one in again.candidates] == ["ckpt_1", "ckpt_2"], "each once"
    by_name = client.rank(client.datasets.get(first.dataset_id), ["a"])
    assert [one.checkpoint_id for one in by_name.candidates] == ["ckpt_1"]
    Path("a.pth").write_text("other weights")
    client.rank("set", ["a.pth"])
    assert service.posts[-2:] == ["checkpoints a", "rankings"]


@pytest.mark.usefixtures("files")
def test_one_that_cannot_be_used_is_left_out_and_said(service: Service) -> None:
    with pytest.warns(UserWarning, match=r"left out: broken: it holds no weights"):
        r = client_of(service).rank("set.zip", ["a.pth", "broken.pth"])
    assert [one.checkpoint_id for one in r.candidates] == ["ckpt_1"]
    with pytest.raises(ProblemError, match="broken: it holds no weights") as caught:
        client_of(service).rank("set.zip", ["broken.pth"])
    assert caught.value.code == "unusable_checkpoint"


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(
    ("dataset", "checkpoints", "error", "says"),
    [
        ("nowhere.zip", ["a.pth"], FileNotFoundError, "nowhere.zip: there is no such file or folder"),
        ("set.zip", ["ckpt_9"], ProblemError, "no ckpt_9"),
        ("set.zip", "a.pth", TypeError, r"checkpoints are a list: \['a.pth'\]"),
    ],
)
def test_what_is_meant_by_nothing_is_said(
    service: Service, dataset: str, checkpoints: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        client_of(service).rank(dataset, checkpoints)
    assert "rankings" not in service.posts


@pytest.mark.usefixtures("files")
def test_a_ranking_that_failed_is_an_error(service: Service) -> None:
    service.outcome = "cancelled"
    with pytest.raises(ProblemError, match="was cancelled"):
        client_of(service).rank("set.zip", ["a.pth"])


@pytest.mark.usefixtures("files")
def test_bars_of_ones_own_are_shown_and_closed(service: Service) -> None:
    class Bars(detrank.Bars):
        def __init__(self) -> None:
            self.seen: list[tuple[str, float, float | None]] = []
            self.closed = False

        def show(self, key: str, title: str, done: float, total: float | None, note: str = "") -> None:
            self.seen.append((title, done, total))

        def close(self) -> None:
            self.closed = True

    bars = Bars()
    client_of(service).rank("set.zip", ["a.pth"], progress=bars)
    assert bars.closed
    assert ("sending set.zip", 7, 7) in bars.seen
    assert bars.seen[-1] == ("candidates", 1, 1)


@pytest.mark.usefixtures("files")
def test_the_same_is_awaited(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(_: float) -> None:
        return None

    monkeypatch.setattr("detrank.drivers.asyncio.sleep", at_once)

    async def asked() -> detrank.Ranking:
        async with AsyncClient("http://detrank.test", transport=httpx.MockTransport(service)) as client:
            return await client.rank("set.zip", ["a.pth"])

    assert asyncio.run(asked()).state == "succeeded"


def shown() -> detrank.Ranking:
    return detrank.Ranking(ranking(["ckpt_1", "ckpt_2"]) | {"id": "rk_1"}, "http://detrank.test")


def test_it_is_text_where_there_are_no_pictures() -> None:
    lines = repr(shown()).splitlines()
    assert lines[0] == "ranked by logme at backbone.c4 (local), higher is better"
    assert re.split(r"\s{2,}", lines[2].strip()) == ["1", "<ckpt_1>", "1.000 ± 0.060", "#2", "4.0"]
    assert lines[-2:] == ["candidates 1 and 2 cannot be told apart", "beware: 12 objects"]
    assert "443" not in repr(shown())


def test_mAP_is_as_measured_or_as_predicted() -> None:
    r = shown()
    for candidate in r["candidates"]:
        candidate["predicted_map"] = {"mean": 0.3, "low": 0.2, "high": 0.43, "level": 0.8}
    assert "predicted mAP (80%)" in repr(r)
    assert "0.20 to 0.43" in r._repr_html_()
    r["candidates"][0]["map"] = 0.3125
    head, first, second = re.sub(r" {2,}", "|", repr(r)).splitlines()[1:4]
    assert head.split("|")[4] == "mAP, or predicted (80%)"
    assert (first.split("|")[-2], second.split("|")[-2]) == ("0.312", "0.20 to 0.43")
    assert list(r.to_pandas()["predicted_low"]) == [0.2, 0.2]


def test_an_order_by_prediction_shows_chances_and_draws_what_is_predicted() -> None:
    document = ranking(["ckpt_1", "ckpt_2"]) | {"id": "rk_1", "order_by": "predicted_map"}
    r = detrank.Ranking(document, "http://detrank.test")
    for place, candidate in enumerate(r["candidates"]):
        candidate["predicted_map"] = {"mean": 0.3 - 0.1 * place, "low": 0.1, "high": 0.43, "level": 0.8}
        candidate["chance_of_best"] = 0.75 - 0.5 * place
    title, head, first, second = repr(r).splitlines()[:4]
    assert title == "ranked by the mAP that fine-tuning is predicted to reach"
    assert "chance of best" in head
    assert ("75%" in first, "25%" in second) == (True, True)
    html = r._repr_html_()
    assert 'aria-label="predicted mAP against milliseconds per image"' in html
    assert "4 ms, 0.3</title>" in html


def test_it_is_a_table_with_a_plot_in_a_notebook() -> None:
    html = shown()._repr_html_()
    assert html.count("<circle") == 2
    assert "&lt;ckpt_1&gt;" in html, "names are no markup"
    assert "<ckpt_1>" not in html
    assert 'href="http://detrank.test/rankings/rk_1"' in html
    assert "<script" not in html


def test_it_is_a_data_frame() -> None:
    frame = shown().to_pandas()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame.index) == [1, 2]
    assert list(frame["score"]) == [1.0, 0.5]
    assert frame.loc[1, "low"] == pytest.approx(0.94)
    scores = shown().to_pandas(scores=True)
    assert list(scores.columns)[:5] == ["candidate", "metric", "layer", "level", "value"]
    assert len(scores) == 2


def test_a_ranking_without_an_order_is_shown_too() -> None:
    waiting = ranking(["ckpt_1"], ranked_by=None)
    waiting["candidates"][0] |= {
        "rank": None,
        "value": None,
        "interval": None,
        "state": "running",
        "near": [],
    }
    r = detrank.Ranking(waiting | {"id": "rk_1"}, "http://detrank.test")
    assert r.best is None
    assert repr(r).startswith("not ranked yet: queued")
    assert "<svg" not in r._repr_html_()
    with warnings.catch_warnings(action="error"):
        assert list(r.to_pandas().index.isna()) == [True]


@pytest.mark.parametrize("kind", [NotebookBars, TerminalBars])
def test_bars_take_what_is_not_known_yet(
    kind: type[detrank.Bars], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # as if somebody looked
    with kind() as bars:
        bars.show("a", "sending [red]", 0, None, "soon")
        bars.show("a", "sending [red]", 2, 4, "2/4 [MiB]")
        bars.show("b", "candidates", 1, 2)
    told = capsys.readouterr()
    assert "sending [red]" in told.err
    assert not told.out
