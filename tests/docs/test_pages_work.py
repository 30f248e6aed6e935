"""Whatever the documentation says to type is typed, page after page, against a service of its own; and the notebook is run."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torchvision

from detrank import Client
from detrank.embedded import started
from tests.docs.snippets import ROOT, Block, blocks, without_comment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

# in the order in which somebody reads them: each may use what an earlier one made
PAGES = [
    "docs/tutorial.md",
    "docs/how-to/own-checkpoint.md",
    "docs/how-to/budget.md",
    "docs/verifications.md",
    "docs/rest.md",
    "docs/python.md",
    "docs/how-to/own-data.md",
    "docs/scores.md",
    "docs/how-to/gpu.md",
]
# what a block that is not run here would have made, by the words that name it
IDS = re.compile(r"\b(ds|ckpt|rk|job)_\.\.\.")


class Reader:
    """Somebody in a folder with a dataset, two files of weights and a service, who types."""

    def __init__(self, folder: Path, home: Path, url: str) -> None:
        self.folder, self.url = folder, url
        here = Path(sys.executable).parent
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("DETRANK_")
        } | {
            "DETRANK_URL": url,
            "DETRANK_DATA_DIR": str(home),
            "PATH": f"{here}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
        }

    def types(self, command: str) -> str:
        typed = self.with_ids(without_comment(command).replace("http://127.0.0.1:8000", self.url))
        if typed.startswith("curl "):
            typed = typed.replace("curl ", "curl --silent --show-error --fail-with-body --max-time 200 ", 1)
        done = subprocess.run(
            ["bash", "-c", typed],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=400,
        )
        assert done.returncode == 0, f"{typed}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def runs(self, code: str) -> None:
        file = self.folder / "page.py"
        file.write_text(code)
        self.types(f"{sys.executable} page.py")

    def with_ids(self, command: str) -> str:
        """The ids of the newest things in place of `ds_...`."""
        if not IDS.search(command):
            return command
        with Client(self.url) as service:
            lists = {
                "ds": service.datasets,
                "ckpt": service.checkpoints,
                "rk": service.rankings,
                "job": service.jobs,
            }
            newest = {prefix: next(resource.list(limit=1)).id for prefix, resource in lists.items()}  # type: ignore[attr-defined]
        return IDS.sub(lambda found: newest[found[1]], command)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    folder = tmp_path / "folder"
    folder.mkdir()
    with started(tmp_path / "home", {"DETRANK_MIN_FREE_DISK_BYTES": "0"}) as url:
        reader = Reader(folder, tmp_path / "home", url)
        reader.types("detrank datasets synth small.zip --style scenes --train 30 --test 10")
        zipfile.ZipFile(folder / "small.zip").extractall(folder / "my_folder")
        for name, build in (("my_detector", "squeezenet1_1"), ("weights", "mobilenet_v2")):
            torch.manual_seed(0)
            torch.save(torchvision.models.get_model(build).state_dict(), folder / f"{name}.pth")
        shutil.copy(ROOT / "tests" / "data" / "metrics_many.npz", folder / "features.npz")
        reader.types("detrank checkpoints add my_detector.pth --name lite0")
        reader.types("detrank checkpoints add weights.pth --name mobilenet")
        yield reader
    shutil.rmtree(tmp_path)


def test_every_page_can_be_followed(reader: Reader) -> None:
    for page in PAGES:
        code = ""
        for block in blocks(ROOT / page):
            if block.needs:
                continue
            for command in block.commands:
                reader.types(command)
            if block.language == "python":
                code += block.text
        if code:
            reader.runs(code)


def test_the_first_ranking_of_the_readme(reader: Reader) -> None:
    run: list[Block] = [block for block in blocks(ROOT / "README.md") if not block.needs]
    for block in run:
        for command in block.commands:
            if not command.startswith("make "):
                reader.types(command)
        if block.language == "python":
            reader.runs(block.text)


def test_the_notebook_runs(reader: Reader) -> None:
    for name, file in {
        "digits.zip": "small.zip",
        "mobilenet.pth": "weights.pth",
        "squeezenet.pth": "my_detector.pth",
    }.items():
        shutil.copy(reader.folder / file, reader.folder / name)
    notebook = ROOT / "docs" / "notebook.ipynb"
    reader.types(f"{sys.executable} {ROOT / 'scripts' / 'notebook.py'} {notebook} out.ipynb")
    cells = {
        number: cell["outputs"]
        for number, cell in enumerate(json.loads((reader.folder / "out.ipynb").read_text())["cells"])
        if cell["cell_type"] == "code"
    }
    kept = json.loads(notebook.read_text())["cells"]
    # the same kinds of output as those that are shown in docs/
    assert {
        number: [sorted(one.get("data", [one["output_type"]])) for one in outputs]
        for number, outputs in cells.items()
    } == {
        number: [sorted(one.get("data", [one["output_type"]])) for one in kept[number]["outputs"]]
        for number in cells
    }
    assert "<table>" in cells[2][0]["data"]["text/html"]
    assert "<svg" in cells[2][0]["data"]["text/html"]
    assert "did you mean logme?" in cells[11][0]["text"]
