"""Tasks of a study: in order, once, over processes, and not again when done."""

import ctypes
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from worker import heap
from worker.studies.files import read_json, write_json
from worker.studies.runs.parallel import Task, carry_out, with_eta


def note(done: Path, needs: Path | None = None) -> None:
    assert needs is None or needs.exists(), "begun before what it needs"
    write_json(done, {"pid": os.getpid(), "threads": torch.get_num_threads(), "at": time.time()})


def fail(done: Path) -> None:
    raise ValueError(f"cannot write {done.name}")


def chain(folder: Path) -> list[Task]:
    """b and c need a; d needs both. Given in the wrong order."""
    file = {name: folder / f"{name}.json" for name in "abcd"}
    return [
        Task("d", note, (file["d"], file["c"]), file["d"], ("b", "c")),
        Task("c", note, (file["c"], file["a"]), file["c"], ("a",)),
        Task("b", note, (file["b"], file["a"]), file["b"], ("a",)),
        Task("a", note, (file["a"],), file["a"]),
    ]


STAY: list[bytearray] = []


def fill_and_free(done: Path) -> None:
    """200 MB in blocks that the allocator keeps, for a few between them stay."""
    blocks = [bytearray(b"x" * 64_000) for _ in range(3000)]
    STAY.extend([*blocks[::100], blocks[-1]])
    del blocks
    write_json(done, {"megabytes": resident_mb()})


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def quiet(done, total, message):
    pass


@pytest.mark.parametrize("workers", [1, 2])
def test_each_task_runs_once_after_what_it_needs(tmp_path, workers):
    told = []
    carry_out(chain(tmp_path), workers, lambda done, total, message: told.append((done, total, message)))
    assert told[0] == (0, 4, "what is done already")
    assert [done for done, _, _ in told] == [0, 1, 2, 3, 4]
    assert [told[1][2], told[4][2]] == ["a", "d"]
    results = {name: read_json(tmp_path / f"{name}.json") for name in "abcd"}
    if workers > 1:
        assert os.getpid() not in {each["pid"] for each in results.values()}
        assert {each["threads"] for each in results.values()} == {1}
    before = {name: (tmp_path / f"{name}.json").stat().st_mtime_ns for name in "abcd"}
    (tmp_path / "d.json").unlink()
    carry_out(chain(tmp_path), 1, quiet)
    after = {name: (tmp_path / f"{name}.json").stat().st_mtime_ns for name in "abcd"}
    assert [name for name in "abcd" if after[name] != before[name]] == ["d"], "what is done is not done again"


def test_a_failure_stops_and_keeps_what_is_done(tmp_path):
    tasks = chain(tmp_path)
    broken = [
        Task("c", fail, (tmp_path / "c.json",), tmp_path / "c.json", ("a",)),
        *(t for t in tasks if t.name != "c"),
    ]
    with pytest.raises(ValueError, match=r"cannot write c\.json"):
        carry_out(broken, 2, quiet)
    assert (tmp_path / "a.json").exists()
    assert not (tmp_path / "d.json").exists()
    carry_out(tasks, 1, quiet)
    assert (tmp_path / "d.json").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_task_that_waits_for_nobody_is_an_error(tmp_path, workers):
    with pytest.raises(ValueError, match="waits for a task that is not there"):
        carry_out([Task("x", note, (tmp_path / "x",), tmp_path / "x", ("nobody",))], workers, quiet)


def test_check_may_stop(tmp_path):
    calls = []

    def check():
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        carry_out(chain(tmp_path), 1, quiet, check)
    assert (tmp_path / "a.json").exists()
    assert not (tmp_path / "d.json").exists()


def test_the_rest_of_the_time_is_told():
    said = []
    progress = with_eta(said.append)
    progress(2, 4, "what is done already")
    progress(3, 4, "a model")
    assert said[0] == "2 of 4 tasks are done already"
    assert said[1].startswith("3/4  a model  (0.0 min, about 0 to go)")


def test_results_are_whole_and_finite(tmp_path):
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "x.json", {"map": float("nan")})
    assert not (tmp_path / "x.json").exists()


def sleep_long(begun: Path) -> None:
    write_json(begun, {"pid": os.getpid()})
    time.sleep(120)


KILLED = """
from collections.abc import Callable
from pathlib import Path
from tests.unit.studies.{module} import sleep_long
from worker.studies.runs.parallel import Task, carry_out
if __name__ == "__main__":
    folder = Path({folder!r})
    carry_out([Task("a", sleep_long, (folder / "begun.json",), folder / "done.json")], 2, print)
"""


def test_processes_end_with_one_that_was_killed(tmp_path):
    root = Path(__file__).parents[3]
    (tmp_path / "parent.py").write_text(KILLED.format(module=Path(__file__).stem, folder=str(tmp_path)))
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "parent.py"], env={**os.environ, "PYTHONPATH": str(root)}
    )
    try:
        wait_until(lambda: (tmp_path / "begun.json").exists())
    finally:
        parent.kill()
        parent.wait()
    child = read_json(tmp_path / "begun.json")["pid"]
    wait_until(lambda: not is_running(child), seconds=10)


def is_running(pid: int) -> bool:
    try:
        # an orphan that has ended may wait as a zombie for an init that never asks
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc")
def test_what_a_task_freed_is_given_back_to_the_system(tmp_path: Path) -> None:
    heap.give_back()  # what other tests freed would serve these blocks
    before = resident_mb()
    carry_out([Task("a", fill_and_free, (tmp_path / "a.json",), tmp_path / "a.json")], 1, quiet)
    assert read_json(tmp_path / "a.json")["megabytes"] > before + 100, "freed, and kept by the allocator"
    assert resident_mb() < before + 50
