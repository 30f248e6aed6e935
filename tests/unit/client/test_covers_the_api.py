"""The client reaches everything that the API has, and its documents name the fields that it answers."""

import inspect
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import httpx
import pytest

import detrank
from app.main import create_app
from app.settings import Settings
from detrank import Client, access, documents, rankings, webhooks
from detrank.documents import Addressed, Document
from detrank.resource import Resource

# not for the client: what uploads do by themselves, monitoring, and the way to a file which `file` has
OTHERWISE = {
    "get_upload_options",
    "get_upload",
    "delete_upload",
    "healthz",
    "metrics",
}


@pytest.fixture(scope="module")
def openapi(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return create_app(Settings(data_dir=tmp_path_factory.mktemp("home"))).openapi()


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, str]]:
    """(method, path) of everything that every method of the client asks for."""
    seen: set[tuple[str, str]] = set()

    def handler(request: httpx.Request) -> httpx.Response:
        seen.add((request.method, request.url.path))
        at = int(request.headers.get("Upload-Offset", 0)) + len(request.read())
        headers = {"Location": "/v1/uploads/up_1", "Upload-Offset": str(at)}
        record = {"id": "x_1", "state": "succeeded", "items": [], "next_cursor": None}
        if request.url.path.endswith("/events"):
            return httpx.Response(204)
        return httpx.Response(200, json=record, headers=headers)

    file = tmp_path / "a.zip"
    file.write_bytes(b"bytes")
    broken = iter([httpx.ReadError("cut off")])

    def breaks_once(request: httpx.Request) -> httpx.Response:
        if request.method == "PATCH" and (failure := next(broken, None)):
            raise failure
        return handler(request)

    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr("detrank.http.SMALL_BYTES", 1)
    service = Client("http://detrank.test", transport=httpx.MockTransport(breaks_once))
    given: dict[str, Any] = {
        "path": file,
        "source": file,
        "budget_minutes": 1,
        "checkpoint_ids": ["ckpt_1"],
        "dataset_ids": ["ds_1"],
    }
    for resource in [one for one in vars(service).values() if isinstance(one, Resource)]:
        methods = [
            name
            for kind in type(resource).__mro__
            for name, value in vars(kind).items()
            if hasattr(value, "steps")
        ]
        for name in set(methods) - {"file", "follow"}:
            call(getattr(resource, name), given)
    for kind in ("metrics", "layers", "architectures", "shelf", "recipes", "pretraining-recipes", "problems"):
        service.catalogue(kind)
    service.formats()
    service.explain("x_1")
    service.workers()
    service.ready()
    for url in ("/v1/verifications/x_1/plots/a.png", "/v1/verifications/x_1/pictures/a.png"):
        service.verifications.file(url)
        service.pretrainings.file(url.replace("verifications", "pretrainings"))
        service.pseudo_labellings.file(url.replace("verifications", "pseudo-labellings"))
    service.studies.file("/v1/studies/x_1/plots/a.png")
    service.studies.file("/v1/studies/x_1/files/a.csv")
    return seen


def call(method: Callable[..., Any], given: dict[str, Any]) -> None:
    parameters = inspect.signature(method).parameters
    needed = {
        name: given.get(name, "x_1")
        for name, one in parameters.items()
        if one.default is one.empty and one.kind is not one.VAR_KEYWORD
    }
    made = method(**needed)
    if hasattr(made, "__next__"):
        list(made)


def test_every_operation_is_reached(openapi: dict[str, Any], asked: set[tuple[str, str]]) -> None:
    missing = []
    for path, operations in openapi["paths"].items():
        pattern = re.compile(re.sub(r"\\\{[^}]+\\\}", "[^/:]+", re.escape(path)))
        for method, operation in operations.items():
            found = any(method.upper() == verb and pattern.fullmatch(at) for verb, at in asked)
            if not found and operation["operationId"] not in OTHERWISE:
                missing.append(f"{method.upper()} {path}")
    assert not missing


VIEWS = {
    detrank.Dataset: "DatasetView",
    detrank.Checkpoint: "CheckpointView",
    detrank.Ranking: "RankingView",
    detrank.Candidate: "CandidateView",
    rankings.Score: "ScoreView",
    rankings.Cost: "Cost",
    rankings.LeftOut: "LeftOut",
    detrank.Verification: "VerificationView",
    detrank.Subset: "SubsetView",
    detrank.Search: "SearchView",
    detrank.Study: "StudyView",
    detrank.Pretraining: "PretrainingView",
    documents.PseudoLabelling: "PseudoLabellingView",
    detrank.Job: "JobView",
    detrank.Worker: "WorkerView",
    documents.Progress: "Progress",
    webhooks.Webhook: "WebhookView",
    webhooks.Delivery: "DeliveryView",
    access.Key: "KeyView",
    access.AuditEntry: "AuditEntryView",
    access.Workspace: "WorkspaceView",
}
TYPES = {"string": str, "integer": int, "number": float, "boolean": bool, "array": list, "object": dict}


@pytest.mark.parametrize("kind", VIEWS, ids=lambda kind: kind.__name__)
def test_documents_have_the_fields_of_the_api(kind: type[Document], openapi: dict[str, Any]) -> None:
    properties = openapi["components"]["schemas"][VIEWS[kind]]["properties"]
    for name, hint in get_type_hints(kind).items():
        if name == "path":
            continue
        assert name not in dir(dict), f"{name} would hide a method of dict"
        schema = properties[name]
        choices = schema.get("anyOf", [schema])
        kinds = {
            TYPES[one["type"]] if "type" in one else dict for one in choices if one.get("type") != "null"
        }
        is_time = any(one.get("format") == "date-time" for one in choices)
        hints = get_args(hint) if get_origin(hint) is UnionType else (hint,)
        assert (NoneType in hints) == any(one.get("type") == "null" for one in choices), name
        (own,) = [one for one in hints if one is not NoneType]
        if own is Any:
            continue
        base = get_origin(own) or own
        expected = {datetime} if is_time else kinds
        assert base in expected or (issubclass(base, dict) and dict in expected), (name, own, schema)


def test_every_kind_of_resource_has_its_document() -> None:
    service = Client("http://detrank.test")
    for name, resource in vars(service).items():
        if name != "io":
            assert issubclass(resource.kind, Addressed)
            assert resource.kind.path == name.replace("_", "-")
