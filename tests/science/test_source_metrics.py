"""LEEP and NCE of real detectors, through the real API and a real worker."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.deployments import Deployment, deployment, zipped

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DETECTORS = ("ssdlite_mobilenet_v2_coco", "ssdlite_mobilenet_v2_pedestrian")
BACKBONE = "mobilenet_v2_imagenet_b/mobilenet_v2_features.fp16.safetensors"
PLACE = ("head.class_probabilities", "local")
PATIENCE_S = 240


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Deployment]:
    with deployment(tmp_path / "home") as started:
        yield started


def ranked(client: Any, dataset: dict[str, Any], names: dict[str, str], **asked: Any) -> dict[str, Any]:
    request = {"metrics": ["logme_boxes", "leep", "nce"], "max_images": 24, "seed": 3} | asked
    made = client.rankings.create(dataset["id"], list(names), **request)
    ranking = client.rankings.wait(made["id"], timeout_s=PATIENCE_S)
    assert (ranking["state"], ranking["error"]) == ("succeeded", None), ranking
    return ranking


def by_place(ranking: dict[str, Any], names: dict[str, str]) -> dict[tuple[str, str], dict[str, Any]]:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for candidate in ranking["candidates"]:
        for score in candidate["scores"]:
            key = names[candidate["checkpoint_id"]], score["metric"]
            own = (score["layer"], score["level"]) == PLACE
            assert own == (score["metric"] in ("leep", "nce")), score
            assert key not in found or not own, "once for each candidate, not once for each layer"
            found[key] = score
    return found


def test_leep_and_nce_of_trained_detectors(running: Deployment, tmp_path: Path, shared_data: Path) -> None:
    client = running.client
    assert client is not None
    sets = {}
    for name in ("pennfudan", "bccd"):
        sets[name] = client.datasets.add(
            zipped(shared_data / "datasets" / name, tmp_path / f"{name}.zip"), name=name
        )
    half = {"mean": [0.5] * 3, "std": [0.5] * 3}
    names: dict[str, str] = {}
    for name in DETECTORS:
        (file,) = (shared_data / "weights" / name).glob("*.safetensors")
        names[client.checkpoints.add(file, name=name, **half)["id"]] = name
    names[client.checkpoints.add(shared_data / "weights" / BACKBONE, name="backbone")["id"]] = "backbone"
    for id in names:
        assert client.checkpoints.wait(id, timeout_s=PATIENCE_S)["state"] == "ready"
    for dataset in sets.values():
        assert client.datasets.wait(dataset["id"], timeout_s=PATIENCE_S)["state"] == "ready"

    several = ranked(client, sets["bccd"], names, layers=["backbone.c4", "backbone.c5"], rank_by="leep")
    found = by_place(several, names)
    coco, pedestrian, backbone = (found[name, "leep"] for name in (*DETECTORS, "backbone"))
    # A head of 90 classes that never saw blood cells still sorts them; 90 classes are its width.
    assert coco["undefined"] is None
    assert coco["details"]["dimensions"] == 90
    assert coco["null"]["mean"] < coco["value"] < 0
    assert coco["z"] > 3
    assert coco["interval"][0] < coco["value"] < coco["interval"][1]
    # The best constant guess is the entropy of three classes at most.
    assert coco["null"]["mean"] > -math.log(3) - 0.05
    assert found[DETECTORS[0], "nce"]["value"] < 0
    assert "one class only" in pedestrian["undefined"]
    assert "never trained" in backbone["undefined"]
    assert several["ranked_by"] == {
        "metric": "leep",
        "layer": PLACE[0],
        "level": PLACE[1],
        "quantity": "value",
        "chosen_by": "default rule",
    }
    assert [names[c["checkpoint_id"]] for c in several["candidates"] if c["rank"]] == [DETECTORS[0]]
    assert {names[out["checkpoint_id"]]: out["code"] for out in several["left_out"]} == {
        DETECTORS[1]: "undefined",
        "backbone": "undefined",
    }

    one = ranked(client, sets["pennfudan"], names, layers=["backbone.c4"])
    found = by_place(one, names)
    # With one category nothing is to be told apart, whoever looks; the boxes still rank all three.
    assert "only one class" in found[DETECTORS[0], "leep"]["undefined"]
    assert "only one class" in found[DETECTORS[0], "nce"]["undefined"]
    assert "one class only" in found[DETECTORS[1], "leep"]["undefined"]
    assert one["ranked_by"]["metric"] == "logme_boxes"
    assert sorted(c["rank"] for c in one["candidates"]) == [1, 2, 3]
