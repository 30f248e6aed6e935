"""A dataset in the categories of another one."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.squares import squares
from worker.data.dataset import open_dataset
from worker.data.ingest import ingest
from worker.data.restated import content_of, restated


def test_categories_go_by_name_and_other_objects_are_gone(tmp_path: Path) -> None:
    ingest(squares(tmp_path / "raw", images=3), tmp_path / "set", seed=0)
    own = replace(open_dataset(tmp_path / "set"), ignored=np.zeros(18, bool))
    ids = [image.id for image in own.images if image.split == "val"]
    found = restated(own, ("green", "blue"), ids)
    assert found.categories == ("green", "blue")
    assert {image.split for image in found.images} == {"test"}
    assert [image.id for image in found.images] == ids
    assert set(found.labels.tolist()) == {1}
    assert len(found.labels) == len(found.boxes) == len(found.ignored) == len(ids)
    rows = np.isin(own.annotation_ids, found.annotation_ids)
    assert {own.categories[label] for label in own.labels[rows].tolist()} == {"blue"}
    assert len(restated(own, ("green",), ids).labels) == 0
    assert len(set(content_of(own).values())) == len(own.images)
