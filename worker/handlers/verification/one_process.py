"""One of several processes that train together for a job: `torchrun ... -m worker.handlers.verification.one_process JOB.json`.

It ends with the worker that started it, and leaves what the library refuses where that worker reads it.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

from worker.attempt import EXIT_ABANDONED
from worker.training import distributed
from worker.training.errors import TrainingDiverged, Untrainable

LOOK_S = 1.0


def end_with(worker_pid: int) -> None:
    """From a thread: this process goes when the worker is gone, however that ended."""
    while True:
        try:
            os.kill(worker_pid, 0)
        except ProcessLookupError:
            os._exit(EXIT_ABANDONED)
        time.sleep(LOOK_S)


def main(path: str) -> int:
    job = json.loads(Path(path).read_text(encoding="utf-8"))
    threading.Thread(target=end_with, args=(job["worker_pid"],), daemon=True).start()
    try:
        return distributed.main([path])
    except (Untrainable, TrainingDiverged) as refusal:
        if os.environ.get("RANK", "0") == "0":
            Path(job["refusal"]).write_text(
                json.dumps({"code": refusal.code, "detail": refusal.detail}), encoding="utf-8"
            )
        return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
