"""What a strange client relies on: the document, and what is answered where it looks."""

import base64
import hashlib
from pathlib import Path

import pytest
from openapi_spec_validator import validate
from running import Workspace

from app.main import create_app
from app.settings import Settings


def test_the_document_is_valid_by_the_version_it_names(tmp_path: Path) -> None:
    validate(create_app(Settings(data_dir=tmp_path)).openapi())


def test_what_rank_by_accepts_stands_in_its_schema(space: Workspace, tmp_path: Path) -> None:
    schemas = create_app(Settings(data_dir=tmp_path)).openapi()["components"]["schemas"]
    (choice,) = [
        one for one in schemas["RankingCreate"]["properties"]["rank_by"]["anyOf"] if one != {"type": "null"}
    ]
    named = schemas[choice["$ref"].rsplit("/", 1)[-1]] if "$ref" in choice else choice
    kinds = named.get("anyOf", [named])
    assert any(one.get("type") == "string" for one in kinds), named
    asked = {"metrics": ["logme", "tlogme"], "rank_by": "tlogme"}
    assert space.ranking(1, **asked)["request"]["rank_by"]["metric"] == "tlogme"


@pytest.mark.parametrize("kind", ["rankings", "verifications", "searches", "studies"])
def test_every_status_of_a_verb_is_listed(tmp_path: Path, kind: str) -> None:
    paths = create_app(Settings(data_dir=tmp_path)).openapi()["paths"]
    for verb in ("cancel", "retry"):
        assert {"200", "202", "404"} <= set(paths[f"/v1/{kind}/{{id}}:{verb}"]["post"]["responses"])
    assert "204" in paths[f"/v1/{kind}/{{id}}/events"]["get"]["responses"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/v1/rankings", "GET, POST"),
        ("POST", "/v1/rankings/rk_1", "DELETE, GET, PATCH"),
        ("PUT", "/v1/uploads/up_1", "DELETE, GET, HEAD, PATCH"),
    ],
)
def test_405_names_every_method_of_the_path(space: Workspace, method: str, path: str, allowed: str) -> None:
    answer = space.http.request(method, path)
    assert (answer.status_code, answer.headers["Allow"]) == (405, allowed)
    assert allowed in answer.json()["detail"]


def test_who_has_seen_the_end_of_a_stream_is_told_not_to_come_back(space: Workspace) -> None:
    made = space.ranking(1)
    one = made["candidates"][0]["checkpoint_id"]
    path = f"/v1/rankings/{made['id']}/events"
    space.score(made, one, 1.0)
    space.rank(made, [(one, 1.0)])
    numbers = [
        int(line.removeprefix("id: "))
        for line in space.http.get(path).text.splitlines()
        if line.startswith("id: ")
    ]
    seen = space.http.get(path, headers={"Last-Event-ID": str(numbers[-1])})
    assert (seen.status_code, seen.content) == (204, b"")
    rest = space.http.get(path, headers={"Last-Event-ID": str(numbers[-2])})
    assert rest.status_code == 200
    assert "event: end" in rest.text


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_parts_of_an_upload_are_held_against_either_digest(space: Workspace, algorithm: str) -> None:
    tus = {"Tus-Resumable": "1.0.0"}
    assert algorithm in space.http.options("/v1/uploads").headers["Tus-Checksum-Algorithm"].split(",")
    made = space.http.post("/v1/uploads", headers=tus | {"Upload-Length": "4"})

    def send(said: bytes) -> int:
        digest = base64.b64encode(hashlib.new(algorithm, said, usedforsecurity=False).digest()).decode()
        headers = tus | {
            "Upload-Offset": "0",
            "Content-Type": "application/offset+octet-stream",
            "Upload-Checksum": f"{algorithm} {digest}",
        }
        return space.http.patch(made.headers["Location"], content=b"data", headers=headers).status_code

    assert send(b"other") == 460
    assert send(b"data") == 204
