"""Keeping a child alive, and not leaving one behind. Real processes, tiny ones."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.embedded import supervisor as module
from app.embedded.supervisor import Supervisor

OBEDIENT = "import sys; open(sys.argv[1], 'a').write('start\\n'); sys.stdin.read()"
STUBBORN = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open(sys.argv[1], 'a').write('start\\n'); time.sleep(60)"
WITH_CHILD = (
    "import subprocess, sys, time; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
    "open(sys.argv[1], 'a').write(f'{p.pid}\\n'); time.sleep(60)"
)


def until(true: Callable[[], bool]) -> None:
    limit = time.monotonic() + 20
    while not true():
        assert time.monotonic() < limit, "did not happen"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """Whether the process has ended; one that nobody has reaped yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    (tmp_path / "notes").touch()
    return tmp_path / "notes"


@pytest.fixture
def supervised(notes: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Supervisor]]:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.05)
    made: list[Supervisor] = []

    def start(code: str) -> Supervisor:
        made.append(Supervisor([sys.executable, "-c", code, str(notes)]))
        made[-1].start()
        until(lambda: bool(notes.read_text()))
        return made[-1]

    yield start
    for one in made:
        one.stop(0.1)


def test_a_killed_child_is_started_again(supervised: Callable[[str], Supervisor], notes: Path) -> None:
    supervisor = supervised(OBEDIENT)
    first = supervisor.pid
    os.kill(first, signal.SIGKILL)
    until(lambda: notes.read_text().count("start") == 2)
    assert supervisor.pid != first
    assert supervisor.starts == 2


def test_what_a_killed_child_started_goes_with_it(
    supervised: Callable[[str], Supervisor], notes: Path
) -> None:
    supervisor = supervised(WITH_CHILD)
    until(lambda: notes.read_text().endswith("\n"))
    grandchild = int(notes.read_text().split()[0])
    os.kill(supervisor.pid, signal.SIGKILL)
    until(lambda: gone(grandchild))


@pytest.mark.parametrize("code", [OBEDIENT, STUBBORN])
def test_stopping_ends_the_child_for_good(
    supervised: Callable[[str], Supervisor], notes: Path, code: str
) -> None:
    supervisor = supervised(code)
    child = supervisor.pid
    supervisor.stop(0.5)
    assert gone(child)
    assert supervisor.starts == 1


def test_a_child_that_never_works_is_tried_more_and_more_slowly(
    supervised: Callable[[str], Supervisor], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(module, "LONGEST_PAUSE_S", 0.2)
    monkeypatch.setattr(module.log, "error", lambda _text, _code, pause: waits.append(pause))
    supervised("import sys; open(sys.argv[1], 'a').write('start\\n'); sys.exit(3)")
    until(lambda: len(waits) >= 4)
    assert waits[:4] == [0.05, 0.1, 0.2, 0.2]


def test_a_worker_told_to_ends_with_whoever_started_it() -> None:
    code = "import threading, time; from app.embedded.supervisor import stop_when_stdin_closes as f; threading.Thread(target=f).start(); print('up', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"up\n"
    process.stdin.close()
    assert process.wait(20) == -signal.SIGTERM
    process.stdout.close()


def test_a_worker_that_nobody_wants_is_not_started_and_stays_once_it_was(notes: Path) -> None:
    asked: list[bool] = []
    wanted = threading.Event()

    def is_wanted() -> bool:
        asked.append(wanted.is_set())
        return wanted.is_set()

    supervisor = Supervisor([sys.executable, "-c", OBEDIENT, str(notes)], is_wanted)
    supervisor.start()
    until(lambda: len(asked) > 2)
    assert (supervisor.starts, supervisor.pid) == (0, None)
    wanted.set()
    until(lambda: bool(notes.read_text()))
    wanted.clear()
    before = len(asked)
    time.sleep(3 * module.LOOK_S)
    assert (supervisor.starts, len(asked)) == (1, before)
    supervisor.stop(0.5)


def test_a_worker_that_was_never_wanted_stops_at_once(notes: Path) -> None:
    supervisor = Supervisor([sys.executable, "-c", OBEDIENT, str(notes)], lambda: False)
    supervisor.start()
    supervisor.stop()
    assert not notes.read_text()
