"""How many threads the linear algebra takes: those of the machine only where the matrices are large enough to gain by them.

Handing work to a thread and waiting for it costs some microseconds, as long as a whole product of small matrices takes, and on
cores that something else uses a thread waits for its turn besides. PyTorch's threads, which read the pictures, stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController

# rows or columns of a square matrix, from which a reduction of it gains by a second thread
LARGE = 512


@contextmanager
def threads_for(size: int) -> Iterator[None]:
    """Runs the block, in which square matrices have `size` rows at most, with as many BLAS threads as do not slow it."""
    if size >= LARGE:
        yield
        return
    with _controller().limit(limits=1, user_api="blas"):
        yield


@cache
def _controller() -> ThreadpoolController:
    # finds the libraries that are loaded; those of numpy and scipy are by whoever imports this
    return ThreadpoolController()
