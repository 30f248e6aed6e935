"""Dockerfile, docker-compose.yml, Makefile and .ci/run, as far as reading can tell."""

import re
import stat
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from app.cli.main import build
from app.settings import Settings
from tests.compose import interpolated

ROOT = Path(__file__).resolve().parents[3]
GPU = tuple(f"worker-gpu-{card}" for card in range(4))
OURS = ("api", "worker-cpu", *GPU, "migrate")


@pytest.fixture(scope="module")
def compose() -> dict:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


@pytest.fixture(scope="module")
def dockerfile() -> list[str]:
    text = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text())
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def words(value: str) -> str:
    """A value of the compose file with its defaults filled in."""
    return interpolated(value, {})


def test_every_process_is_there(compose: dict) -> None:
    assert set(compose["services"]) == {*OURS, "postgres", "redis"}


@pytest.mark.parametrize("name", OURS)
def test_a_service_runs_a_command_that_exists_with_options_that_exist(compose: dict, name: str) -> None:
    command, *arguments = [words(word) for word in compose["services"][name]["command"]]
    found = get_command(build()).commands[command]
    # a Context is made from the arguments or the command line is wrong
    parsed = found.make_context(command, arguments, resilient_parsing=False)
    assert parsed.params is not None


@pytest.mark.parametrize("name", OURS)
def test_what_is_configured_is_a_setting(compose: dict, name: str) -> None:
    environment = compose["services"][name]["environment"]
    assert {"DETRANK_DATABASE_URL", "DETRANK_BROKER_URL"} <= set(environment)
    assert {key.removeprefix("DETRANK_").lower() for key in environment} <= set(Settings.model_fields)
    assert words(environment["DETRANK_AUTH"]) == "keys"


def test_images_name_settings_too(dockerfile: list[str]) -> None:
    names = re.findall(r"DETRANK_([A-Z_]+)=", "\n".join(dockerfile))
    assert names
    assert {name.lower() for name in names} <= set(Settings.model_fields)


def test_every_queue_is_served_without_a_gpu_and_with_one(compose: dict) -> None:
    assert words(compose["services"]["worker-cpu"]["command"][-1]) == "cpu,long,gpu"
    for name in GPU:
        assert compose["services"][name]["command"] == ["worker", "--queues", "gpu"]


def test_redis_keeps_what_it_was_told(compose: dict) -> None:
    command = compose["services"]["redis"]["command"]
    assert command[command.index("--appendonly") + 1] == "yes"
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"
    assert any(volume.endswith(":/data") for volume in compose["services"]["redis"]["volumes"])


def test_the_schema_is_there_before_anyone_uses_it(compose: dict) -> None:
    for name in ("api", "worker-cpu", *GPU):
        assert compose["services"][name]["depends_on"]["migrate"] == {
            "condition": "service_completed_successfully"
        }
    assert compose["services"]["migrate"]["restart"] == "on-failure"


def test_volumes_are_declared_and_nothing_is_open_to_the_network(compose: dict) -> None:
    used = {
        volume.split(":")[0]
        for service in compose["services"].values()
        for volume in service.get("volumes", [])
    }
    assert used == set(compose["volumes"])
    ports = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_image_has_stages_a_user_and_a_health_check(dockerfile: list[str]) -> None:
    starts = [index for index, line in enumerate(dockerfile) if line.startswith("FROM ")]
    assert len(starts) == 2
    final = dockerfile[starts[-1] :]
    (user,) = [line.split()[1] for line in final if line.startswith("USER ")]
    assert user.isdigit()
    assert int(user) > 0
    assert not [
        line for line in final[final.index(f"USER {user}") :] if line.startswith(("RUN", "COPY", "ADD"))
    ]
    assert [line for line in final if line.startswith("HEALTHCHECK ") and "/healthz" in line]


def test_the_image_starts_a_command_that_exists(dockerfile: list[str]) -> None:
    (start,) = [yaml.safe_load(line.split(maxsplit=1)[1]) for line in dockerfile if line.startswith("CMD ")]
    assert 'ENTRYPOINT ["detrank"]' in dockerfile
    get_command(build()).commands[start[0]].make_context(start[0], start[1:])


def test_what_is_copied_exists_and_is_let_through(dockerfile: list[str]) -> None:
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    sources = [
        word
        for line in dockerfile
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    ]
    assert sources
    for source in sources:
        assert (ROOT / source).exists()
        assert f"!{source}" in ignore


def test_ci_runs_the_tests_with_the_services() -> None:
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & stat.S_IXUSR
    text = script.read_text()
    assert "DETRANK_REQUIRE_SERVICES=1" in text
    assert re.search(r"make .*test", text)


def test_make_has_both_commands() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {"demo", "test", "lint"} <= set(targets)
