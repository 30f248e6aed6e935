"""What every table is made of."""

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, String
from sqlalchemy.orm import DeclarativeBase

from app.db.types import Json, UtcDateTime

Id = String(48)
Sha256 = String(64)
# SQLite counts upwards by itself only for INTEGER
BigId = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: UtcDateTime, dict[str, Any]: Json, list[Any]: Json}  # noqa: RUF012


def listing_indexes(table: str, *filters: str) -> tuple[Index, ...]:
    """Those of a list in the order of ids, whole and with each filter that asks for an equal column.

    With `id` at the end the rows of a page are the first that an index has: none is read in vain, nothing is sorted.
    """
    return (
        Index(f"ix_{table}_listing", "workspace_id", "id"),
        *(Index(f"ix_{table}_by_{name}", "workspace_id", name, "id") for name in filters),
    )


# marks a column of [{"sha256": ...}]: files in storage that stay as long as the row names them
STORED_FILES = {"stored_files": True}


def columns_that_name_blobs() -> tuple[list[Column[Any]], list[Column[Any]]]:
    """(columns with the digest of a stored file, columns with a list of such files), of all tables."""
    columns = [column for table in Base.metadata.sorted_tables for column in table.columns]
    digests = [
        column
        for column in columns
        if any(key.target_fullname == "blob.sha256" for key in column.foreign_keys)
    ]
    return digests, [column for column in columns if "stored_files" in column.info]
