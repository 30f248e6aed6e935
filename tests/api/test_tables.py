"""What a spreadsheet would run as a formula is text in every table that the service writes."""

import csv
import io

import pytest
from running import Workspace

from app.db.tables import Search
from app.services.spreadsheet import as_csv

FORMULA = '=HYPERLINK("http://example.org")'


def read(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, ""), ("", ""), (-0.5, "-0.5"), ("-1+1", "'-1+1"), ("a=b", "a=b"), ("@x", "'@x"), ("\tx", "'\tx")],
)
def test_a_cell(value: object, shown: str) -> None:
    text = as_csv(["kept"], [{"kept": value, "left": 1}])
    assert read(text) == [{"kept": shown}]
    assert text.startswith("kept\r\n")


def test_names_of_candidates_in_the_table_of_a_search(space: Workspace) -> None:
    dataset, candidate = space.dataset(), space.checkpoint(name=FORMULA)
    body = {"dataset_id": dataset, "checkpoint_ids": [candidate], "budget_minutes": 30}
    made = space.http.post("/v1/searches", json=body).raise_for_status().json()
    part = {
        "checkpoint_id": candidate,
        "verification_id": "vf_0",
        "job_id": None,
        "state": "queued",
        "begin": 0,
        "stop": 20,
        "iterations": None,
        "map": None,
        "ap50": None,
        "predicted_s": 5.0,
        "seconds": None,
        "error": {"detail": FORMULA},
    }
    about = {"kind": "round", "rung": 0, "stop": 20, "left_s": 60.0, "predicted_s": 5.0, "seconds": None}
    with space.service.database.unit_of_work() as session:
        session.get_one(Search, made["id"]).rounds = [about | {"parts": [part]}]
    (row,) = read(space.http.get(f"/v1/searches/{made['id']}.csv").text)
    assert (row["name"], row["error"]) == (f"'{FORMULA}", f"'{FORMULA}")
