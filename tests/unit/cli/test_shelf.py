"""The shelf: what is on it, what filters take of it, and that its figures name their source."""

import pytest

from app.cli.commands.shelf import FromShelf
from app.cli.session import Failed
from app.services.catalogue import catalogue
from app.services.shelf import PERMISSIVE, ShelfFilters, choose, families


def test_there_are_forty_and_more_of_many_families_with_their_sources():
    rows = catalogue()["shelf"]
    assert len(rows) >= 40
    assert len({row["name"] for row in rows}) == len(rows)
    assert len(families()) >= 10
    assert all(row["licence"] and row["source"] and row["parameters"] > 1_000_000 for row in rows)
    assert all(row["coco_ap"] is None or 15 < row["coco_ap"] < 70 for row in rows)
    assert all((row["coco_ap"] is None) == (row["kind"] == "backbone") for row in rows)


def test_the_best_published_is_first_and_backbones_are_last():
    found = [row["coco_ap"] for row in choose(ShelfFilters())]
    known = [ap for ap in found if ap is not None]
    assert known == sorted(known, reverse=True)
    assert found[: len(known)] == known
    # people only: no figure over COCO's classes
    assert not any("keypoint" in row["name"] for row in catalogue()["shelf"])


def test_filters_take_what_they_say():
    free = choose(ShelfFilters(licence="permissive"))
    assert {row["licence"].lower() for row in free} <= PERMISSIVE
    assert len(free) < len(choose(ShelfFilters()))
    assert {row["licence"] for row in choose(ShelfFilters(licence="mit"))} == {"mit"}
    small = choose(ShelfFilters(max_parameters=12_000_000, kind="detector"))
    assert small
    assert all(row["parameters"] <= 12_000_000 and row["kind"] == "detector" for row in small)
    assert {row["family"] for row in choose(ShelfFilters(families=("d_fine", "yolos")))} == {
        "d_fine",
        "yolos",
    }
    assert choose(ShelfFilters(families=("none such",))) == []


def test_the_budget_passes_over_what_is_too_large_and_goes_on():
    found = choose(ShelfFilters(gigabytes=0.2, count=3))
    assert len(found) == 3
    assert sum(row["bytes"] for row in found) <= 0.2e9
    everything = choose(ShelfFilters())
    assert found[0] != everything[0]
    assert [row for row in everything if row in found] == found


def test_filters_without_the_shelf_are_refused():
    assert FromShelf().filters()["count"] == 8
    with pytest.raises(Failed, match="--shelf"):
        FromShelf(licence="permissive").filters()
    assert FromShelf(shelf=True, families="d_fine,yolos").filters()["families"] == ["d_fine", "yolos"]
