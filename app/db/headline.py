"""The one figure of a verification that lists and tables show."""

from app.db.documents import VerificationResult


def headline(result: VerificationResult | None) -> tuple[float | None, float | None, str | None]:
    """(mAP@[.5:.95], AP50, where) of a verification's result: on test images, or on validation where there are no others."""
    if result is not None:
        for split, evaluation in (("test", result.get("test")), ("val", result.get("val"))):
            if evaluation:
                return evaluation["box"]["map"], evaluation["box"].get("ap50"), split
    return None, None, None
