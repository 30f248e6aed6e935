"""What the files for operators say: the Kubernetes example by the schemas of Kubernetes, Compose by its own rules."""

from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from app.queue.kinds import QUEUES
from app.settings import Settings
from tests.compose import ROOT, in_order, interpolated, services

MANIFESTS = sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))
SET = {"POSTGRES_PASSWORD": "secret"}


def documents(path: Path) -> list[dict]:
    return list(yaml.safe_load_all(path.read_text()))


ALL = {(each["kind"], each["metadata"]["name"]): each for path in MANIFESTS for each in documents(path)}


@pytest.mark.parametrize("version", ["1.28", "1.33"])
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_are_valid(path: Path, version: str) -> None:
    for document in documents(path):
        kubernetes_validate.validate(document, version, strict=True)


def test_a_deployment_works_on_each_queue_and_what_scales_them_is_there() -> None:
    workers = [name for kind, name in ALL if kind == "Deployment" and "worker" in name]
    queues = [
        ALL["Deployment", name]["spec"]["template"]["spec"]["containers"][0]["args"][-1] for name in workers
    ]
    assert sorted(queues) == sorted(QUEUES)
    for (kind, _), document in ALL.items():
        if kind == "HorizontalPodAutoscaler":
            target = document["spec"]["scaleTargetRef"]
            assert (target["kind"], target["name"]) in ALL
            assert document["spec"]["metrics"][0]["external"]["metric"]["name"] == "detrank_queue_jobs"
        if kind == "Deployment":
            spec = document["spec"]
            assert spec["selector"]["matchLabels"].items() <= spec["template"]["metadata"]["labels"].items()
            sources = [
                next(iter(each.values()))["name"]
                for each in spec["template"]["spec"]["containers"][0]["envFrom"]
            ]
            assert {("ConfigMap", name) for name in sources} <= set(ALL)
    known = {f"DETRANK_{name.upper()}" for name in Settings.model_fields}
    given = ALL["ConfigMap", "detrank"]["data"] | ALL["Secret", "detrank"]["stringData"]
    assert {name for name in given if name.startswith("DETRANK_")} <= known


def test_compose_starts_in_order_and_asks_postgres_over_tcp() -> None:
    found = services(SET)
    order = in_order(found, set())
    assert order.index("postgres") < order.index("migrate") < order.index("api")
    assert order.index("redis") < order.index("worker-cpu")
    assert "-h" in found["postgres"]["healthcheck"]["test"]
    assert found["migrate"]["restart"] == "on-failure"
    assert found["migrate"]["command"][:2] == ["migrate", "--wait"]
    with pytest.raises(KeyError, match="password"):
        services({})


def test_every_setting_reaches_every_container() -> None:
    for name, service in services(SET).items():
        if service.get("image") == "detrank":
            assert service["env_file"] == [{"path": "detrank.env", "required": False}], name
    own = services(SET | {"DETRANK_STORAGE_URL": "s3://bucket", "DETRANK_AUTH": "none"})["worker-cpu"]
    assert own["environment"]["DETRANK_STORAGE_URL"] == "s3://bucket"
    assert services(SET)["api"]["environment"]["DETRANK_DATABASE_URL"].endswith(
        "detrank:secret@postgres/detrank"
    )


@pytest.mark.parametrize(("profile", "cards"), [("gpu", 1), ("gpu2", 2), ("gpu4", 4)])
def test_workers_for_gpus_have_different_ones(profile: str, cards: int) -> None:
    found = services(SET)
    started = [name for name in in_order(found, {profile}) if "gpu" in name]
    ids = [
        device["device_ids"]
        for name in started
        for device in found[name]["deploy"]["resources"]["reservations"]["devices"]
    ]
    assert ids == [[str(card)] for card in range(cards)]
    assert not [name for name in in_order(found, set()) if "gpu" in name]


def test_variables_are_filled_in_as_compose_does() -> None:
    assert interpolated("a ${B:-c${D:-e}} $$", {"D": "f"}) == "a cf $$"
    assert interpolated("${B:-c}${B}", {"B": "x"}) == "xx"
