"""Whether what stands in JSON columns is what app/db/documents says."""

from collections.abc import Iterator, Sequence
from typing import Any, cast, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import documents, tables
from app.db.tables import Base
from app.db.types import Json

# of these the columns hold more than what is computed with
PARTIAL: tuple[Any, ...] = (
    documents.DatasetSummary,
    documents.Evaluation,
    documents.InputOfCheckpoint,
    documents.LayerOfCheckpoint,
    documents.Manifest,
)
for document in PARTIAL:
    document.__pydantic_config__ = ConfigDict(extra="allow")


def typed_columns() -> Iterator[tuple[Any, str, TypeAdapter[Any]]]:
    """(table class, column, adapter) of every column that holds a document."""
    for mapper in Base.registry.mappers:
        if mapper.local_table.name not in Base.metadata.tables:
            continue  # a test's own table, taken away again: its class may live on for a while
        hints = get_type_hints(mapper.class_, vars(tables))
        for name, column in mapper.columns.items():
            if isinstance(column.type, type(Json)):
                (kind,) = hints[name].__args__
                yield mapper.class_, name, TypeAdapter(kind)


def misfits(session: Session) -> list[str]:
    """What does not fit, a line for each; empty where everything does. An unknown key does not fit either."""
    found = []
    for table, name, adapter in typed_columns():
        for value in session.scalars(select(getattr(table, name))):
            try:
                kept = adapter.validate_python(value, strict=True)
            except ValidationError as failure:
                found.append(f"{table.__name__}.{name}: {failure}")
                continue
            if kept != value:
                found.append(
                    f"{table.__name__}.{name} has keys that no document names: {_beyond(value, kept)}"
                )
    return found


def _beyond(value: Any, kept: Any) -> str:
    if isinstance(value, dict) and isinstance(kept, dict):
        return ", ".join(
            name if name not in kept else f"{name}.({_beyond(value[name], kept[name])})"
            for name in value
            if name not in kept or value[name] != kept[name]
        )
    if isinstance(value, list):
        return next((_beyond(one, other) for one, other in zip(value, kept, strict=True) if one != other), "")
    return f"{value!r} is {kept!r}"


def ranking_result(checkpoint_ids: Sequence[str], **own: Any) -> documents.RankingResult:
    """As the `rank` job leaves it, the candidates in this order and nothing said of them."""
    whole: dict[str, Any] = {
        "order_by": "score",
        "ranked_by": None,
        "order": [
            {
                "checkpoint_id": id,
                "name": id,
                "rank": rank,
                "value": None,
                "z": None,
                "interval": None,
                "near": [],
                "static_ranks": {},
            }
            for rank, id in enumerate(checkpoint_ids, 1)
        ],
        "summary": None,
        "ties": [],
        "left_out": [],
        "warnings": [],
        "baselines": {},
    }
    return cast(documents.RankingResult, whole | own)


def search_result(budget_s: float = 60.0, **own: Any) -> documents.SearchResult:
    """As the `search` job leaves it, with nothing found yet."""
    whole: dict[str, Any] = {
        "names": {},
        "spent": {
            "budget_s": budget_s,
            "ranking_s": 0.0,
            "training_s": 0.0,
            "total_s": 0.0,
            "left_s": budget_s,
        },
        "best": None,
        "brute_force": None,
        "left_out": [],
        "warnings": [],
    }
    return cast(documents.SearchResult, whole | own)
