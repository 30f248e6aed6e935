"""What the OpenAPI document promises, tried with generated requests: no 5xx, and only answers that it lists"""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase
from hypothesis import settings as effort
from running import Workspace

from app.main import create_app
from app.settings import Settings
from tests.generated import CHECKS

schema = schemathesis.openapi.from_dict(create_app(Settings()).openapi())


@schema.parametrize()
@effort(
    max_examples=4,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
@pytest.mark.slow
def test_generated_requests(case: schemathesis.Case, space: Workspace) -> None:
    case.call_and_validate(
        base_url=space.service.url,
        checks=CHECKS,
        headers={"Authorization": f"Bearer {space.key}"},
        timeout=30,
    )
