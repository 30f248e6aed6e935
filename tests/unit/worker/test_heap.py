"""Freed memory stays with a process that computes, and goes back when it rests."""

import ctypes
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from worker import heap

glibc = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="needs glibc")

# Blocks of 48 MB, as large feature maps are, one after the other: how many pages the kernel made for all after the first.
BLOCKS = """
import ctypes, json, resource, sys
from worker import heap
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
kept = sys.argv[1] == "kept" and heap.keep_freed()

def made():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

def block():
    place = libc.malloc(48 << 20)
    libc.memset(place, 1, 48 << 20)
    libc.free(place)

block()
before = made()
for _ in range(10):
    block()
after = resident()
heap.give_back()
print(json.dumps({"kept": kept, "pages": made() - before, "held": after, "given_back": after - resident()}))
"""


def blocks(how: str) -> dict[str, int]:
    told = subprocess.run(
        [sys.executable, "-c", BLOCKS, how],
        capture_output=True,
        check=True,
        cwd=Path(__file__).parents[3],
    )
    return json.loads(told.stdout)


@glibc
def test_blocks_are_used_again_and_given_back_when_asked_for():
    plain, kept = blocks("plain"), blocks("kept")
    assert (plain["kept"], kept["kept"]) == (False, True)
    assert kept["pages"] < plain["pages"] / 10
    assert kept["given_back"] > 40 << 20, "what nothing uses any longer went back to the system"


def test_a_process_at_rest_gives_back_and_one_that_works_again_does_not(monkeypatch):
    given, timers = [], []

    class Timer(SimpleNamespace):
        def __init__(self, seconds, action):
            super().__init__(seconds=seconds, action=action, cancelled=False, daemon=False)
            timers.append(self)

        def start(self):
            assert self.daemon, "a process that is done would wait for it"

        def cancel(self):
            self.cancelled = True

    monkeypatch.setattr(heap, "_resting", None)
    monkeypatch.setattr(heap.threading, "Timer", Timer)
    monkeypatch.setattr(heap, "give_back", lambda: given.append(1))
    with heap.at_work():
        assert not timers
    with heap.at_work():
        assert timers[0].cancelled
    assert [timer.cancelled for timer in timers] == [True, False]
    assert timers[1].seconds == heap.REST_S


def test_elsewhere_than_with_glibc_nothing_happens(monkeypatch):
    monkeypatch.setattr(heap, "_of_libc", lambda name: None)
    heap.keep_freed.cache_clear()
    try:
        assert heap.keep_freed() is False
        heap.give_back()
    finally:
        heap.keep_freed.cache_clear()
