"""The audit log and what was delivered to webhooks are kept for as long as is said, what is on its way for ever."""

from datetime import timedelta

from sqlalchemy import select

from app.db.engine import database_now
from app.db.tables import AuditEntry, Delivery, Job, Webhook
from app.queue import notices
from worker.tidy import forget_audit, forget_deliveries


def test_old_entries_and_deliveries_go(bench):
    with bench.database.unit_of_work() as session:
        workspace_id = session.get(Job, bench.job_id).workspace_id
        now = database_now(session)
        webhook = Webhook(
            id="wh_1", workspace_id=workspace_id, url="u", events=[], secret="whsec_AAAA", created_at=now
        )
        session.add(webhook)
        session.flush()
        for days, state in ((29, "delivered"), (31, "delivered"), (31, "pending")):
            made = notices.add(session, webhook, f"{state} {days}", {}, now=now)
            made.state, made.created_at = state, now - timedelta(days=days)
        for days in (89, 91):
            session.add(
                AuditEntry(
                    id=f"audit_{days}",
                    workspace_id=workspace_id,
                    action="x",
                    resource="/",
                    created_at=now - timedelta(days=days),
                )
            )
    with bench.database.unit_of_work() as session:
        assert forget_audit(session, bench.settings).count == 1
        assert forget_deliveries(session, bench.settings).count == 1
    with bench.database.reading() as session:
        assert set(session.scalars(select(Delivery.type))) == {"delivered 29", "pending 31"}
        assert session.scalars(select(AuditEntry.id)).all() == ["audit_89"]
