import csv
import io

from worker.ranking.order import order
from worker.ranking.records import Candidate, Scored, Target
from worker.ranking.report import as_csv, flat_rows

POOL = [
    Candidate(
        "ckpt_1", "=cmd()", (Scored("logme", "backbone.c4", "local", 0.25),), parameters=10, licence="MIT"
    ),
    Candidate("ckpt_2", "second, with a comma", (Scored("logme", "backbone.c4", "local", 0.5),)),
    Candidate("ckpt_3", "broken", error="no"),
]


def rows() -> list[dict[str, object]]:
    return flat_rows(order(POOL, Target({"a": 200})), POOL)


def test_every_candidate_has_a_row_with_the_same_columns():
    assert [row["id"] for row in rows()] == ["ckpt_2", "ckpt_1", "ckpt_3"]
    assert len({tuple(row) for row in rows()}) == 1
    assert [row["rank"] for row in rows()] == [1, 2, None]
    assert [row["logme@backbone.c4.local"] for row in rows()] == [0.5, 0.25, None]
    assert rows()[2]["left_out"] == "no"


def test_csv_reads_back_and_starts_no_formula():
    read = list(csv.DictReader(io.StringIO(as_csv(rows()), newline="")))
    assert [row["name"] for row in read] == ["second, with a comma", "'=cmd()", "broken"]
    assert float(read[1]["value"]) == 0.25


def test_no_rows_are_an_empty_text():
    assert as_csv([]) == ""
