"""The file broker: a message arrives whole and once, or is dropped; nothing in the folder can end a reader."""

import threading
from concurrent.futures import ThreadPoolExecutor
from queue import Empty

import pytest
from kombu import Connection, Queue

from app.queue.broker import Broker, celery_config
from app.settings import Settings


@pytest.fixture
def settings(tmp_path):
    return Settings(data_dir=tmp_path / "with space %41", database_url="", broker_url="")


@pytest.fixture
def folder(settings):
    path = settings.home / "broker" / "cpu"
    path.mkdir(parents=True)
    return path


def connect(settings) -> Connection:
    config = celery_config(settings)
    return Connection(config["broker_url"], transport_options=config["broker_transport_options"])


def received(settings, queue="cpu") -> list[str]:
    """The job ids of all messages waiting."""
    found = []
    with connect(settings) as connection, connection.SimpleQueue(Queue(queue)) as box:
        while True:
            try:
                message = box.get(block=False)
            except Empty:
                return found
            found.append(message.payload[0][0])
            message.ack()


def test_a_bell_arrives_in_its_queue_in_order(settings, folder):
    broker = Broker(settings)
    for number in range(5):
        broker.ring(f"job_{number}", "ingest", "cpu")
    broker.ring("job_gpu", "score", "gpu")
    assert received(settings) == [f"job_{number}" for number in range(5)]
    assert received(settings, "gpu") == ["job_gpu"]
    assert received(settings) == []
    assert list(folder.iterdir()) == []


def test_many_writers_and_readers_lose_and_repeat_nothing(settings, folder):
    written = [f"job_{writer}_{number}" for writer in range(4) for number in range(50)]
    done = threading.Event()

    def write(writer):
        broker = Broker(settings)
        for number in range(50):
            broker.ring(f"job_{writer}_{number}", "ingest", "cpu")

    def read(_):
        found = received(settings)
        while not done.is_set():
            found += received(settings)
        return found + received(settings)

    with ThreadPoolExecutor(6) as pool:
        readers = [pool.submit(read, number) for number in range(2)]
        for writer in [pool.submit(write, number) for number in range(4)]:
            writer.result()
        done.set()
        found = [job_id for reader in readers for job_id in reader.result()]
    assert sorted(found) == sorted(written)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"null", b"{}", b'{"body": 1}'])
def test_what_is_no_message_is_dropped(settings, folder, content):
    (folder / "00000000000000000001-x.msg").write_bytes(content)
    (folder / "half.tmp").write_bytes(b"{")
    Broker(settings).ring("job_1", "ingest", "cpu")
    assert received(settings) == ["job_1"]
    assert [path.name for path in folder.iterdir()] == ["half.tmp"]


def test_a_deleted_folder_is_an_empty_queue(settings):
    assert received(settings) == []
    Broker(settings).ring("job_1", "ingest", "cpu")
    assert received(settings) == ["job_1"]
