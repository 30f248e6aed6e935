import pytest
from plain_metrics import draw


@pytest.fixture
def make():
    return draw
