"""Lists read the rows that they show, not the table: held by the plans of both databases."""

from pathlib import Path

import pytest

from app.db import migrate
from app.db.engine import Database
from app.main import create_app
from app.settings import Settings
from tests.query_plans import LISTS, OF_ALL, every_list, plan, scans

# no index finds a part of a name, or the rows up to a number in another order: the workspace's own are walked
WALKED = {
    ("checkpoint", "name"),
    ("checkpoint", "max_parameters"),
    ("checkpoint", "licence"),
    ("dataset", "name"),
}
# the rows of others lead to them
BY_OTHERS = {("ranking", "checkpoint_id"), ("search", "checkpoint_id"), ("study", "dataset_id")}


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    url = f"sqlite:///{tmp_path_factory.mktemp('plans') / 'detrank.db'}"
    if request.param == "postgres":
        url = request.getfixturevalue("lasting_postgres_url")
    migrate.upgrade(url)
    made = Database(url)
    yield made
    made.dispose()


def test_every_list_is_looked_at(tmp_path: Path) -> None:
    paths = create_app(Settings(data_dir=tmp_path)).openapi()["paths"]
    lists = [
        path
        for path, operations in paths.items()
        if "created_after" in {one["name"] for one in operations.get("get", {}).get("parameters", [])}
    ]
    assert len(lists) == len(LISTS) + len(OF_ALL) + len(("/v1/keys", "/v1/workspaces"))


@pytest.mark.parametrize("asked", list(every_list()), ids=lambda asked: asked.name)
def test_no_list_reads_a_whole_table(database: Database, asked) -> None:
    lines = plan(database, asked, "ws_default")
    assert scans(lines) == [], lines
    table = asked.listing.table.__tablename__
    if (
        database.engine.dialect.name == "sqlite"
        and asked.filter
        and (table, asked.filter) not in WALKED | BY_OTHERS
    ):
        assert any(f"{asked.filter}=?" in line for line in lines), lines
        assert not any("TEMP B-TREE" in line for line in lines) or table == "job", lines
