"""More games than the tests play: python -m tests.properties.play MACHINE SEED GAMES [POSTGRES_URL]

MACHINE is work, job or verified. A game that fails is printed as it was played.
"""

import sys
import tempfile
from pathlib import Path

from app.db.engine import Database
from tests.properties import test_job_machine, test_verified_ranking_machine, test_work_machine
from tests.queue_records import lasting_postgres

MACHINES = {
    "work": test_work_machine,
    "job": test_job_machine,
    "verified": test_verified_ranking_machine,
}


def main(name: str, seed: str, games: str, url: str | None = None) -> None:
    made = MACHINES[name].machine
    with tempfile.TemporaryDirectory() as folder:
        databases = (
            lasting_postgres(url, f"play_{name}_{seed}")
            if url
            else [Database(f"sqlite:///{Path(folder) / 'detrank.db'}")]
        )
        for database in databases:
            test_job_machine.play(made(database), examples=int(games), steps=40, seed=int(seed))
    sys.stdout.write(f"{games} games of {name} with seed {seed}: every rule held\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
