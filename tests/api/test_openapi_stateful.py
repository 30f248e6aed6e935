"""Requests that follow from one another, as the document's links say: made, looked at, stopped, tried again, deleted, asked for again.

`test_openapi_fuzz.py` tries each request alone, where an id is nearly always nobody's. Here a workspace has work in every
state, and what a request answers leads to the next, in orders that nobody thought of.
"""

import copy
import uuid
from collections import Counter
from contextlib import ExitStack
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase
from hypothesis import settings as effort
from running import Running, Workspace, small_zip, workspace

from app.main import create_app
from app.settings import Settings
from tests.generated import CHECKS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# a stream goes on until the work has ended, and here nobody works
ENDLESS = "/events"


def leads_on(path: str, method: str, parameter: dict[str, Any]) -> bool:
    """Not filters that nothing meets, nor waiting for work that nobody does."""
    if method != "get" or parameter["in"] != "query":
        return True
    return parameter["name"] == "sort" if "{" not in path else parameter["name"] != "wait"


def document() -> dict[str, Any]:
    """The service's own, less what would lead nowhere: other keys, filters that nothing meets, streams without an end."""
    found = copy.deepcopy(create_app(Settings()).openapi())
    for path in [path for path in found["paths"] if path.endswith(ENDLESS)]:
        del found["paths"][path]
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            operation.pop("security", None)
            operation["parameters"] = [
                one for one in operation.get("parameters", []) if leads_on(path, method, one)
            ]
    return found


def fill(space: Workspace) -> None:
    """One of every kind, in several states."""
    waiting, ended = space.ranking(2), space.ranking(1)
    (one,) = ended["checkpoint_ids"]
    space.score(waiting, waiting["checkpoint_ids"][0], 0.5)
    space.score(ended, one, 0.5)
    space.rank(ended, [(one, 0.5)])
    dataset = ended["dataset_id"]
    for path, body in (
        ("verifications", {"dataset_id": dataset, "checkpoint_id": one}),
        ("searches", {"dataset_id": dataset, "checkpoint_ids": [one], "budget_minutes": 60}),
        ("studies", {"dataset_ids": [dataset], "checkpoint_ids": [one]}),
    ):
        space.http.post(f"/v1/{path}", json=body).raise_for_status()
    broken = space.http.post(
        "/v1/datasets", content=small_zip(), params={"name": "broken"}
    ).raise_for_status()
    space.fail(broken.json()["job_id"])


def test_requests_that_follow_from_one_another(service: Running) -> None:
    schema = schemathesis.openapi.from_dict(document())
    schema.config.update(base_url=service.url)
    answered: Counter[tuple[str, int]] = Counter()

    class Play(schema.as_state_machine()):
        # each game begins alike, in a workspace of its own: what one leaves would change what the next can draw
        def setup(self) -> None:
            self.opened = ExitStack()
            self.space = self.opened.enter_context(workspace(service, uuid.uuid4().hex))
            fill(self.space)

        def teardown(self) -> None:
            self.opened.close()

        def before_call(self, case: schemathesis.Case) -> None:
            case.headers["Authorization"] = f"Bearer {self.space.key}"
            if "/uploads" in case.operation.path:
                case.headers["Tus-Resumable"] = "1.0.0"

        def get_call_kwargs(self, case: schemathesis.Case) -> dict[str, Any]:
            return {"timeout": 30}

        def validate_response(self, response: Any, case: schemathesis.Case, **_: Any) -> None:
            answered[f"{case.method} {case.operation.path}", response.status_code] += 1
            case.validate_response(response, checks=CHECKS)

    Play.run(
        settings=effort(
            max_examples=15,
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            database=None,
            phases=(Phase.explicit, Phase.generate),
            suppress_health_check=list(HealthCheck),
        )
    )
    reached = {operation for (operation, status), _ in answered.items() if status < 300}
    assert len(reached) > 30, sorted(reached)
