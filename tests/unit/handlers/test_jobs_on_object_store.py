"""The same jobs with the files in an S3-compatible store."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from handler_bench import Bench
from moto.server import ThreadedMotoServer
from test_ingest_job import coco, zipped

from app.db.tables import Dataset
from worker.files import unpacked_dataset


@pytest.fixture
def bucket_url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="detrank")
    yield "s3://detrank/files"
    server.stop()


def test_dataset_is_read_from_and_kept_in_the_store(bucket_url: str, tmp_path: Path, sqlite_url: str) -> None:
    bench = Bench(tmp_path, sqlite_url, storage_url=bucket_url)
    job = bench.work(bench.dataset(zipped(coco(tmp_path / "set"))))
    assert (job.state, job.error) == ("succeeded", None)
    row = bench.get(Dataset, job.resource_id)
    assert all(bench.store.exists(preview["sha256"]) for preview in row.previews)
    # as the rank job does: one member, without fetching the archive
    with bench.store.open(row.archive_sha256) as file, zipfile.ZipFile(file) as archive:
        assert b'"annotations"' in archive.read("annotations.json")
    cache = bench.settings.cache_dir / "datasets"
    with unpacked_dataset(cache, bench.store, row.archive_sha256, max_bytes=1 << 30) as folder:
        assert len(list((folder / "images").iterdir())) == 6
    assert bench.left_behind() == []
    bench.database.dispose()
