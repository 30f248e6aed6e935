"""The Python client: `from app.client import Client`."""

from app.client.client import ENDED, Client, ProblemError, Unreachable

__all__ = ["ENDED", "Client", "ProblemError", "Unreachable"]
