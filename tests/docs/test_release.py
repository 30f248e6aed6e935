"""What a release is made of: the wheel has everything, and its client works where nothing but httpx is installed."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_the_wheel_is_whole_and_its_client_needs_httpx_alone(tmp_path: Path) -> None:
    dist = tmp_path / "dist"
    environment = os.environ | {"DIST": str(dist), "PYTHON": sys.executable}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [ROOT / "scripts" / "build"], env=environment, capture_output=True, text=True, timeout=500
    )
    if "No matching distribution found for httpx" in done.stderr:
        pytest.skip("no package registry to install httpx from")
    assert done.returncode == 0, done.stderr
    assert "the client works alone" in done.stdout
    (wheel,) = dist.glob("*.whl")
    assert list(dist.glob("*.tar.gz"))
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if name.startswith(("tests/", "scripts/", "docs/", "benchmarks/"))]
    assert any(name.endswith("LICENSE") for name in names)
    assert not (ROOT / "build").exists()
