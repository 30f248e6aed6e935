"""The thread that sends deliveries to webhooks, in every process of the API. Any number may run."""

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

from standardwebhooks import Webhook as Signer

from app.db.engine import Database
from app.queue import deliveries
from app.queue.deliveries import Parcel
from app.queue.posting import post

LOOK_S = 1.0
AT_ONCE = 8  # webhooks; each is sent one delivery at a time
IN_A_ROW = 100

log = logging.getLogger(__name__)


class Sender:
    """`start()`, `stop()`. A webhook that answers slowly holds up nothing but its own deliveries."""

    def __init__(
        self, database: Database, *, allow_private: bool = False, give_up_s: float = 3 * 86400.0
    ) -> None:
        self._database = database
        self._allow_private = allow_private
        self._give_up_s = give_up_s
        self._stopped = threading.Event()
        self._busy: set[str] = set()
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="webhook")
        self._thread = threading.Thread(target=self._run, name="sender", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Sends nothing more; what is being sent is due again later if it did not arrive."""
        self._stopped.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._thread.join(2.0)

    def _run(self) -> None:
        while not self._stopped.wait(LOOK_S):
            try:
                with self._database.reading() as session:
                    waiting = deliveries.waiting(session)
                for webhook_id in waiting:
                    if webhook_id not in self._busy and len(self._busy) < AT_ONCE:
                        self._busy.add(webhook_id)
                        self._pool.submit(self._serve, webhook_id)
            except Exception as failure:  # the database may be away; this thread must outlive it
                log.warning("webhooks wait: %s: %s", type(failure).__name__, failure)

    def _serve(self, webhook_id: str) -> None:
        try:
            for _ in range(IN_A_ROW):
                if self._stopped.is_set() or not self._send_next(webhook_id):
                    return
        except Exception:
            log.exception("sending to %s failed", webhook_id)
        finally:
            self._busy.discard(webhook_id)

    def _send_next(self, webhook_id: str) -> bool:
        """True where one arrived and there may be another."""
        with self._database.unit_of_work() as session:
            parcel = deliveries.take(session, webhook_id)
        if parcel is None:
            return False
        headers = signed(parcel, datetime.now(UTC))
        outcome = post(parcel.url, parcel.body.encode(), headers, allow_private=self._allow_private)
        with self._database.unit_of_work() as session:
            deliveries.note(session, parcel, outcome, give_up_s=self._give_up_s)
        return outcome.arrived


def signed(parcel: Parcel, now: datetime) -> dict[str, str]:
    """The headers of one attempt, after Standard Webhooks 1.0: a signature by each secret, HMAC-SHA256 of id.timestamp.body."""
    signatures = [Signer(secret).sign(parcel.id, now, parcel.body) for secret in parcel.secrets]
    return {
        "webhook-id": parcel.id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
        "content-type": "application/json",
        "user-agent": "detrank",
    }
