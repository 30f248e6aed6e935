"""One prepared check for a machine with a GPU and no network, in under eight minutes: `make gpu-check`.

    python benchmarks/gpu_check.py [--device cuda] [--out gpu-check.txt] [--only PART ...]

device: number formats, a batch, a training step. tests: every test marked `gpu` (metrics on the device against numpy, recovery
from memory that ran out, training). extraction, training: against the plain way and the limit. Each part is a process with
a limit of its own, so that one that breaks leaves the others; all of it goes into one file.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# seconds that each may take: 470 in all
PARTS: dict[str, tuple[int, list[str]]] = {
    "device": (50, ["-m", "worker.device_check", "{device}"]),
    "tests": (150, ["-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "tests"]),
    "extraction": (
        150,
        ["benchmarks/extraction.py", "--quick", "--only", "speed", "--device", "{device}"],
    ),
    "training": (120, ["benchmarks/training.py", "--quick", "--device", "{device}"]),
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path, default=ROOT / "gpu-check.txt")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    asked = parser.parse_args()
    began, failed = time.perf_counter(), []
    with asked.out.open("w", encoding="utf-8") as file:
        for name in asked.only:
            limit, words = PARTS[name]
            command = [sys.executable, *(word.format(device=asked.device) for word in words)]
            ended, said = run(command, limit)
            verdict = f"== {name}: {ended}, {time.perf_counter() - began:.0f} s since the start"
            print(verdict, flush=True)
            file.write(f"{verdict}\n$ {' '.join(command[1:])}\n{said}\n")
            file.flush()
            if ended != "passed":
                failed.append(name)
    print(f"{asked.out}: {'all parts passed' if not failed else 'failed: ' + ', '.join(failed)}")
    return 1 if failed else 0


def run(command: list[str], limit_s: int) -> tuple[str, str]:
    """How it ended, and what it said."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            said, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            said, _ = process.communicate()
            return f"not through after {limit_s} s", said
    return "passed" if process.returncode == 0 else f"exit code {process.returncode}", said


if __name__ == "__main__":
    sys.exit(main())
