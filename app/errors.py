"""What can go wrong, declared once: code, HTTP status, title and whether trying again may help.

The API turns these into RFC 9457 problem documents, workers store them on the job and its resource.
A `detail` says what was found and what to change; `errors` points at fields: `{"pointer": "/metrics/1", "message": ...}`.
`type` is where the service explains this kind of problem; `app/explanations.py` has the texts.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

from typing_extensions import TypedDict

Fault = dict[str, str]  # {"pointer", "message"}: a field of a request, and what is wrong with it


class Problem(TypedDict):
    """An expected failure as it is stored on jobs and resources, and sent as the core of a problem document."""

    type: str
    code: str
    title: str
    status: int
    detail: str
    errors: list[Fault]
    retryable: bool


class DetrankError(Exception):
    """Base of every expected failure."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Something went wrong on our side"
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str, *, errors: list[Fault] | None = None, code: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors or []
        self.reason = code or self.code

    @property
    def type(self) -> str:
        """Where the service explains this kind of problem, relative to its own address."""
        return f"/problems/{self.code}"

    def to_dict(self) -> Problem:
        return {
            "type": self.type,
            "code": self.reason,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "errors": self.errors,
            "retryable": self.retryable,
        }


def detail_of(error: Problem | None, otherwise: str) -> str:
    """What a stored problem says was wrong."""
    return (error["detail"] if error is not None else None) or otherwise


class NotFound(DetrankError):
    code, status, title = "not_found", 404, "There is no such thing here"


class MethodNotAllowed(DetrankError):
    code, status, title = "method_not_allowed", 405, "This method does not work here"


class InvalidRequest(DetrankError):
    code, status, title = "invalid_request", 422, "The request cannot be carried out as written"


class MalformedRequest(DetrankError):
    code, status, title = "malformed_request", 400, "The request could not be read"


class Unauthenticated(DetrankError):
    code, status, title = "unauthenticated", 401, "A valid API key is needed"


class Forbidden(DetrankError):
    code, status, title = "forbidden", 403, "This is not allowed here"


class Conflict(DetrankError):
    code, status, title = "conflict", 409, "The state of things does not allow it now"


class PreconditionFailed(DetrankError):
    code, status, title = "precondition_failed", 412, "It has changed since you read it"


class TooLarge(DetrankError):
    code, status, title = "too_large", 413, "The body is larger than allowed"


class UnsupportedMedia(DetrankError):
    code, status, title = "unsupported_media_type", 415, "This kind of body is not understood"


class ChecksumMismatch(DetrankError):
    code, status, title, retryable = "checksum_mismatch", 460, "The part was damaged on the way", True


class StorageFull(DetrankError):
    code, status, title, retryable = "storage_full", 507, "There is no room to keep this", True


class Unavailable(DetrankError):
    code, status, title, retryable = "unavailable", 503, "A part that is needed does not answer", True


class QuotaExceeded(DetrankError):
    code, status, title = "quota_exceeded", 403, "The workspace has used up what it may"


class TooManyRequests(DetrankError):
    """retry_after_s: how long it is not allowed. headers: which rate it was, as standards tell it."""

    code, status, title, retryable = "too_many_requests", 429, "More often than allowed", True

    def __init__(self, detail: str, retry_after_s: int, headers: dict[str, str]) -> None:
        super().__init__(detail)
        self.retry_after_s, self.headers = retry_after_s, headers


class UnusableArchive(InvalidRequest):
    code, title = "unusable_archive", "The archive cannot be used"


class UnusableDataset(InvalidRequest):
    code, title = "unusable_dataset", "The dataset cannot be used"


class SourceChanged(DetrankError):
    code, status, title = "source_changed", 409, "A picture is no longer what the dataset was made of"


class UnusableCheckpoint(InvalidRequest):
    code, title = "unusable_checkpoint", "The checkpoint cannot be used"


class CandidateFailed(DetrankError):
    code, status, title = "candidate_failed", 422, "This candidate could not be scored"


class VerificationFailed(DetrankError):
    code, status, title = "verification_failed", 422, "The checkpoint could not be fine-tuned"


class PretrainingFailed(DetrankError):
    code, status, title = "pretraining_failed", 422, "The detector could not be pretrained"


class PseudoLabellingFailed(DetrankError):
    code, status, title = "pseudo_labelling_failed", 422, "There are no pseudo boxes"


class StudyFailed(DetrankError):
    code, status, title = "study_failed", 422, "The study has nothing to stand on"


class AttemptsExhausted(DetrankError):
    code, status, title = (
        "attempts_exhausted",
        500,
        "The job was tried as often as allowed and did not finish",
    )


class TimeLimitExceeded(DetrankError):
    code, status, title = "time_limit_exceeded", 500, "The job took longer than allowed"


class TransientFailure(DetrankError):
    code, status, title, retryable = "transient_failure", 503, "A passing fault; the job is tried again", True


class Cancelled(DetrankError):
    code, status, title = "cancelled", 409, "It was cancelled"


def refuse(faults: Sequence[Fault], kind: type[DetrankError] = InvalidRequest) -> None:
    """Raises `kind` naming each fault, where there are any."""
    if not faults:
        return
    detail = faults[0]["message"]
    if len(faults) > 1:
        detail = f"{len(faults)} things are wrong: " + "; ".join(fault["message"] for fault in faults[:5])
    raise kind(detail, errors=list(faults))


def twice(pointer: str, values: Sequence[Any]) -> list[Fault]:
    """A fault for each value of the list at `pointer` that stands in it before."""
    return [
        {"pointer": f"{pointer}/{index}", "message": f"{value} is named twice"}
        for index, value in enumerate(values)
        if value in values[:index]
    ]
