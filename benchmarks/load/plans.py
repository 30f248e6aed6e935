"""How the database finds the rows of every list and filter among 10^5 jobs, and how long that takes."""

import statistics
import time

from load.rows import Filled
from sqlalchemy import text

from app.db.engine import Database
from app.services.listing import listed
from app.services.workspaces import DEFAULT_WORKSPACE
from tests.query_plans import Asked, every_list, plan, scans

TIMES = 5
# below that reading all of it is as good as any index
SMALL = 1000
SHOWN = 8


def plans(database: Database, filled: Filled) -> bool:
    """Prints the slowest lists; whether none reads a whole table."""
    ids = {
        "dataset_id": filled.dataset,
        "checkpoint_id": filled.checkpoint,
        "ranking_id": filled.ranking,
        "resource_id": filled.verification,
    }
    found = [(_milliseconds(database, asked), asked) for asked in every_list(ids)]
    read_whole = [
        (asked.name, line)
        for _, asked in found
        for line in scans(plan(database, asked, DEFAULT_WORKSPACE, as_it_is=True))
        if _rows(database, line) > SMALL
    ]
    found.sort(key=lambda each: -each[0])
    print(f"{len(found)} lists and filters, {len(read_whole)} read a whole table; the slowest:")
    for milliseconds, asked in found[:SHOWN]:
        print(f"  {milliseconds:7.1f} ms  {asked.name}")
    for name, line in read_whole:
        print(f"  {name}: {line.strip()}")
    return not read_whole


def _milliseconds(database: Database, asked: Asked) -> float:
    seconds = []
    for _ in range(TIMES):
        began = time.perf_counter()
        with database.reading() as session:
            listed(session, DEFAULT_WORKSPACE, asked.listing, asked.query)
        seconds.append(time.perf_counter() - began)
    return 1e3 * statistics.median(seconds)


def _rows(database: Database, line: str) -> int:
    """Of the table that a line of a plan reads."""
    table = line.replace("Parallel ", "").split("Seq Scan on ")[-1].removeprefix("SCAN ").split()[0]
    with database.engine.connect() as connection:
        return connection.execute(text(f'SELECT count(*) FROM "{table}"')).scalar_one()
