"""Tasks in an order that respects what they need, over several processes; what is done is not done again."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from worker import heap

Progress = Callable[[int, int, str], None]
# Before numpy and torch are loaded in a process, these decide how many threads it starts.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Task:
    """`function(*arguments)` writes the file `done` last, by rename; with that file the task is done.

    function: importable by its module and name, arguments: picklable. after: names of tasks to be done before.
    """

    name: str
    function: Callable[..., None]
    arguments: tuple[Any, ...]
    done: Path
    after: tuple[str, ...] = ()


def carry_out(
    tasks: Sequence[Task], workers: int, progress: Progress, check: Callable[[], None] = lambda: None
) -> None:
    """Run all that is not done yet, `workers` at once with one thread each; with one worker in this process.

    Two small trainings side by side use two cores better than one training with two threads. `check` is called between
    tasks, at least once a second, and may raise to stop. What a task raises stops everything; a later call goes on.
    """
    finished = {task.name for task in tasks if task.done.exists()}
    waiting = [task for task in tasks if task.name not in finished]
    progress(len(finished), len(tasks), "what is done already")
    if workers == 1:
        for task in _in_order(waiting, finished):
            check()
            _run(task.function, task.arguments)
            finished.add(task.name)
            progress(len(finished), len(tasks), task.name)
        return
    with _single_threads(), _pool(workers) as pool:
        running: dict[Future[None], Task] = {}
        while waiting or running:
            check()
            ready = [task for task in waiting if set(task.after) <= finished]
            if not ready and not running:
                raise ValueError(f"{waiting[0].name} waits for a task that is not there: {waiting[0].after}")
            for task in ready[: workers - len(running)]:
                waiting.remove(task)
                running[pool.submit(_run, task.function, task.arguments)] = task
            for future in wait(running, timeout=1.0, return_when=FIRST_COMPLETED).done:
                task = running.pop(future)
                future.result()
                finished.add(task.name)
                progress(len(finished), len(tasks), task.name)


def with_eta(say: Callable[[str], None]) -> Progress:
    """A Progress that says each task in a line, with the time that the rest will take at the pace so far."""
    begin, first = time.monotonic(), [0]

    def progress(done: int, total: int, message: str) -> None:
        if message == "what is done already":
            first[0] = done
            say(f"{done} of {total} tasks are done already" if done else f"{total} tasks")
            return
        spent = time.monotonic() - begin
        left = spent / max(done - first[0], 1) * (total - done)
        say(f"{done}/{total}  {message}  ({spent / 60:.1f} min, about {left / 60:.0f} to go)")

    return progress


def _in_order(waiting: Sequence[Task], finished: set[str]) -> Iterator[Task]:
    left = list(waiting)
    while left:
        task = next((t for t in left if set(t.after) <= finished), None)
        if task is None:
            raise ValueError(f"{left[0].name} waits for a task that is not there: {left[0].after}")
        left.remove(task)
        yield task


def _run(function: Callable[..., None], arguments: Sequence[Any]) -> None:
    heap.keep_freed()
    function(*arguments)
    heap.give_back()


@contextlib.contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    pool = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_one_thread
    )
    try:
        yield pool
    except BaseException:
        # what has not begun is dropped, what runs would otherwise be waited for
        processes = list((pool._processes or {}).values())
        pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()
        raise
    pool.shutdown()


@contextlib.contextmanager
def _single_threads() -> Iterator[None]:
    """Processes started within inherit it."""
    kept = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _one_thread() -> None:
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed can tell its processes nothing: they would train on for nobody."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
