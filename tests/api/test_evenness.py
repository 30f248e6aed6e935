"""Every kind of long work has every verb, in the API, the services, the client and the command line."""

import importlib
from typing import Any

import pytest
import typer
from running import Workspace
from test_pretrainings import checkpoint as body_for
from test_pretrainings import dataset as pictures_for
from test_pseudo_labellings import detector as teacher_for

from app.cli.main import build
from app.db.tables import Base, Job, Pretraining, PseudoLabelling, Ranking, Search, Study, Verification
from app.db.work import name_of, plural_of
from app.queue.states import SHOWN, JobKind
from app.schemas.work import WorkDetails, WorkSummary
from app.services import works
from detrank import Client

# whatever has a state and a stream of events is work
WORK = sorted(
    (
        mapper.class_
        for mapper in Base.registry.mappers
        if {"state", "event_seq", "version"} <= {column.key for column in mapper.column_attrs}
    ),
    key=name_of,
)
OF_LISTS = {"limit", "cursor", "sort", "created_after", "created_before"}
OPTIONS_OF_LISTS = {"limit", "json", "help"}


def test_the_kinds_of_work_are_found() -> None:
    assert [name_of(table) for table in WORK] == [
        "job",
        "pretraining",
        "pseudo-labelling",
        "ranking",
        "search",
        "study",
        "verification",
    ]


def _identifier(word: str) -> str:
    return word.replace("-", "_")


@pytest.fixture(scope="module")
def commands() -> Any:
    return typer.main.get_command(build())


def operation(space: Workspace, method: str, path: str) -> dict[str, Any]:
    document: dict[str, Any] = space.http.get("/openapi.json").json()
    return document["paths"][path][method]


def parameters(found: dict[str, Any], where: str = "query") -> dict[str, dict[str, Any]]:
    return {one["name"]: one["schema"] for one in found.get("parameters", ()) if one["in"] == where}


@pytest.mark.parametrize("table", WORK, ids=name_of)
def test_every_verb_in_the_api(space: Workspace, table: type[Any]) -> None:
    name, path = _identifier(name_of(table)), f"/v1/{plural_of(table)}"
    verbs = {
        ("get", path): f"list_{_identifier(plural_of(table))}",
        ("get", f"{path}/{{id}}"): f"get_{name}",
        ("get", f"{path}/{{id}}/events"): f"get_{name}_events",
        ("post", f"{path}/{{id}}:cancel"): f"cancel_{name}",
        ("post", f"{path}/{{id}}:retry"): f"retry_{name}",
        ("patch", f"{path}/{{id}}"): f"prioritise_{name}",
    }
    if table is not Job:  # jobs are made and deleted with what they work for
        verbs |= {("post", path): f"create_{name}", ("delete", f"{path}/{{id}}"): f"delete_{name}"}
    for (method, at), operation_id in verbs.items():
        found = operation(space, method, at)
        assert found["operationId"] == operation_id
        assert found["description"]
    states = parameters(operation(space, "get", path))["state"]["anyOf"][0]["enum"]
    assert states == list(SHOWN)
    look = operation(space, "get", f"{path}/{{id}}")
    assert "wait" in parameters(look)
    assert "If-None-Match" in parameters(look, "header")


@pytest.mark.parametrize("table", WORK, ids=name_of)
def test_every_verb_in_the_services(table: type[Any]) -> None:
    service = importlib.import_module(f"app.services.{_identifier(plural_of(table))}")
    assert service.LISTING.table is table
    assert table is Job or callable(service.create)
    assert all(callable(getattr(works, verb)) for verb in ("find", "cancel", "retry", "prioritise", "remove"))


@pytest.mark.parametrize("table", WORK, ids=name_of)
def test_every_verb_in_the_client(table: type[Any]) -> None:
    with Client("http://nowhere.test") as client:
        resource = getattr(client, _identifier(plural_of(table)))
        verbs = {"get", "page", "list", "follow", "wait", "events", "cancel", "retry", "prioritise"}
        verbs |= set() if table is Job else {"create", "delete"}
        assert verbs <= {verb for verb in dir(resource) if callable(getattr(resource, verb))}


@pytest.mark.parametrize("table", WORK, ids=name_of)
def test_every_verb_and_filter_in_the_command_line(space: Workspace, commands: Any, table: type[Any]) -> None:
    group = commands.commands[plural_of(table)].loaded().commands
    verbs = {"list", "show", "cancel", "retry", "prioritise"} | (set() if table is Job else {"delete"})
    assert verbs <= set(group)
    assert {"wait", "json"} <= {option.name for option in group["show"].params}
    filters = set(parameters(operation(space, "get", f"/v1/{plural_of(table)}"))) - OF_LISTS
    options = {option.name: option.help for option in group["list"].params}
    assert set(options) - OPTIONS_OF_LISTS == filters
    assert all(state in options["state"] for state in SHOWN)


def test_jobs_can_be_narrowed_to_every_kind(space: Workspace, commands: Any) -> None:
    asked = parameters(operation(space, "get", "/v1/jobs"))["kind"]["anyOf"][0]["enum"]
    assert asked == list(JobKind)
    (option,) = (
        one for one in commands.commands["jobs"].loaded().commands["list"].params if one.name == "kind"
    )
    assert all(kind in option.help for kind in JobKind)


@pytest.mark.parametrize("path", ["datasets", "checkpoints", "subsets", *map(plural_of, WORK)])
def test_every_filter_of_every_list_is_understood(space: Workspace, path: str) -> None:
    for name, schema in parameters(operation(space, "get", f"/v1/{path}")).items():
        if name in OF_LISTS:
            continue
        answer = space.http.get(f"/v1/{path}", params={name: example(name, schema)})
        assert (answer.status_code, answer.json()["items"]) == (200, []), name


def example(name: str, schema: dict[str, Any]) -> Any:
    """A value that the filter takes and that nothing has."""
    asked = schema["anyOf"][0]
    if "enum" in asked:
        return asked["enum"][0]
    if asked["type"] == "integer":
        return 0
    prefixes = {"dataset_id": "ds_", "checkpoint_id": "ckpt_"}
    return prefixes.get(name, "x") + "0" * 32


@pytest.mark.parametrize("table", [table for table in WORK if table is not Job], ids=name_of)
def test_every_verb_says_that_there_is_no_such_thing(space: Workspace, table: type[Any]) -> None:
    path = f"/v1/{plural_of(table)}/nothing"
    for method, at in (
        ("GET", path),
        ("GET", f"{path}/events"),
        ("POST", f"{path}:cancel"),
        ("POST", f"{path}:retry"),
        ("DELETE", path),
    ):
        answer = space.http.request(method, at)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
        assert f"GET /v1/{plural_of(table)}" in answer.json()["detail"]


def asked(table: type[Any], space: Workspace) -> dict[str, Any]:
    """The least that a kind of work is asked for with."""
    if table is Pretraining:
        body = {"architecture": "detr", "encoder_checkpoint": body_for(space)}
        return body | {"dataset_id": pictures_for(space)}
    if table is PseudoLabelling:
        body = {"teacher": "detector", "detector_checkpoint": teacher_for(space)}
        return body | {"dataset_id": pictures_for(space)}
    dataset, checkpoint = space.dataset(), space.checkpoint()
    one, many = {"dataset_id": dataset}, {"checkpoint_ids": [checkpoint]}
    return {
        Ranking: one | many,
        Verification: one | {"checkpoint_id": checkpoint},
        Search: one | many | {"budget_minutes": 5},
        Study: {"dataset_ids": [dataset]} | many,
    }[table]


@pytest.mark.parametrize("table", [table for table in WORK if table is not Job], ids=name_of)
def test_a_life_of_every_kind_from_its_making_to_its_end(space: Workspace, table: type[Any]) -> None:
    path = f"/v1/{plural_of(table)}"
    body = asked(table, space)
    answer = space.http.post(path, json=body)
    made = answer.raise_for_status().json()
    at = f"{path}/{made['id']}"
    assert (answer.status_code, answer.headers["location"]) == (202, at)
    assert answer.headers["link"] == f'</v1/jobs/{made["job_id"]}>; rel="monitor"'
    assert space.http.get(f"/v1/jobs/{made['job_id']}").json()["resource_id"] == made["id"]
    (listed,) = space.http.get(path, params={"state": "queued"}).json()["items"]
    assert set(WorkSummary.model_fields) <= set(listed)
    assert {*WorkSummary.model_fields, *WorkDetails.model_fields, *listed} <= set(made)
    assert {name: made[name] for name in listed} == listed
    assert space.http.delete(at).status_code == 409
    assert space.http.post(f"{at}:retry").status_code == 409
    stopped = space.http.post(f"{at}:cancel")
    assert (stopped.status_code, stopped.json()["state"]) == (200, "cancelled")
    assert space.http.get(at, params={"wait": 5}).json()["state"] == "cancelled"
    told = space.http.get(f"{at}/events").text
    assert "event: state" in told
    assert told.index("event: end") > told.rindex("event: state")
    again = space.http.post(f"{at}:retry")
    assert again.status_code == 202
    assert again.json()["state"] in ("queued", "running")
    assert space.http.post(f"{at}:cancel").json()["state"] == "cancelled"
    assert space.http.delete(at).status_code == 204
    assert space.http.get(at).status_code == 404
    assert space.http.get("/v1/jobs", params={"resource_id": made["id"]}).json()["items"] == []
