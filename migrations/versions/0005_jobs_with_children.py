"""jobs with children: what is at work, paused or over under the old schema goes on under the job of its whole

Revision: 0005, after 0004
"""

import uuid
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ENDED = ("succeeded", "failed", "cancelled")
QUEUE = "cpu"  # of the jobs of wholes


def upgrade() -> None:
    # as SQL, because both databases take it in place: a batch would copy the tables, which others refer to
    op.execute(
        "ALTER TABLE job ADD COLUMN parent_id VARCHAR(48) CONSTRAINT fk_job_parent_id REFERENCES job (id)"
    )
    op.create_index("ix_job_parent_id", "job", ["parent_id"], unique=False)
    op.add_column("job", sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("job", sa.Column("worked_s", sa.Double(), nullable=False, server_default="0"))
    op.execute("ALTER TABLE ranking RENAME COLUMN rank_job_id TO job_id")
    Adoption(op.get_bind()).run()
    op.drop_table("shard")


def downgrade() -> None:
    """The tables as they were. Wholes that are at work are not handed back: let them end first."""
    op.create_table(
        "shard",
        sa.Column("ranking_id", sa.String(length=48), nullable=False),
        sa.Column("checkpoint_id", sa.String(length=48), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("job_id", sa.String(length=48), nullable=False),
        sa.ForeignKeyConstraint(["checkpoint_id"], ["checkpoint.id"], name=op.f("fk_shard_checkpoint_id")),
        sa.ForeignKeyConstraint(["ranking_id"], ["ranking.id"], name=op.f("fk_shard_ranking_id")),
        sa.PrimaryKeyConstraint("ranking_id", "checkpoint_id", "position", name=op.f("pk_shard")),
    )
    op.create_index("ix_shard_checkpoint_id", "shard", ["checkpoint_id"], unique=False)
    op.execute("ALTER TABLE ranking RENAME COLUMN job_id TO rank_job_id")
    op.drop_index("ix_job_parent_id", "job")
    for column in ("worked_s", "claimed_at", "parent_id"):
        op.execute(f"ALTER TABLE job DROP COLUMN {column}")


class Adoption:
    """Every ranking, search and study gets one job; those of its parts are its children."""

    def __init__(self, connection: sa.Connection) -> None:
        self.connection = connection
        tables = sa.MetaData()
        tables.reflect(
            connection,
            only=["job", "ranking", "candidate", "shard", "verification", "search", "study", "outbox"],
        )
        self.tables = tables.tables
        self.job = self.tables["job"]

    def run(self) -> None:
        self._count_seconds()
        for ranking in self._rows("ranking"):
            candidates = self._rows("candidate", ranking_id=ranking.id)
            own = self._job(ranking, "rank", [self._candidate(one) for one in candidates])
            self._put_below(own, [*candidates, *self._rows("verification", ranking_id=ranking.id)])
        for name in ("search", "study"):
            for row in self._rows(name):
                parts = [
                    *self._rows("ranking", **{f"{name}_id": row.id}),
                    *self._rows("verification", **{f"{name}_id": row.id}),
                ]
                self._put_below(self._job(row, name, [part.job_id for part in parts]), parts)
        for search in self._rows("search"):
            self._limit_scoring(search)
        for name in ("ranking", "search", "study"):
            for row in self._rows(name):
                self._let_sleep(row)

    def _rows(self, name: str, **where: Any) -> list[Any]:
        table = self.tables[name]
        query = sa.select(table)
        for column, value in where.items():
            query = query.where(table.c[column] == value)
        return list(self.connection.execute(query).all())

    def _found(self, job_id: str | None) -> Any:
        query = sa.select(self.job).where(self.job.c.id == job_id)
        return self.connection.execute(query).one_or_none() if job_id else None

    def _update(self, job_id: str, **values: Any) -> None:
        self.connection.execute(sa.update(self.job).where(self.job.c.id == job_id).values(**values))

    def _count_seconds(self) -> None:
        """What a job took was from its first claim to its end; one at work counts from its claim."""
        for job in self.connection.execute(sa.select(self.job).where(self.job.c.started_at.is_not(None))):
            if job.finished_at is not None:
                seconds = max(0.0, (job.finished_at - job.started_at).total_seconds())
                self._update(job.id, worked_s=seconds)
            else:
                self._update(job.id, claimed_at=job.started_at)

    def _new(self, row: Any, kind: str, like: Any, **values: Any) -> str:
        """A job for a row that had none of this kind, with what `like`, a job of a part, has."""
        id = f"job_{uuid.uuid4().hex}"
        self.connection.execute(
            sa.insert(self.job).values(
                id=id,
                workspace_id=row.workspace_id,
                kind=kind,
                attempt=0,
                max_attempts=like.max_attempts if like is not None else 3,
                progress_done=0,
                created_at=row.created_at,
                event_seq=0,
                version=1,
                worked_s=0.0,
                **values,
            )
        )
        return id

    def _candidate(self, candidate: Any) -> str:
        """The `score` job of a candidate; one that waits for shards had none yet."""
        job = self._found(candidate.job_id)
        shards = self._shards(candidate)
        score_id = candidate.job_id
        if job is not None and job.kind == "shard":
            first = self._found(shards[0])
            over = candidate.state in ENDED
            score_id = self._new(
                first,
                "score",
                first,
                queue=first.queue,
                resource_id=candidate.ranking_id,
                payload={name: first.payload[name] for name in ("checkpoint_id", "shards")},
                state=candidate.state if over else "waiting",
                error=_json(candidate.error),
                finished_at=first.finished_at if over else None,
                cancel_requested_at=first.cancel_requested_at if candidate.state == "cancelling" else None,
            )
            table = self.tables["candidate"]
            mine = (table.c.ranking_id == candidate.ranking_id) & (
                table.c.checkpoint_id == candidate.checkpoint_id
            )
            self.connection.execute(sa.update(table).where(mine).values(job_id=score_id))
        for shard in shards:
            self._update(shard, parent_id=score_id)
        begun = [one.started_at for one in map(self._found, shards) if one.started_at is not None]
        if begun:
            self._update(score_id, started_at=min(begun))
        return score_id

    def _shards(self, candidate: Any) -> list[str]:
        rows = self._rows("shard", ranking_id=candidate.ranking_id, checkpoint_id=candidate.checkpoint_id)
        return [row.job_id for row in sorted(rows, key=lambda row: row.position)]

    def _job(self, row: Any, kind: str, parts: Iterable[str | None]) -> str:
        """The id of the row's own job."""
        part_ids = list(parts)
        if self._found(row.job_id) is not None:
            return str(row.job_id)
        like = next((job for job in map(self._found, part_ids) if job is not None), None)
        over = row.state in ENDED
        id = self._new(
            row,
            kind,
            like,
            queue=QUEUE,
            resource_id=row.id,
            payload={},
            state=row.state if over else "waiting",
            error=_json(row.error),
            started_at=row.started_at,
            finished_at=row.finished_at,
            cancel_requested_at=row.cancel_requested_at,
        )
        table = self.tables[_table_of(kind)]
        self.connection.execute(sa.update(table).where(table.c.id == row.id).values(job_id=id))
        return id

    def _put_below(self, own: str, parts: Iterable[Any]) -> None:
        for part in parts:
            again = self._found(part.job_id)
            job_id = part.job_id
            if again is not None and again.kind == "shard":
                job_id = again.parent_id
            if job_id is not None:
                self._update(job_id, parent_id=own)

    def _let_sleep(self, row: Any) -> None:
        """A whole that is at work through its parts waits for them; one that is over is as its row says."""
        job = self._found(row.job_id)
        if row.state in ENDED:
            self._update(
                job.id,
                state=row.state,
                error=_json(row.error),
                finished_at=row.finished_at or job.finished_at,
            )
        elif job.state in ENDED or job.state == "waiting":
            self._update(
                job.id,
                state="waiting",
                finished_at=None,
                error=sa.null(),
                cancel_requested_at=row.cancel_requested_at,
            )
        self._update(job.id, started_at=row.started_at)

    def _limit_scoring(self, search: Any) -> None:
        """What scoring may take of a search's budget stands in the request of its ranking."""
        table = self.tables["ranking"]
        for ranking in self._rows("ranking", search_id=search.id):
            seconds = 0.5 * search.request["budget_minutes"] * 60
            request = ranking.request | {"scoring_budget_s": seconds}
            self.connection.execute(sa.update(table).where(table.c.id == ranking.id).values(request=request))


def _table_of(kind: str) -> str:
    return "ranking" if kind == "rank" else kind


def _json(value: Any) -> Any:
    return sa.null() if value is None else value
