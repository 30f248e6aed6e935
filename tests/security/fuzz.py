"""Coverage-guided fuzzing of every reader and recogniser: `python -m tests.security.fuzz --seconds 60`.

Each target of targets.py gets its share of the seconds in a process of its own, by atheris. What ends one in any other way than
by a refusal, takes more than 20 s or 4 GB is kept in the folder --found; put it into tests/security/found, as TARGET-anything,
and test_found.py plays it ever after.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TARGETS = ("readers", "pictures", "archives", "checkpoints", "recognisers")
INSTRUMENTED = ["app.storage", "worker.data", "models_store.conversion", "models_store.formats"]
INSTRUMENTED += ["models_store.archives", "models_store.inspect", "models_store.numpy_pickle", "zipfile"]
ONE_INPUT_S = 20.0
# to import and instrument everything, and for a last long input
START_S = 300
MEMORY_MB = 4096


def main() -> int:
    asked = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    asked.add_argument("--seconds", type=int, default=60, help="of all targets together")
    asked.add_argument("--target", choices=TARGETS, action="append", help="default: all of them")
    asked.add_argument("--seed", type=int, default=1)
    asked.add_argument("--found", type=Path, default=Path(tempfile.gettempdir()) / "detrank-found")
    asked.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = asked.parse_args()
    given.found.mkdir(parents=True, exist_ok=True)
    targets = given.target or TARGETS
    if given.here:
        _fuzz(targets[0], given.seconds, given.seed, given.found)
        return 0
    wrong = 0
    for target in targets:
        seconds = max(1, given.seconds // len(targets))
        command = [sys.executable, "-m", "tests.security.fuzz", "--here", "--target", target]
        command += ["--seconds", str(seconds), "--seed", str(given.seed), "--found", str(given.found)]
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=seconds + START_S,
            )
        except subprocess.TimeoutExpired:
            wrong += 1
            sys.stdout.write(
                f"{target}: still at work; {given.found / f'{target}-last'} has its last input\n"
            )
            continue
        lines = (done.stdout + done.stderr).splitlines()
        counts = [line for line in lines if line.startswith("Done ")]
        if done.returncode:
            wrong += 1
            told = [line for line in lines if not line.startswith(("#", "INFO"))]
            sys.stdout.write(f"{target}: exit code {done.returncode}\n" + "\n".join(told[-60:]) + "\n")
        else:
            sys.stdout.write(f"{target}: {counts[-1] if counts else 'nothing was run'}\n")
    return min(wrong, 1)


def _fuzz(target: str, seconds: int, seed: int, found: Path) -> None:
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
        from tests.security import targets

    with tempfile.TemporaryDirectory() as corpus:
        for number, content in enumerate(targets.seeds(target)):
            (Path(corpus) / str(number)).write_bytes(content)
        # its own alarm, after half of the timeout, ends the process without a word: one that never comes
        options = [f"-max_total_time={seconds}", f"-seed={seed}", "-timeout=100000", "-max_len=20000"]
        options += [f"-rss_limit_mb={MEMORY_MB}", f"-artifact_prefix={found}/{target}-"]

        def timed(data: bytes) -> None:
            (found / f"{target}-last").write_bytes(data)
            began = time.process_time()  # the machine may have other things to do
            targets.TARGETS[target](data)
            taken = time.process_time() - began
            assert taken < ONE_INPUT_S, f"it took {taken:.1f} s"

        # what is imported at the first call, and the outlines of networks that an unknown one is held against, are not the input's
        targets.TARGETS[target](next(targets.seeds(target)))
        if target in ("checkpoints", "recognisers"):
            targets.recognisers(b"a.weight 4 4\nb.bias 4")
        atheris.Setup([sys.argv[0], *options, corpus], timed)
        atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
