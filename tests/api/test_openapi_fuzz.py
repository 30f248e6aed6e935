"""What the OpenAPI document promises, tried with generated requests: no 5xx, and only answers that it lists"""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase
from hypothesis import settings as effort
from running import Workspace
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.main import create_app
from app.settings import Settings

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@schemathesis.serializer("application/offset+octet-stream")
def part_of_an_upload(_: object, value: object) -> bytes:
    return getattr(value, "data", None) or str(value).encode()


schema = schemathesis.openapi.from_dict(create_app(Settings()).openapi())


@schema.parametrize()
@effort(
    max_examples=6,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
@pytest.mark.slow
def test_generated_requests(case: schemathesis.Case, space: Workspace) -> None:
    case.call_and_validate(base_url=space.service.url, checks=CHECKS, headers={"Authorization": f"Bearer {space.key}"}, timeout=30)
