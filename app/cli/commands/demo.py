"""`detrank demo`"""

import os
import shutil
import time
from pathlib import Path
from typing import Annotated

import typer

from app.cli.demo import run as showcase
from app.cli.session import Failed, note, say, use_data_dir
from app.cli.show.rankings import show_ranking
from detrank import Client
from detrank.embedded import find, started

ELSEWHERE = ("DETRANK_DATABASE_URL", "DETRANK_BROKER_URL", "DETRANK_STORAGE_URL", "DETRANK_AUTH")


def demo(
    dataset: Annotated[
        Path | None, typer.Option(exists=True, help="your own archive or folder in place of the digits")
    ] = None,
    target: Annotated[Path, typer.Option(file_okay=False, help="where the results go")] = Path("demo"),
) -> None:
    """Rank real checkpoints on real data with a service of its own; a table, and files to look at."""
    began = time.monotonic()
    target = target.absolute()
    home = target / ".data"
    if find(home):
        raise Failed(f"another demo runs in {target}")
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    for name in ELSEWHERE:
        os.environ.pop(name, None)
    use_data_dir(home)
    with started(home) as url, Client(url) as client:
        note(f"service: {url}   data: {home}")
        ranking = showcase.run(client, target, dataset)
        show_ranking(ranking)
        if ranking["state"] != "succeeded":
            raise Failed(f"the ranking {ranking['state']}; see {home}/service.log")
        for file in showcase.write_results(client, ranking, target):
            say(str(file))
    say(showcase.shares(ranking, began))
    note(f"every figure of it: detrank --data-dir {home} rankings show {ranking['id']} --wide")
