"""How much memory the API takes while files of 2 GiB arrive, as a body and as a resumable upload."""

import threading
from collections.abc import Iterator

import httpx
from load.callers import memory_mb, peak_memory_mb

SIZE = 2 << 30
CHUNK = b"detrank!" * (1 << 16)
GOAL_MB = 150


def upload_memory(url: str, pid: int) -> bool:
    """Prints the most that the process had; whether that stays under GOAL_MB."""
    before = memory_mb(pid)
    failures: list[BaseException] = []

    def send(how) -> None:
        try:
            with httpx.Client(base_url=url, timeout=600) as http:
                how(http)
        except BaseException as failure:
            failures.append(failure)

    both = [threading.Thread(target=send, args=(how,)) for how in (_as_body, _resumable)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert not failures, failures
    peak = peak_memory_mb(pid)
    print(f"two uploads of 2 GiB at once: {before:.0f} MB before, {peak:.0f} MB at most (goal {GOAL_MB})")
    return peak < GOAL_MB


def _bytes() -> Iterator[bytes]:
    for _ in range(SIZE // len(CHUNK)):
        yield CHUNK


def _as_body(http: httpx.Client) -> None:
    headers = {"Content-Length": str(SIZE), "Content-Type": "application/octet-stream"}
    answer = http.post("/v1/checkpoints", content=_bytes(), headers=headers)
    assert answer.status_code == 202, answer.text


def _resumable(http: httpx.Client) -> None:
    headers = {"Tus-Resumable": "1.0.0", "Upload-Length": str(SIZE)}
    made = http.post("/v1/uploads", headers=headers)
    assert made.status_code == 201, made.text
    headers = {
        "Tus-Resumable": "1.0.0",
        "Upload-Offset": "0",
        "Content-Type": "application/offset+octet-stream",
        "Content-Length": str(SIZE),
    }
    sent = http.patch(made.headers["Location"], content=_bytes(), headers=headers)
    assert sent.status_code == 204, sent.text
