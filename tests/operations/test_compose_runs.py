"""Dockerfile and docker-compose.yml, their commands run in their order on this machine: no engine is needed to know that they work.

The image is built in a folder: what is copied is copied, what is run is run with its paths below that folder; packages come from
this environment instead of an index. Postgres and Redis are started here, later than what waits for them.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.compose import ROOT, in_order, instructions, services, words
from tests.faults.servers import NoServer, Postgres, Redis, free_port
from tests.faults.works import archive

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def built(root: Path) -> dict[str, str]:
    """The image in `root`; the environment of its last stage, with what ENTRYPOINT, CMD and HEALTHCHECK are."""
    stages: dict[str, Path] = {}
    environment = {"PATH": os.environ["PATH"], "HOME": str(root)}
    here, place = root, "/"
    said: dict[str, str] = {}
    for name, rest in instructions():
        match name:
            case "FROM":
                here, place = root / f"stage{len(stages)}", "/"
                here.mkdir(parents=True)
                stages[rest.split(" AS ")[-1]] = here
            case "ENV":
                for pair in rest.split():
                    key, _, value = pair.partition("=")
                    value = value.replace("$PATH", environment["PATH"]).replace("/opt", f"{here}/opt")
                    environment[key] = value.replace("/data", f"{here}/data") if value == "/data" else value
            case "WORKDIR":
                place = rest
                (here / place.lstrip("/")).mkdir(parents=True, exist_ok=True)
            case "COPY":
                _copy(rest, here, place, stages)
            case "RUN":
                _run(rest, here, place, environment)
            case "ENTRYPOINT" | "CMD" | "HEALTHCHECK":
                said[name] = rest
    return environment | said


def _copy(rest: str, here: Path, place: str, stages: dict[str, Path]) -> None:
    given = rest.split()
    source = ROOT
    if given[0].startswith("--from="):
        source = stages[given.pop(0).partition("=")[2]]
    *froms, to = given
    target = here / (to if to.startswith("/") else f"{place}/{to}").lstrip("/")
    for each in froms:
        path = source / each.lstrip("/")
        if path.is_dir():
            shutil.copytree(path, target, dirs_exist_ok=True, symlinks=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)


def _run(rest: str, here: Path, place: str, environment: dict[str, str]) -> None:
    command = rest.replace("/opt/", f"{here}/opt/").replace(" /data", f" {here}/data")
    if command.startswith("useradd"):
        # a user of the image, not of this machine
        command = f"install -d {here}/data"
    if "-m venv" in command:
        command = command.replace("python", sys.executable, 1)
    # what is in this environment is not fetched again
    own = environment | {"PIP_NO_DEPS": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_NO_INDEX": "1"}
    done = subprocess.run(
        command,
        shell=True,
        check=False,
        cwd=here / place.lstrip("/"),
        env=own,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    if "-m venv" in command:
        library = next((here / "opt/detrank/lib").glob("python*/site-packages"))
        # the build asks for a newer one than came with this Python
        for old in library.glob("setuptools*"):
            shutil.rmtree(old)
        (library / "this-environment.pth").write_text(sysconfig.get_path("purelib") + "\n")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    root = tmp_path_factory.mktemp("image")
    yield built(root)
    shutil.rmtree(root, ignore_errors=True)


def test_the_services_of_compose_start_at_the_first_try(image: dict[str, str], tmp_path: Path) -> None:
    found = services({"POSTGRES_PASSWORD": "secret"})
    assert words(image["ENTRYPOINT"]) == ["detrank"]
    port, database_port, processes = free_port(), free_port(), []
    try:
        redis = Redis()
        # refuses whoever asks before it is there
        address = f"postgresql+psycopg://postgres@127.0.0.1:{database_port}/postgres"
        environment = {name: value for name, value in image.items() if name.isupper() and "[" not in value}
        environment |= {
            "DETRANK_AUTH": "keys",
            "DETRANK_BROKER_URL": redis.url,
            "DETRANK_DATABASE_URL": address,
        }
        environment |= {
            "DETRANK_DATA_DIR": str(tmp_path / "data"),
            "DETRANK_MIN_FREE_DISK_BYTES": "0",
            "OMP_NUM_THREADS": "1",
        }
        program = str(
            next(
                Path(each) / "detrank"
                for each in image["PATH"].split(":")
                if (Path(each) / "detrank").exists()
            )
        )

        def started(name: str) -> subprocess.Popen[bytes]:
            command = [
                str(port) if word == "8000" else word.replace("0.0.0.0", "127.0.0.1")
                for word in found[name]["command"]
            ]
            with (tmp_path / f"{name}.log").open("wb") as log:
                process = subprocess.Popen(
                    [program, *command], env=environment, stdout=log, stderr=log, start_new_session=True
                )
            processes.append(process)
            return process

        postgres: list[Postgres] = []
        late = threading.Thread(target=lambda: (time.sleep(3), postgres.append(Postgres(database_port))))
        late.start()
        order = [name for name in in_order(found, set()) if found[name].get("image") == "detrank"]
        assert order[0] == "migrate"
        assert started("migrate").wait(180) == 0, (tmp_path / "migrate.log").read_text()
        late.join()
        for name in order[1:]:
            started(name)
        key = subprocess.run(
            [program, "keys", "create", "me"], env=environment, capture_output=True, text=True, check=True
        )
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            headers={"Authorization": f"Bearer {key.stdout.strip()}"},
            timeout=30,
        ) as http:
            _until(lambda: http.get("/healthz").is_success)
            made = (
                http.post("/v1/datasets", params={"name": "set"}, content=archive(0))
                .raise_for_status()
                .json()
            )
            _until(lambda: http.get(f"/v1/datasets/{made['id']}").json()["state"] == "ready")
        # the checks of the image and of the workers
        python = f"{Path(program).parent}/python"
        healthy = words(image["HEALTHCHECK"].partition("CMD ")[2])
        healthy = [python if word == "python" else word.replace(":8000", f":{port}") for word in healthy]
        subprocess.run(healthy, env=environment, check=True)
        check = [program, *found["worker-cpu"]["healthcheck"]["test"][2:]]
        subprocess.run(check, env=environment, check=True)
        processes[-1].terminate()
        processes[-1].wait(60)
        assert subprocess.run(check, env=environment, capture_output=True, check=False).returncode == 1
    except NoServer as missing:
        pytest.skip(str(missing))
    finally:
        for process in processes:
            process.terminate()
            process.wait(60)
        for server in (*postgres, redis):
            server.stop()


def _until(true, patience_s: float = 180.0) -> None:
    give_up = time.monotonic() + patience_s
    while True:
        try:
            if true():
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < give_up
        time.sleep(0.3)
