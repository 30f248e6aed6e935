"""What is wrong with a request, field by field, and the one refusal for all of it."""

from collections.abc import Sequence

from app.errors import DetrankError, InvalidRequest

Fault = dict[str, str]  # {"pointer", "message"}


def refuse(faults: Sequence[Fault], kind: type[DetrankError] = InvalidRequest) -> None:
    """Raises `kind` naming each fault, where there are any."""
    if not faults:
        return
    detail = faults[0]["message"]
    if len(faults) > 1:
        detail = f"{len(faults)} things are wrong: " + "; ".join(fault["message"] for fault in faults[:5])
    raise kind(detail, errors=list(faults))
