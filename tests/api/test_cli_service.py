"""The command line against a service in processes of its own, as people use it."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from detrank import Client
from detrank.embedded import find

pytestmark = pytest.mark.slow
DETRANK = [sys.executable, "-m", "app.cli"]


def environment(home: Path, **more: str) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("DETRANK_")}
    return ours | {"DETRANK_DATA_DIR": str(home), "COLUMNS": "200", "OMP_NUM_THREADS": "1"} | more


def detrank(home: Path, *words: object, **more: str) -> subprocess.CompletedProcess[str]:
    command = [*DETRANK, *map(str, words)]
    return subprocess.run(
        command, env=environment(home, **more), capture_output=True, text=True, timeout=240, cwd=home.parent
    )


def until(true: Callable[[], object], seconds: float = 60.0) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, "did not happen"
        time.sleep(0.05)


def children(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = stat.read_text().rsplit(")", 1)[1].split()[:2]
            if int(parent) == pid and state != "Z":
                found.append(int(stat.parent.name))
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@contextlib.contextmanager
def serving(home: Path, *words: str, **more: str) -> Iterator[subprocess.Popen[bytes]]:
    home.mkdir(parents=True, exist_ok=True)
    with (home / "serve.out").open("wb") as log:
        process = subprocess.Popen(
            [*DETRANK, "serve", "--port", "0", *words], env=environment(home, **more), stderr=log, stdout=log
        )
    try:
        until(lambda: find(home) or process.poll() is not None)
        assert find(home), (home / "serve.out").read_text()
        yield process
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The data folder of a service that runs throughout this file."""
    folder = tmp_path_factory.mktemp("cli") / "home"
    with serving(folder):
        yield folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    archive = tmp_path_factory.mktemp("sets") / "digits.zip"
    done = detrank(archive.parent, "datasets", "synth", archive, "--train", 24, "--test", 4)
    assert done.returncode == 0, done.stderr
    return archive


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two MobileNetV3 with random weights: what counts here is the way, not the order."""
    import torch
    import torchvision

    files = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        files.append(tmp_path_factory.mktemp("weights") / f"backbone-{seed}.pth")
        torch.save(torchvision.models.mobilenet_v3_small(weights=None).state_dict(), files[-1])
    return files


def test_a_dataset_is_sent_checked_and_shown(home: Path, digits: Path) -> None:
    added = detrank(home, "datasets", "add", digits, "--name", "scenes [of] digits", "--json")
    assert added.returncode == 0, added.stderr
    record = json.loads(added.stdout)
    assert (record["state"], record["name"]) == ("ready", "scenes [of] digits")
    listed = detrank(home, "datasets", "list")
    assert record["id"] in listed.stdout
    assert "scenes [of] digits" in listed.stdout
    shown = detrank(home, "datasets", "show", "scenes [of] digits")
    assert shown.returncode == 0, shown.stderr
    assert "28 images" in shown.stdout


def test_a_folder_is_sent_as_it_is(home: Path, digits: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(digits) as archive:
        archive.extractall(tmp_path / "folder")
    added = detrank(home, "datasets", "add", tmp_path / "folder", "--json")
    assert added.returncode == 0, added.stderr
    assert json.loads(added.stdout)["name"] == "folder"


def test_a_folder_stays_where_the_service_may_read_it(home: Path, digits: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(digits) as archive:
        archive.extractall(tmp_path / "folder")
    refused = detrank(home, "datasets", "add", "--source", tmp_path / "folder")
    assert refused.returncode == 1
    assert "DETRANK_ALLOWED_SOURCES" in refused.stderr
    # a service that is started for the command may read what the command names
    added = detrank(tmp_path / "home", "datasets", "add", "--source", tmp_path / "folder", "--json")
    assert added.returncode == 0, added.stderr
    assert json.loads(added.stdout)["stays_at"] == (tmp_path / "folder").resolve().as_uri()
    for words in ((), (digits, "--source", tmp_path / "folder")):
        assert detrank(tmp_path / "home", "datasets", "add", *words).returncode == 2


def test_a_ranking_from_paths_to_a_table(
    home: Path, digits: Path, backbones: list[Path], tmp_path: Path
) -> None:
    done = detrank(
        home,
        "rank",
        digits,
        *backbones,
        "--metrics",
        "logme,h_score",
        "--image-size",
        64,
        "--seed",
        1,
        "--csv",
        tmp_path / "scores.csv",
        "--wide",
    )
    assert done.returncode == 0, done.stderr
    for word in ("ranked by", "every figure", "logme", "h_score", "backbone-0", "backbone-1", "rk_"):
        assert word in done.stdout
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["name"] for row in rows} == {"backbone-0", "backbone-1"}
    assert {name.split("@")[0] for name in rows[0] if "@" in name} == {"logme", "h_score"}

    again = detrank(
        home,
        "rank",
        "digits",
        "backbone-0",
        "backbone-1",
        "--metrics",
        "logme,h_score",
        "--image-size",
        64,
        "--seed",
        1,
        "--json",
    )
    assert again.returncode == 0, again.stderr
    ranking = json.loads(again.stdout)
    assert ranking["state"] == "succeeded"
    assert sorted(candidate["rank"] for candidate in ranking["candidates"]) == [1, 2]
    listed = json.loads(detrank(home, "rankings", "list", "--json").stdout)
    assert listed["items"][0]["id"] == ranking["id"]
    shown = detrank(home, "rankings", "show", ranking["id"])
    assert "backbone-1" in shown.stdout


def test_what_weights_bring_beyond_the_untrained_architecture(
    home: Path, digits: Path, backbones: list[Path], tmp_path: Path
) -> None:
    asked = (
        "--rank-by",
        "detection_evidence",
        "--metrics",
        "logme,detection_evidence",
        "--image-size",
        64,
        "--seed",
        1,
    )
    regions = ("--layer", "size_matched", "--regions-per-object", 2, "--hard-background", 0.5)
    done = detrank(
        home, "rank", digits, *backbones, *asked, *regions, "--csv", tmp_path / "scores.csv", "--json"
    )
    assert done.returncode == 0, done.stderr
    ranking = json.loads(done.stdout)
    assert ranking["request"]["regions"].items() >= {"jittered": 2, "background": 2, "hard": 0.5}.items()
    by = ranking["ranked_by"]
    assert (by["metric"], by["level"], by["chosen_by"]) == (
        "detection_evidence",
        "local",
        "size of the objects",
    )
    assert by["quantity"] == "gain"
    gains = [one["gain"] for one in ranking["candidates"]]
    assert gains == sorted(gains, reverse=True)
    candidates = {one["name"]: one for one in ranking["candidates"]}
    for one in candidates.values():
        scores = {(score["metric"], score["layer"]): score for score in one["scores"]}
        assert {layer for _, layer in scores} == {"backbone.c3", "backbone.c4"}
        for score in scores.values():
            details = score["details"]
            assert (details.get("regions", 0) > details["objects"]) == (
                score["metric"] == "detection_evidence"
            )
            assert score["gain"] == (score["value"] - score["zero_point"])
        chosen = scores["detection_evidence", by["layer"]]
        assert (one["value"], one["zero_point"], one["gain"]) == (
            chosen["value"],
            chosen["zero_point"],
            chosen["gain"],
        )
        assert one["timings"]["zero_point"] > 0
    # the first has the library's own initial weights of the seed that zero points have
    assert {score["gain"] for score in candidates["backbone-0"]["scores"]} == {0.0}
    assert len({one["zero_point"] for one in candidates.values()}) == 1
    said = [each["detail"] for each in ranking["warnings"] if each["code"] == "brings_nothing"]
    assert any(
        "backbone-0" in each
        and "not beat the untrained detrank/fasterrcnn_fpn over torchvision/mobilenet_v3_small" in each
        for each in said
    )
    with (tmp_path / "scores.csv").open() as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    assert {name: (float(row["zero_point"]), float(row["gain"])) for name, row in rows.items()} == {
        name: (one["zero_point"], one["gain"]) for name, one in candidates.items()
    }
    shown = detrank(home, "rankings", "show", ranking["id"]).stdout
    assert f"ranked by gain of detection_evidence at {by['layer']}" in shown
    assert "beware: backbone" in shown
    raw = detrank(home, "rank", digits, *backbones, *asked, *regions, "--quantity", "value", "--json")
    ranked = json.loads(raw.stdout)
    assert ranked["ranked_by"]["quantity"] == "value"
    values = [one["value"] for one in ranked["candidates"]]
    assert values == sorted(values, reverse=True)
    without = detrank(home, "rank", "digits", "backbone-0", *asked, "--no-zero-point", "--json")
    assert [one["gain"] for one in json.loads(without.stdout)["candidates"]] == [None]


def test_jobs_are_listed_and_shown_and_a_finished_one_stays(home: Path, digits: Path) -> None:
    detrank(home, "datasets", "add", digits)
    jobs = json.loads(detrank(home, "jobs", "list", "--kind", "ingest", "--json").stdout)["items"]
    assert jobs[0]["state"] == "succeeded"
    assert jobs[0]["id"] in detrank(home, "jobs", "show", jobs[0]["id"]).stdout
    assert json.loads(detrank(home, "jobs", "cancel", jobs[0]["id"], "--json").stdout)["state"] == "succeeded"
    refused = detrank(home, "jobs", "retry", jobs[0]["id"])
    assert refused.returncode == 1
    assert refused.stderr.startswith("Error: ")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("datasets", "add", "/nowhere.zip"), 2, "no such file"),
        (("datasets", "show", "ds_" + "0" * 32), 1, "there is no dataset"),
        (("datasets", "show", "nobody"), 1, "no dataset is called 'nobody'"),
        (("jobs", "list", "--state", "sleeping"), 1, "state"),
        (("rank", "nobody", "nothing"), 1, "no dataset is called 'nobody'"),
        (("checkpoints", "add", "ftp://example.org/x.pth"), 1, "ftp"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    home: Path, words: tuple[str, ...], code: int, says: str
) -> None:
    done = detrank(home, *words)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("Error: ")
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_an_invalid_dataset_fails_with_the_reason(home: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "notes.zip", "w") as archive:
        archive.writestr("notes.txt", "no pictures here")
    done = detrank(home, "datasets", "add", tmp_path / "notes.zip")
    assert done.returncode == 1
    assert "notes cannot be used" in done.stderr


def test_a_service_that_is_not_there_is_named(home: Path) -> None:
    done = detrank(home, "jobs", "list", DETRANK_URL="http://127.0.0.1:9")
    assert done.returncode == 1
    assert "http://127.0.0.1:9 does not answer" in done.stderr


def test_a_second_service_on_the_folder_is_refused(home: Path) -> None:
    done = detrank(home, "serve", "--port", "0")
    assert done.returncode == 2
    assert "already runs" in done.stderr


def test_a_command_starts_a_service_where_none_runs_and_stops_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    done = detrank(home, "jobs", "list", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["items"] == []
    assert "one is started" in done.stderr
    assert find(home) is None
    assert not (home / "service.json").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_service_stops_cleanly(tmp_path: Path, number: int) -> None:
    with serving(tmp_path / "home") as process:
        until(lambda: children(process.pid))
        (worker,) = children(process.pid)
        process.send_signal(number)
        assert process.wait(60) == 0
        assert not alive(worker)
    assert find(tmp_path / "home") is None
    assert "Traceback" not in (tmp_path / "home" / "serve.out").read_text()


def test_a_killed_worker_comes_back_and_a_killed_service_leaves_none(tmp_path: Path, digits: Path) -> None:
    home = tmp_path / "home"
    with serving(home) as process:
        until(lambda: children(process.pid))
        (worker,) = children(process.pid)
        os.kill(worker, signal.SIGKILL)
        until(lambda: [pid for pid in children(process.pid) if pid != worker])
        with Client(find(home)) as service:
            assert (
                service.datasets.wait(service.datasets.add(digits)["id"], timeout_s=120)["state"] == "ready"
            )
        (worker,) = children(process.pid)
        process.kill()
        until(lambda: not alive(worker))
    assert find(home) is None


def test_with_keys_only_a_key_opens(tmp_path: Path) -> None:
    home = tmp_path / "home"
    created = detrank(home, "keys", "create", "me", "--json")
    assert created.returncode == 0, created.stderr
    key = json.loads(created.stdout)
    assert key["key"] not in detrank(home, "keys", "list").stdout
    with serving(home, "--no-worker", "--host", "0.0.0.0", DETRANK_AUTH="keys"):
        refused = detrank(home, "jobs", "list")
        assert refused.returncode == 1
        assert "DETRANK_API_KEY" in refused.stderr
        assert detrank(home, "jobs", "list", DETRANK_API_KEY=key["key"]).returncode == 0
        assert detrank(home, "keys", "revoke", key["id"]).returncode == 0
        assert detrank(home, "jobs", "list", DETRANK_API_KEY=key["key"]).returncode == 1
