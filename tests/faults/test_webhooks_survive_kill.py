"""A service that is killed while it sends to a webhook sends it again when it is started anew."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from receiver import receiving
from sqlalchemy import update

from app.db.engine import Database
from app.db.tables import Delivery
from detrank import Client
from detrank.embedded import find


def served(home: Path) -> tuple[subprocess.Popen[bytes], str]:
    environment = os.environ | {"DETRANK_DATA_DIR": str(home), "DETRANK_WEBHOOKS_TO_PRIVATE": "true"}
    command = [sys.executable, "-m", "app.cli", "serve", "--no-worker", "--port", "0"]
    (home / "service.json").unlink(missing_ok=True)  # of one that was killed
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while (url := find(home)) is None:
        assert process.poll() is None, "it did not start"
        assert time.monotonic() < until
        time.sleep(0.1)
    return process, url


@pytest.mark.slow
def test_killed_while_it_sends(tmp_path: Path) -> None:
    with receiving() as receiver:
        receiver.answer = lambda n: (time.sleep(5 if n == 0 else 0), (204, {}))[1]
        process, url = served(tmp_path)
        try:
            with Client(url) as client:
                webhook = client.webhooks.create(receiver.url)
                sent = client.webhooks.test(webhook["id"])
            receiver.wait(1)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            database = Database(f"sqlite:///{tmp_path / 'detrank.db'}")
            with database.unit_of_work() as session:  # as if it had stayed away for a minute
                session.execute(update(Delivery).values(not_before=Delivery.created_at))
            database.dispose()
            process, url = served(tmp_path)
            receiver.wait(2)
            with Client(url) as client:
                until = time.monotonic() + 10
                while next(client.webhooks.deliveries(webhook["id"]))["state"] != "delivered":
                    assert time.monotonic() < until
                    time.sleep(0.1)
        finally:
            process.kill()
            process.wait()
    assert {headers["webhook-id"] for _, headers, _ in receiver.got} == {sent["id"]}
