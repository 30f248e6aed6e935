"""What can go wrong between the client and the service."""

from typing import Any


class DetrankError(Exception):
    """Every failure that the client tells of."""


class ProblemError(DetrankError):
    """The service refused, or what it was to do failed; `problem` is the RFC 9457 document that says why.

    `problem["type"]` is the address of a page about this kind of problem.
    """

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(problem.get("detail") or problem.get("title") or "the service refused")
        self.problem = problem

    @property
    def status(self) -> int:
        """The HTTP status."""
        return int(self.problem.get("status") or 0)

    @property
    def code(self) -> str:
        """The kind of problem in a word, such as `not_found`."""
        return str(self.problem.get("code") or "")

    @property
    def errors(self) -> list[dict[str, Any]]:
        """What is wrong with which field: `{"pointer", "message"}`."""
        return list(self.problem.get("errors") or [])


class Unreachable(DetrankError):
    """No answer, or none that this client understands."""


class StartFailed(DetrankError):
    """The embedded service did not come up; the message has its last words and where the rest is."""
