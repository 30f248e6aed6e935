"""What can go wrong, declared once: code, HTTP status, title and whether trying again may help.

The API turns these into RFC 9457 problem documents, workers store them on the job and its resource.
A `detail` says what was found and what to change; `errors` points at fields: `{"pointer": "/metrics/1", "message": ...}`.
"""

from typing import Any, ClassVar


class DetrankError(Exception):
    """Base of every expected failure."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    title: ClassVar[str] = "Something went wrong on our side"
    retryable: ClassVar[bool] = False

    def __init__(self, detail: str, *, errors: list[dict[str, str]] | None = None, code: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.errors = errors or []
        self.reason = code or self.code

    def to_dict(self) -> dict[str, Any]:
        """The form stored on jobs and resources, and sent as the core of a problem document."""
        return {
            "type": f"urn:detrank:problem:{self.code}",
            "code": self.reason,
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "errors": self.errors,
            "retryable": self.retryable,
        }


class NotFound(DetrankError):
    code, status, title = "not_found", 404, "There is no such thing here"


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


class StorageFull(DetrankError):
    code, status, title, retryable = "storage_full", 507, "There is no room to keep this", True


class Unavailable(DetrankError):
    code, status, title, retryable = "unavailable", 503, "A part that is needed does not answer", True


class UnusableArchive(InvalidRequest):
    code, title = "unusable_archive", "The archive cannot be used"


class UnusableDataset(InvalidRequest):
    code, title = "unusable_dataset", "The dataset cannot be used"


class UnusableCheckpoint(InvalidRequest):
    code, title = "unusable_checkpoint", "The checkpoint cannot be used"


class CandidateFailed(DetrankError):
    code, status, title = "candidate_failed", 422, "This candidate could not be scored"


class VerificationFailed(DetrankError):
    code, status, title = "verification_failed", 422, "The checkpoint could not be fine-tuned"


class StudyFailed(DetrankError):
    code, status, title = "study_failed", 422, "The study has nothing to stand on"


class AttemptsExhausted(DetrankError):
    code, status, title = "attempts_exhausted", 500, "The job was tried as often as allowed and did not finish"


class TimeLimitExceeded(DetrankError):
    code, status, title = "time_limit_exceeded", 500, "The job took longer than allowed"


class TransientFailure(DetrankError):
    code, status, title, retryable = "transient_failure", 503, "A passing fault; the job is tried again", True
