"""What a command loads: talking to a service needs no science, no web server and no database."""

import subprocess
import sys

import pytest

HEAVY = (
    "torch",
    "torchvision",
    "timm",
    "transformers",
    "numpy",
    "scipy",
    "sklearn",
    "matplotlib",
    "fastapi",
    "uvicorn",
    "sqlalchemy",
    "celery",
)


@pytest.mark.parametrize(
    "words", [["--help"], ["jobs", "list", "--help"], ["metrics", "score", "--help"], ["rank", "--help"]]
)
def test_a_command_loads_nothing_heavy_before_it_runs(words: list[str]) -> None:
    code = f"import sys; from app.cli.main import build; build()({words!r}, standalone_mode=False); sys.exit(','.join(set({HEAVY!r}) & set(sys.modules)) or None)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage" in done.stdout
