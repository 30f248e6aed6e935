"""`--priority` of every command that queues work, and the field of every form: they reach the jobs."""

import json
from pathlib import Path

import pytest
import test_pretrainings
import test_pseudo_labellings
from running import Workspace, small_zip
from typer.testing import CliRunner

from app.cli.main import build

FORMS = (
    "datasets",
    "checkpoints",
    "rankings",
    "verifications",
    "searches",
    "studies",
    "pretrainings",
    "pseudo-labellings",
)


def words_of(space: Workspace, command: str, folder: Path) -> list[str]:
    """The command with what it needs, of things that are ready."""
    match command:
        case "datasets" | "checkpoints":
            file = folder / "set.zip"
            file.write_bytes(small_zip())
            return [command, "add", str(file)]
        case "pretrain":
            encoder = test_pretrainings.checkpoint(space)
            words = [
                test_pretrainings.dataset(space),
                "--architecture",
                "deformable_detr",
                "--encoder",
                encoder,
            ]
            return ["pretrain", *words]
        case "pseudo-label":
            teacher = test_pseudo_labellings.detector(space)
            return ["pseudo-label", test_pseudo_labellings.dataset(space), "--detector", teacher]
    dataset, first, second, third = (space.dataset(), *(space.checkpoint(name=str(n)) for n in range(3)))
    match command:
        case "rank":
            return ["rank", dataset, first, second]
        case "verify":
            return ["verify", dataset, first]
        case "search":
            return ["search", dataset, first, second, "--minutes", "5"]
    return ["study", "run", "-d", dataset, "-c", first, "-c", second, "-c", third]


@pytest.mark.parametrize("service", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    "command", ["datasets", "checkpoints", "rank", "verify", "search", "study", "pretrain", "pseudo-label"]
)
def test_a_command_gives_its_jobs_the_priority(space: Workspace, command: str, tmp_path: Path) -> None:
    words = [*words_of(space, command, tmp_path), "--priority", "-3", "--no-wait", "--json"]
    done = CliRunner().invoke(build(), ["--url", space.service.url, "--key", space.key, *words])
    assert done.exit_code == 0, done.output
    made = json.loads(done.stdout)
    jobs = [space.http.get(f"/v1/jobs/{made['job_id']}").json()]
    jobs += space.http.get("/v1/jobs", params={"resource_id": made["id"]}).json()["items"]
    assert {job["priority"] for job in jobs} == {-3}


@pytest.mark.parametrize("service", ["sqlite"], indirect=True)
@pytest.mark.parametrize("kind", FORMS)
def test_a_form_has_a_field_for_it(space: Workspace, kind: str) -> None:
    space.dataset()
    space.checkpoint()
    page = space.http.get(f"/{kind}/new", headers={"Accept": "text/html"}).text
    (field,) = [line for line in page.splitlines() if 'name="priority"' in line]
    assert 'data-type="number"' in field
