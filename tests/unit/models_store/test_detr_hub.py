"""A whole transformers repository by name, against a hub that is a folder."""

import importlib
import json
import zipfile
from pathlib import Path

import huggingface_hub
import pytest
from detr_configs import random_detr
from huggingface_hub.errors import LocalEntryNotFoundError

from models_store import Unusable, fetch
from models_store.inspect import inspect

COMMIT = "b" * 40


class RemoteEntryNotFoundError(OSError):
    """As the hub's client names it; its own needs a response to be made."""


class Hub:
    def __init__(self, root: Path) -> None:
        self.folder = root / "snapshots" / COMMIT
        self.folder.mkdir(parents=True)
        self.asked: list[tuple[str, str, str | None]] = []
        self.broken_after: int | None = None

    def download(self, repository: str, member: str, revision: str | None = None) -> str:
        self.asked.append((repository, member, revision))
        if self.broken_after is not None and len(self.asked) > self.broken_after:
            raise LocalEntryNotFoundError("cannot reach the hub")
        path = self.folder / member
        if not path.is_file():
            raise RemoteEntryNotFoundError(f"404: {member}")
        return str(path)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch) -> Hub:
    made = Hub(tmp_path / "hub")
    random_detr("detr").save_pretrained(made.folder)
    (made.folder / "modeling_mine.py").write_text("raise SystemExit")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", made.download)
    monkeypatch.setattr(importlib.import_module("models_store.fetch"), "why_unreachable", lambda url: None)
    return made


def test_a_repository_becomes_one_file_of_one_commit(hub: Hub, tmp_path: Path) -> None:
    (hub.folder / "preprocessor_config.json").write_text(json.dumps({"size": 64}))
    found = fetch("hf://org/my-detr@main", tmp_path / "in")
    assert inspect(found.path).container == "archive"
    with zipfile.ZipFile(found.path) as archive:
        assert sorted(archive.namelist()) == ["config.json", "model.safetensors", "preprocessor_config.json"]
    assert found.provenance["revision"] == COMMIT
    assert hub.asked[0] == ("org/my-detr", "config.json", "main")
    assert {revision for _, _, revision in hub.asked[1:]} == {COMMIT}
    again = fetch("hf://org/my-detr", tmp_path / "again")
    assert again.sha256 == found.sha256


def test_of_a_model_that_words_are_asked_of_the_tokenizer_comes_too(hub: Hub, tmp_path: Path) -> None:
    for name in ("tokenizer.json", "vocab.txt", "processor_config.json"):
        (hub.folder / name).write_text("{}")
    (hub.folder / "vocab.pickle").write_text("no file of ours")
    plain = fetch("hf://org/my-detr", tmp_path / "plain")
    assert ("org/my-detr", "tokenizer.json", COMMIT) not in hub.asked
    (hub.folder / "config.json").write_text(json.dumps({"model_type": "grounding-dino"}))
    words = fetch("hf://org/my-words", tmp_path / "words")
    names = {path: sorted(zipfile.ZipFile(path).namelist()) for path in (plain.path, words.path)}
    assert names[plain.path] == ["config.json", "model.safetensors"]
    beside = ["processor_config.json", "tokenizer.json", "vocab.txt"]
    assert names[words.path] == ["config.json", "model.safetensors", *beside]


def test_the_parts_of_a_split_repository(hub: Hub, tmp_path: Path) -> None:
    whole = hub.folder / "model.safetensors"
    whole.rename(hub.folder / "model-00001.safetensors")
    index = {"weight_map": {"a": "model-00001.safetensors"}}
    (hub.folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with zipfile.ZipFile(fetch("hf://org/repo", tmp_path / "in").path) as archive:
        assert "model-00001.safetensors" in archive.namelist()


def test_a_repository_without_a_config_is_not_found(hub: Hub, tmp_path: Path) -> None:
    (hub.folder / "config.json").unlink()
    with pytest.raises(Unusable) as refusal:
        fetch("hf://org/repo", tmp_path / "in")
    assert refusal.value.code == "not_found"


def test_a_lost_connection_is_no_missing_preprocessor(hub: Hub, tmp_path: Path) -> None:
    hub.broken_after = 1
    with pytest.raises(Unusable) as refusal:
        fetch("hf://org/repo", tmp_path / "in")
    assert refusal.value.code == "unreachable"
    assert list((tmp_path / "in").iterdir()) == []


def test_without_network_the_hubs_own_cache_serves(tmp_path: Path, monkeypatch) -> None:
    """The real client's folders, as an earlier download left them; a repository that is not there is said at once."""
    home = tmp_path / "cache"
    repository = home / "models--org--my-detr"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    random_detr("detr").save_pretrained(snapshot)
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(home))
    found = fetch("hf://org/my-detr", tmp_path / "in")
    assert inspect(found.path).container == "archive"
    assert found.provenance["revision"] == COMMIT
    with pytest.raises(Unusable, match="not in the hub's cache") as refusal:
        fetch("hf://org/other", tmp_path / "in")
    assert refusal.value.code == "offline"
