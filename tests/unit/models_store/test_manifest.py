import json
import subprocess
import sys

import pytest

from models_store.manifest import Input, Layer, Manifest

MANIFEST = Manifest(
    architecture="torchvision/ssd300_vgg16",
    format="torchvision_detection",
    kind="detector",
    input=Input(fixed_size=(300, 200), mean=(0.1, 0.2, 0.3)),
    layers=(Layer("backbone.c3", 8, 512, "map", True), Layer("neck.roi", None, 256, "vector", False)),
    parameters=7,
    source={"uri": "x.pth", "sha256": "ab", "size": 1},
    weights_sha256="cd",
    num_classes=2,
    class_names=("a", "b"),
    dropped_keys=("fc.weight",),
    notes=("said",),
)


def test_json_and_back_is_the_same():
    assert Manifest.from_json(MANIFEST.to_json()) == MANIFEST
    assert Manifest.from_json(json.dumps(MANIFEST.to_json())) == MANIFEST


def test_json_holds_only_plain_values():
    assert json.loads(json.dumps(MANIFEST.to_json())) == MANIFEST.to_json()


def test_file_and_back_is_the_same(tmp_path):
    MANIFEST.write(tmp_path)
    assert Manifest.read(tmp_path) == MANIFEST
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_another_schema_is_refused():
    with pytest.raises(ValueError, match="convert the checkpoint again"):
        Manifest.from_json(MANIFEST.to_json() | {"schema": 99})


def test_manifest_convert_and_fetch_come_without_torch():
    code = "import models_store, sys; models_store.convert, models_store.fetch; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names_stay_functions_whatever_is_imported_first():
    code = "import models_store.fetch, models_store; assert callable(models_store.fetch) and callable(models_store.load_detector)"
    subprocess.run([sys.executable, "-c", code], check=True)
