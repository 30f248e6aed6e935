"""Clients that others make of the document run a ranking: of Python (openapi-python-client) and of TypeScript.

The generator of the latter comes by `npm install --no-package-lock` in tests/clients.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torchvision

from app.main import create_app
from app.settings import Settings
from detrank import Client
from detrank.embedded import started
from tests.deployments import zipped
from tests.squares import squares

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]

CLIENTS = Path(__file__).resolve().parents[1] / "clients"
TOOLS = CLIENTS / "node_modules" / ".bin"
PATIENCE_S = 200


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("document") / "openapi.json"
    path.write_text(json.dumps(create_app(Settings(data_dir=path.parent)).openapi()))
    return path


@pytest.fixture(scope="module")
def ranked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """URL of a service with its workers, and ids of a dataset and of two checkpoints that are ready."""
    folder = tmp_path_factory.mktemp("service")
    with started(folder / "home", {"DETRANK_MIN_FREE_DISK_BYTES": "0"}) as url, Client(url) as client:
        dataset = client.datasets.add(zipped(squares(folder / "set"), folder / "set.zip"), name="squares")
        checkpoints = []
        for seed in range(2):
            torch.manual_seed(seed)
            torch.save(torchvision.models.mobilenet_v2().state_dict(), folder / f"{seed}.pth")
            checkpoints.append(client.checkpoints.add(folder / f"{seed}.pth", name=str(seed)))
        assert client.datasets.wait(dataset["id"], timeout_s=PATIENCE_S)["state"] == "ready"
        for record in checkpoints:
            assert client.checkpoints.wait(record["id"], timeout_s=PATIENCE_S)["state"] == "ready"
        yield [url, dataset["id"], *(record["id"] for record in checkpoints)]


def run(*command: object, **environment: str) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_client_made_for_python(document: Path, ranked: list[str], tmp_path: Path) -> None:
    if importlib.util.find_spec("openapi_python_client") is None:
        pytest.skip("openapi-python-client is not installed; it is in the extra `test`")
    made = tmp_path / "generated"
    options = ("--path", document, "--output-path", made, "--meta", "none")
    warned = run(sys.executable, "-m", "openapi_python_client", "generate", *options)
    order = run(sys.executable, CLIENTS / "rank.py", *ranked, PYTHONPATH=str(tmp_path))
    assert sorted(order.split()) == sorted(ranked[2:])
    assert "rankings" not in warned, "an operation on rankings could not be made"


def test_the_client_made_for_typescript(document: Path, ranked: list[str], tmp_path: Path) -> None:
    if shutil.which("node") is None or not (TOOLS / "openapi-ts").exists():
        pytest.skip("needs Node.js and `npm install --no-package-lock` in tests/clients")
    made = tmp_path / "made"
    run(TOOLS / "openapi-ts", "-i", document, "-o", made, "-c", "@hey-api/client-fetch")
    # its own types hold what it is given and what it gives back
    run(
        TOOLS / "tsc",
        "--noEmit",
        "--strict",
        "--skipLibCheck",
        "--target",
        "es2022",
        "--module",
        "preserve",
        "--moduleResolution",
        "bundler",
        made / "index.ts",
    )
    order = run(TOOLS / "tsx", CLIENTS / "rank.ts", made, *ranked)
    assert sorted(order.split()) == sorted(ranked[2:])
