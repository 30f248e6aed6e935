"""Starting, health, metrics, the catalogue and the OpenAPI document"""

import asyncio
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from running import Workspace, running
from sqlalchemy import delete, update

from app.db.migrate import upgrade
from app.db.tables import Outbox, WorkerRecord
from app.main import OutdatedSchema, create_app
from app.settings import Settings


def test_it_answers_and_says_what_works(space: Workspace) -> None:
    with space.service.database.unit_of_work() as session:  # others may have left some
        session.execute(delete(WorkerRecord))
    assert space.http.get("/healthz").json() == {"status": "ok"}
    ready = space.http.get("/readyz")
    assert ready.status_code == 200
    checks = ready.json()["checks"]
    assert list(checks) == ["database", "schema", "disk", "storage", "broker", "workers"]
    assert {name: said for name, said in checks.items() if said != "ok"} == {
        "workers": "none was heard of for 30 s: start one with `detrank worker`"
    }
    assert ready.json()["status"] == "degraded"


def test_a_queue_that_no_worker_serves_is_named_once_jobs_wait_there(tmp_path: Path) -> None:
    with running(Settings(data_dir=tmp_path, min_free_disk_bytes=0)) as service:
        source = {"source": "torchvision://resnet18"}
        made = httpx.post(f"{service.url}/v1/checkpoints", json=source).json()
        with service.database.unit_of_work() as session:
            now = datetime.now(UTC)
            session.add(WorkerRecord(name="here", queues=["cpu"], details={}, started_at=now, seen_at=now))
            session.execute(update(Outbox).where(Outbox.job_id == made["job_id"]).values(rings=2))
        assert httpx.get(f"{service.url}/readyz").json()["checks"]["workers"] == (
            "none serves long where jobs wait: start one with `detrank worker --queues long`"
        )


def test_metrics_for_prometheus_name_no_ids(space: Workspace) -> None:
    made = space.ranking(1)
    space.http.get(f"/v1/rankings/{made['id']}")
    text = space.http.get("/metrics").text
    assert 'detrank_http_request_seconds_count{method="GET",route="/v1/rankings/{id}",status="200"}' in text
    assert 'detrank_jobs{kind="score",state="queued"}' in text
    assert "detrank_queue_oldest_seconds" in text
    assert made["id"] not in text


@pytest.mark.parametrize("name", ["metrics", "layers", "architectures"])
def test_the_catalogue(space: Workspace, name: str) -> None:
    items = space.http.get(f"/v1/{name}").json()["items"]
    assert items
    assert len({item["name"] for item in items}) == len(items)


def test_the_formats(space: Workspace) -> None:
    formats = space.http.get("/v1/formats").json()
    assert {"coco", "voc", "yolo"} <= {item["name"] for item in formats["datasets"]}
    assert formats["checkpoints"]


def test_the_embedded_database_is_made_at_start(tmp_path: Path) -> None:
    with running(Settings(data_dir=tmp_path / "new", min_free_disk_bytes=0)) as service:
        assert httpx.get(f"{service.url}/v1/datasets").json() == {"items": [], "next_cursor": None}
    assert (tmp_path / "new" / "detrank.db").is_file()


def test_a_database_of_another_version_is_refused(tmp_path: Path, database_url: str) -> None:
    settings = Settings(data_dir=tmp_path, database_url=database_url)

    async def start() -> None:
        app = create_app(settings)
        async with app.router.lifespan_context(app):
            pass

    with pytest.raises(OutdatedSchema, match="detrank migrate"):
        asyncio.run(start())
    upgrade(database_url)
    asyncio.run(start())


def test_a_full_disk_is_not_ready_and_takes_nothing(tmp_path: Path) -> None:
    with running(Settings(data_dir=tmp_path, min_free_disk_bytes=1 << 60)) as service:
        ready = httpx.get(f"{service.url}/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "unavailable")
        answer = httpx.post(f"{service.url}/v1/datasets", content=b"PK\x03\x04")
        assert answer.status_code == 507
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_dead_broker_delays_but_refuses_nothing(tmp_path: Path) -> None:
    settings = Settings(
        data_dir=tmp_path,
        database_url=f"sqlite:///{tmp_path / 'x.db'}",
        broker_url="redis://127.0.0.1:1/0",
        min_free_disk_bytes=0,
    )
    upgrade(settings.resolved_database_url)
    with running(settings) as service:
        answer = httpx.post(f"{service.url}/v1/checkpoints", json={"source": "timm://x"}, timeout=5)
        assert answer.status_code == 202
        ready = httpx.get(f"{service.url}/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert ready.json()["checks"]["broker"].startswith("does not answer")
        lags = []
        for _ in range(2):
            time.sleep(1.2)
            text = httpx.get(f"{service.url}/metrics").text
            lags.append(float(text.split("\ndetrank_outbox_lag_seconds ")[1].split("\n")[0]))
        assert lags[1] > lags[0] > 0.5, "bells that cannot be rung grow older"


def test_paths_of_the_server_where_they_are_allowed(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with running(
        Settings(data_dir=tmp_path / "home", allow_local_paths=True, min_free_disk_bytes=0)
    ) as service:
        made = httpx.post(f"{service.url}/v1/datasets", json={"source": str(tmp_path / "set")})
        assert made.json()["request"]["source"] == str(tmp_path / "set")
        for wrong in ("relative/set", str(tmp_path / "missing")):
            answer = httpx.post(f"{service.url}/v1/datasets", json={"source": wrong})
            assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/source")


def test_the_document_lists_problems_and_names_operations_once(tmp_path: Path) -> None:
    document = create_app(Settings(data_dir=tmp_path)).openapi()
    ids = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            ids.append(operation["operationId"])
            if path.startswith("/v1"):
                assert operation["responses"]["422"]["content"] == {
                    "application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}
                }, (method, path)
                assert {"401", "403", "500"} <= set(operation["responses"])
                assert "{id}" not in path or "404" in operation["responses"]
    assert len(set(ids)) == len(ids)
    assert "create_ranking" in ids
    assert "HTTPValidationError" not in document["components"]["schemas"]
    content = document["paths"]["/v1/datasets"]["post"]["requestBody"]["content"]
    assert set(content) == {"application/octet-stream", "application/json"}
    for name in (
        "DatasetView",
        "CheckpointView",
        "RankingCreate",
        "DatasetCreate",
        "CheckpointCreate",
        "Problem",
    ):
        assert document["components"]["schemas"][name]["examples"], name


def test_importing_the_service_brings_no_science() -> None:
    heavy = ("torch", "torchvision", "transformers", "timm", "scipy", "sklearn", "matplotlib", "PIL", "numpy")
    code = (
        f"import sys, app.main; sys.exit(','.join(name for name in {heavy!r} if name in sys.modules) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
