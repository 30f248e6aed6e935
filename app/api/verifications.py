"""/v1/verifications and /v1/subsets"""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from app.api import learning, work
from app.api.caching import cached
from app.api.deps import ContextDep, IdempotencyKey, IfNoneMatch
from app.api.paging import paged
from app.api.problems import responses
from app.db.tables import Dataset, Subset, Verification
from app.schemas.common import Page
from app.schemas.verifications import (
    Predictions,
    PredictionsQuery,
    SubsetQuery,
    SubsetSummary,
    SubsetView,
    VerificationCreate,
    VerificationQuery,
    VerificationSummary,
    VerificationView,
)
from app.services import predictions, verification_views, verifications, works
from app.services.listing import listed
from app.services.records import owned

router = APIRouter(prefix="/v1/verifications", tags=["verifications"])
subsets_router = APIRouter(prefix="/v1/subsets", tags=["verifications"])

ROUTES = work.Routes(
    listing=verifications.LISTING,
    query=VerificationQuery,
    view=VerificationView,
    summary=VerificationSummary,
    shown=lambda session, row, _: verification_views.view(session, row),
    summarised=verification_views.summary,
    says=work.Sentences(
        listed="Verifications, newest first.",
        shown="One verification: what was asked, how far it is, and what came of it.",
        events="States, progress and points of the learning curves, as server-sent events.",
        retried="Try a failed or cancelled verification again, from the state it had reached.",
        deleted="Delete a verification that has ended; the fine-tuned checkpoint stays.",
    ),
)


@router.post("", status_code=202, response_model=VerificationView, responses=responses(400, 409, 413))
def create_verification(
    request: Request, context: ContextDep, body: VerificationCreate, key: IdempotencyKey = None
) -> JSONResponse:
    """Fine-tune a checkpoint on a dataset by a recipe, to know its mAP."""
    return work.create_once(
        request,
        context,
        key,
        body,
        ROUTES,
        lambda session: verifications.create(session, context.workspace_id, body, context.settings),
    )


@subsets_router.get("", response_model=Page[SubsetSummary])
def list_subsets(
    request: Request, response: Response, context: ContextDep, asked: Annotated[SubsetQuery, Query()]
) -> Page:
    """Subsets of training images, newest first, without their lists."""
    with context.database.reading() as session:
        found, cursor = listed(session, context.workspace_id, verifications.SUBSETS, asked)
        return paged(request, response, [verification_views.subset_summary(row) for row in found], cursor)


@subsets_router.get("/{id}", response_model=SubsetView, responses=responses(404))
def get_subset(id: str, context: ContextDep, if_none_match: IfNoneMatch = None) -> Response:
    """The images (and with shots the boxes) that verifications see; drawn once, by the first of them."""
    with context.database.reading() as session:
        row = owned(session, Subset, context.workspace_id, id)
        version = 1 if row.drawn_at is None else 2
        return cached(if_none_match, version, lambda: verification_views.subset_view(row))


@router.get("/{id}/predictions", response_model=Predictions, responses=responses(404))
def get_verification_predictions(
    id: str, context: ContextDep, asked: Annotated[PredictionsQuery, Query()]
) -> Predictions:
    """True boxes and what was found, image by image, the worst first."""
    with context.database.reading() as session:
        row = works.find(session, context.workspace_id, Verification, id)
        dataset = session.get(Dataset, row.dataset_id)
    return predictions.page(context.store, row, dataset, asked)


learning.add_learning_routes(
    router,
    learning.Learning(
        table=Verification,
        curves=verification_views.curves,
        as_csv="The learning curves as a table, so far or whole.",
        as_json="The learning curves, so far or whole; new points also come as events of kind `curve`.",
        picture="Predictions beside the truth, for one image.",
        plot="A plot: learning curves, precision against recall.",
    ),
)
work.add_routes(router, ROUTES)
