"""/v1/pseudo-labellings"""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from sqlalchemy.orm import Session

from app.api import learning, work
from app.api.datasets import shown
from app.api.deps import ContextDep, IdempotencyKey
from app.api.once import accepted, answer_once
from app.api.problems import responses
from app.db.tables import PseudoLabelling
from app.schemas.datasets import DatasetView
from app.schemas.pseudo_label_reviews import CocoDocument, ReviewDecisions, ReviewedDataset, ReviewView
from app.schemas.pseudo_labellings import (
    PseudoLabellingCreate,
    PseudoLabellingQuery,
    PseudoLabellingSummary,
    PseudoLabellingView,
)
from app.services import pseudo_label_reviews as reviews
from app.services import pseudo_labelling_views, pseudo_labellings
from app.services.idempotency import Answer

router = APIRouter(prefix="/v1/pseudo-labellings", tags=["pseudo-labellings"])

ROUTES = work.Routes(
    listing=pseudo_labellings.LISTING,
    query=PseudoLabellingQuery,
    view=PseudoLabellingView,
    summary=PseudoLabellingSummary,
    shown=pseudo_labelling_views.shown,
    summarised=pseudo_labelling_views.summary,
    says=work.Sentences(
        listed="Pseudo-labellings, newest first.",
        shown="One pseudo-labelling: how far it is, the dataset that it makes, and what its boxes are worth.",
        events="States and progress, as server-sent events.",
        retried="Try a failed or cancelled pseudo-labelling again; what was seen in the pictures is kept.",
        deleted="Delete a pseudo-labelling that has ended; the dataset that it made stays.",
    ),
)


@router.post("", status_code=202, response_model=PseudoLabellingView, responses=responses(400, 409, 413))
def create_pseudo_labelling(
    request: Request, context: ContextDep, body: PseudoLabellingCreate, key: IdempotencyKey = None
) -> JSONResponse:
    """Have a teacher say where objects are: a dataset with pseudo boxes, their scores, and what they are worth."""
    return work.create_once(
        request,
        context,
        key,
        body,
        ROUTES,
        lambda session: pseudo_labellings.create(session, context.workspace_id, body, context.settings),
    )


@router.get("/{id}/review", response_model=ReviewView, responses=responses(404, 409))
def get_pseudo_label_review(id: str, context: ContextDep) -> ReviewView:
    """Boxes to accept, reject or correct, the most doubtful first, and what the answers say of all boxes."""
    with context.database.reading() as session:
        return reviews.view(session, reviews.reviewed(session, context.workspace_id, id))


@router.put("/{id}/review", response_model=ReviewView, responses=responses(400, 404, 409, 413))
def put_pseudo_label_review(id: str, context: ContextDep, body: ReviewDecisions) -> ReviewView:
    """Decide on boxes and count missed objects: those named; the others stay as they are."""
    with context.database.unit_of_work() as session:
        return reviews.view(session, reviews.decide(session, context.workspace_id, id, body))


@router.get("/{id}/review/coco", response_model=dict[str, Any], responses=responses(404, 409))
def get_pseudo_label_review_coco(id: str, context: ContextDep) -> dict[str, Any]:
    """What is to be reviewed as a COCO document, for a labelling tool."""
    with context.database.reading() as session:
        return reviews.to_coco(session, reviews.reviewed(session, context.workspace_id, id))


@router.put("/{id}/review/coco", response_model=ReviewView, responses=responses(400, 404, 409, 413))
def put_pseudo_label_review_coco(id: str, context: ContextDep, body: CocoDocument) -> ReviewView:
    """The same document after a labelling tool: boxes left are accepted, moved ones corrected, those gone rejected, new ones missed."""
    with context.database.unit_of_work() as session:
        row = reviews.reviewed(session, context.workspace_id, id)
        made = reviews.decide(session, context.workspace_id, id, reviews.decisions_of(row, body))
        return reviews.view(session, made)


@router.post(
    "/{id}/review/dataset",
    status_code=202,
    response_model=DatasetView,
    responses=responses(400, 404, 409, 413),
)
def make_reviewed_dataset(
    id: str, request: Request, context: ContextDep, body: ReviewedDataset, key: IdempotencyKey = None
) -> JSONResponse:
    """A dataset of its own with what was decided: corrected boxes where they were put, rejected ones gone. A box that was
    decided on counts as drawn by a person; the others keep their scores."""

    def act(session: Session) -> Answer:
        attempts = context.settings.max_attempts
        made = reviews.make_dataset(session, context.workspace_id, id, body.name, max_attempts=attempts)
        return accepted(shown(made), f"/v1/datasets/{made.id}")

    return answer_once(request, context, key, body.model_dump(mode="json"), act)


learning.add_learning_routes(
    router,
    learning.Learning(
        table=PseudoLabelling,
        curves=pseudo_labelling_views.curves,
        as_csv="Losses of a teacher that learns, as a table, so far or whole.",
        as_json="Losses of a teacher that learns, so far or whole; empty of one that does not.",
        picture="A picture with its pseudo boxes and their scores, or with what the teacher saw in it.",
        plot="Calibration of the scores, where true boxes are known.",
    ),
)
work.add_routes(router, ROUTES)
