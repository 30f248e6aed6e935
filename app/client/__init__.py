"""The Python client: `from app.client import Client`."""

from app.client.client import Client, ProblemError, Unreachable
from app.client.resources import ENDED

__all__ = ["ENDED", "Client", "ProblemError", "Unreachable"]
