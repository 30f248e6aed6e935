"""Webhooks: what ends is told, signed, again and again until it arrives, and never to a private network"""

import base64
import hashlib
import hmac
import json
import socket
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import standardwebhooks
from receiver import Receiver, receiving
from running import Running, Workspace, running, workspace
from sqlalchemy import select
from typer.testing import CliRunner

from app.cli.main import build
from app.db.tables import Delivery, Webhook
from app.queue import deliveries, posting, sender
from app.queue.posting import post
from app.settings import Settings
from detrank import Client, ProblemError
from outbound.addresses import is_public


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


@pytest.fixture(scope="module")
def open_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service whose webhooks may lead to this machine, and that looks often."""
    patch = pytest.MonkeyPatch()
    patch.setattr(sender, "LOOK_S", 0.05)
    home = tmp_path_factory.mktemp("hooks")
    with running(
        Settings(data_dir=home, auth="keys", webhooks_to_private=True, min_free_disk_bytes=0)
    ) as made:
        yield made
    patch.undo()


@pytest.fixture
def mine(open_service: Running, request: pytest.FixtureRequest) -> Iterator[Workspace]:
    with workspace(open_service, request.node.name) as made:
        yield made


@pytest.fixture
def client(mine: Workspace) -> Iterator[Client]:
    with Client(mine.service.url, mine.key) as made:
        yield made


def settled(client: Client, webhook_id: str, state: str) -> dict:
    """The newest delivery, once it is in this state."""
    until = time.monotonic() + 15
    while True:
        newest = next(client.webhooks.deliveries(webhook_id), None)
        if newest is not None and newest["state"] == state:
            return newest
        assert time.monotonic() < until, newest
        time.sleep(0.05)


def test_the_end_of_work_is_told_and_signed(mine: Workspace, client: Client, receiver: Receiver) -> None:
    made = client.webhooks.create(receiver.url, events=["ranking"], description="mine")
    assert "secret" not in client.webhooks.get(made["id"])
    ranking = mine.ranking(1)
    one = ranking["candidates"][0]["checkpoint_id"]
    mine.score(ranking, one, 1.0)
    mine.rank(ranking, [(one, 1.0)])
    receiver.wait(1)
    path, headers, body = receiver.got[0]
    told = json.loads(body)
    assert (path, headers["content-type"]) == ("/hook", "application/json")
    assert told["type"] == "ranking.succeeded"
    assert told["data"]["id"] == ranking["id"]
    assert told["data"]["error"] is None
    # by the words of the specification, and by its own library
    key = base64.b64decode(made["secret"].removeprefix("whsec_"))
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert standardwebhooks.Webhook(made["secret"]).verify(body, headers) == told
    delivery = settled(client, made["id"], "delivered")
    assert (delivery["id"], delivery["attempts"], delivery["status"]) == (headers["webhook-id"], 1, 204)
    assert delivery["body"] == told
    assert len(receiver.got) == 1, "its score job was not asked for"


def test_datasets_and_every_job_of_this_workspace_alone(
    mine: Workspace, client: Client, receiver: Receiver, open_service: Running
) -> None:
    client.webhooks.create(receiver.url, events=["dataset", "job"])
    with workspace(open_service, "somebody else") as other:
        other.dataset()
    mine.dataset()
    failing = mine.http.post("/v1/checkpoints", json={"source": "timm://x"}).json()
    mine.fail(failing["job_id"], "no such model")
    receiver.wait(3)
    told = {(body["type"], body["data"]["id"]) for body in (json.loads(one[2]) for one in receiver.got)}
    assert {type for type, _ in told} == {"job.succeeded", "dataset.ready", "job.failed"}
    assert ("job.failed", failing["job_id"]) in told


def test_it_is_sent_again_under_the_same_id_until_it_arrives(
    client: Client, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "PAUSES_S", (0.05, 0.05))
    receiver.answer = lambda n: (500, {}) if n < 2 else (200, {})
    made = client.webhooks.create(receiver.url)
    client.webhooks.test(made["id"])
    delivery = settled(client, made["id"], "delivered")
    assert delivery["attempts"] == 3
    assert {headers["webhook-id"] for _, headers, _ in receiver.got} == {delivery["id"]}
    assert len({body for _, _, body in receiver.got}) == 1
    assert client.webhooks.get(made["id"])["failing_since"] is None


def test_what_failed_for_good_is_sent_again_by_request(
    client: Client, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "PAUSES_S", ())
    receiver.answer = lambda n: (302, {"Location": receiver.url}) if n == 0 else (200, {})
    made = client.webhooks.create(receiver.url)
    client.webhooks.test(made["id"])
    failed = settled(client, made["id"], "failed")
    assert (failed["status"], len(receiver.got)) == (302, 1), "redirects are not followed"
    assert client.webhooks.get(made["id"])["failing_since"] is not None
    client.webhooks.resend(made["id"], failed["id"])
    assert settled(client, made["id"], "delivered")["id"] == failed["id"]


def test_one_that_takes_nothing_for_long_is_disabled_and_goes_on_when_enabled(
    mine: Workspace, client: Client, receiver: Receiver
) -> None:
    receiver.answer = lambda n: (503, {}) if n == 0 else (200, {})
    made = client.webhooks.create(receiver.url)
    with mine.service.database.unit_of_work() as session:
        webhook = session.get(Webhook, made["id"])
        webhook.failing_since = webhook.created_at - timedelta(days=4)
    client.webhooks.test(made["id"])
    receiver.wait(1)
    until = time.monotonic() + 10
    while client.webhooks.get(made["id"])["enabled"]:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert "nothing arrived since" in client.webhooks.get(made["id"])["disabled_why"]
    with pytest.raises(ProblemError, match="is disabled"):
        client.webhooks.test(made["id"])
    mine.dataset()
    assert len(list(client.webhooks.deliveries(made["id"]))) == 1, "it is told nothing meanwhile"
    client.webhooks.change(made["id"], enabled=True)
    with mine.service.database.unit_of_work() as session:
        for waiting in session.scalars(select(Delivery).where(Delivery.webhook_id == made["id"])):
            waiting.not_before = waiting.created_at
    settled(client, made["id"], "delivered")


def test_410_ends_it_at_once(client: Client, receiver: Receiver) -> None:
    receiver.answer = lambda _: (410, {})
    made = client.webhooks.create(receiver.url)
    client.webhooks.test(made["id"])
    receiver.wait(1)
    until = time.monotonic() + 10
    while client.webhooks.get(made["id"])["enabled"]:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert client.webhooks.get(made["id"])["disabled_why"] == "it answered 410 Gone"


def test_after_a_rotation_both_secrets_sign(client: Client, receiver: Receiver) -> None:
    made = client.webhooks.create(receiver.url)
    new = client.webhooks.rotate(made["id"])["secret"]
    assert new != made["secret"]
    client.webhooks.test(made["id"])
    receiver.wait(1)
    _, headers, body = receiver.got[0]
    for secret in (new, made["secret"]):
        standardwebhooks.Webhook(secret).verify(body, headers)


def test_by_command_line(mine: Workspace, receiver: Receiver) -> None:
    def run(*words: str) -> str:
        done = CliRunner().invoke(build(), ["--url", mine.service.url, "--key", mine.key, "webhooks", *words])
        assert done.exit_code == 0, done.output
        return done.stdout

    made = json.loads(run("create", receiver.url, "--events", "dataset,study", "--json"))
    assert made["events"] == ["dataset", "study"]
    sent = json.loads(run("test", made["id"], "--json"))
    receiver.wait(1)
    assert sent["id"] in run("deliveries", made["id"])
    run("resend", made["id"], sent["id"])
    receiver.wait(2)
    run("disable", made["id"])
    assert "disabled: by request" in run("list")
    run("enable", made["id"])
    assert json.loads(run("rotate", made["id"], "--json"))["secret"] != made["secret"]
    run("delete", made["id"])
    assert json.loads(run("list", "--json"))["items"] == []


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/x",
        "https://",
        "//example.com",
        "https://user:secret@example.com/",
        "https://example.com/#part",
        "http://localhost:8000/",
        "http://127.0.0.1/",
        "http://[::1]/",
        "http://10.0.0.1/",
        "http://169.254.169.254/latest/meta-data",
        "http://metadata.google.internal/",
        "http://example.com:99999/",
    ],
)
def test_addresses_that_nothing_is_sent_to(space: Workspace, url: str) -> None:
    answer = space.http.post("/v1/webhooks", json={"url": url})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/url"), answer.text


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1:248:1893:25c8:1946", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fc00::1", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::5db8:d822", True),
        ("2002:7f00:1::", False),
        ("ff02::1", False),
    ],
)
def test_which_addresses_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


def told_by_dns(monkeypatch: pytest.MonkeyPatch, *answers: list[tuple[str, int]]) -> list[int]:
    """What each look-up of a name is answered, and how many there were."""
    looked: list[int] = []

    def getaddrinfo(*_: object, **__: object) -> list[tuple]:
        looked.append(1)
        found = answers[min(len(looked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", place) for place in found]

    monkeypatch.setattr(posting.socket, "getaddrinfo", getaddrinfo)
    return looked


def test_a_name_that_leads_to_a_private_network_is_sent_nothing(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = urlsplit(receiver.url).port
    for found in ([("127.0.0.1", port)], [("93.184.216.34", port), ("127.0.0.1", port)]):
        told_by_dns(monkeypatch, found)
        outcome = post(f"http://rebound.example:{port}/", b"{}", {}, allow_private=False)
        assert outcome.status is None
        assert "private network" in outcome.answer
    assert receiver.got == []


def test_the_connection_goes_to_the_address_that_was_looked_at(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = urlsplit(receiver.url).port
    looked = told_by_dns(monkeypatch, [("127.0.0.1", port)], [("127.0.0.2", 1)])
    outcome = post(f"http://changing.example:{port}/a?b=c", b"{}", {}, allow_private=True)
    assert (outcome.status, len(looked)) == (204, 1)
    path, headers, _ = receiver.got[0]
    assert (path, headers["host"]) == ("/a?b=c", f"changing.example:{port}")


def test_one_who_answers_byte_by_byte_is_left(monkeypatch: pytest.MonkeyPatch, receiver: Receiver) -> None:
    monkeypatch.setattr(posting, "TIMEOUT_S", 0.4)
    receiver.answer = lambda _: (time.sleep(8), (204, {}))[1]
    began = time.monotonic()
    outcome = post(receiver.url, b"{}", {}, allow_private=True)
    assert outcome.status is None
    assert time.monotonic() - began < 6


def test_the_default_service_sends_nothing_to_this_machine(tmp_path: Path, receiver: Receiver) -> None:
    with (
        running(Settings(data_dir=tmp_path, min_free_disk_bytes=0)) as service,
        Client(service.url) as client,
        pytest.raises(ProblemError, match="DETRANK_WEBHOOKS_TO_PRIVATE"),
    ):
        client.webhooks.create(receiver.url)
    assert receiver.got == []
