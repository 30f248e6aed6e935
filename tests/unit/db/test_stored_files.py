"""Tidying finds every column that names a file in storage: one that is forgotten loses files after a day."""

from sqlalchemy import JSON

from app.db.base import columns_that_name_blobs
from app.db.tables import Base

# lists that name no file in storage
WITHOUT_FILES = {
    "candidate.warnings",
    "subset.image_ids",
    "subset.annotation_ids",
    "verification.curves",
    "pretraining.curves",
    "pseudo_labelling.curves",
    "search.rungs",
    "webhook.events",
    "worker.queues",
}


def name(column) -> str:
    return f"{column.table.name}.{column.name}"


def test_every_digest_of_a_file_refers_to_the_file():
    digests, _ = columns_that_name_blobs()
    for table in Base.metadata.sorted_tables:
        for column in table.columns:
            if "sha256" in column.name and name(column) != "blob.sha256":
                assert column in digests, (
                    f"{name(column)} has no foreign key: its file would be deleted after a day"
                )
    assert {"ranking.plot_sha256", "verification.state_sha256", "upload.sha256"} <= set(map(name, digests))


def test_every_list_says_whether_it_names_files():
    _, lists = columns_that_name_blobs()
    mappers = {mapper.local_table.name: mapper for mapper in Base.registry.mappers}
    for table in Base.metadata.sorted_tables:
        hints = mappers[table.name].class_.__annotations__
        for column in table.columns:
            if isinstance(column.type, JSON) and "list" in str(hints.get(column.name)):
                assert (column in lists) != (name(column) in WITHOUT_FILES), (
                    f"{name(column)}: mark it with info=STORED_FILES, or name it here"
                )
    assert set(map(name, lists)) == {
        "dataset.previews",
        "verification.pictures",
        "verification.plots",
        "pretraining.pictures",
        "pretraining.plots",
        "pseudo_labelling.pictures",
        "pseudo_labelling.plots",
        "study.files",
    }
