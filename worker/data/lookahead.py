"""Do slow work in threads, a bounded number of items ahead, and hand the results out in order."""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], *, threads: int, ahead: int
) -> Generator[Result]:
    """Yield work(item) for every item, in order; at most `ahead` results are computed or waiting at any moment.

    The first exception of `work` is raised at its place; what has not started by then is never run.
    """
    if threads < 1 or ahead < 1:
        raise ValueError(f"threads and ahead must be at least 1, got {threads} and {ahead}")
    pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="decode")
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
