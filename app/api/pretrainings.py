"""/v1/pretrainings and /v1/pretraining-recipes"""

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from app.api import learning, work
from app.api.deps import ContextDep, IdempotencyKey
from app.api.problems import responses
from app.db.tables import Pretraining
from app.schemas.pretrainings import (
    PretrainingCreate,
    PretrainingQuery,
    PretrainingRecipes,
    PretrainingSummary,
    PretrainingView,
)
from app.services import pretraining_views, pretrainings

router = APIRouter(prefix="/v1/pretrainings", tags=["pretrainings"])
recipes_router = APIRouter(prefix="/v1/pretraining-recipes", tags=["pretrainings"])

ROUTES = work.Routes(
    listing=pretrainings.LISTING,
    query=PretrainingQuery,
    view=PretrainingView,
    summary=PretrainingSummary,
    shown=lambda session, row, _: pretraining_views.view(session, row),
    summarised=pretraining_views.summary,
    says=work.Sentences(
        listed="Pretrainings, newest first.",
        shown="One pretraining: how far it is, its recall, and whether it was worth it.",
        events="States, progress and points of the curves, as server-sent events.",
        retried="Try a failed or cancelled pretraining again, from the state it had reached.",
        deleted="Delete a pretraining that has ended, with its verifications; its checkpoints stay.",
    ),
)


@router.post("", status_code=202, response_model=PretrainingView, responses=responses(400, 409, 413))
def create_pretraining(
    request: Request, context: ContextDep, body: PretrainingCreate, key: IdempotencyKey = None
) -> JSONResponse:
    """Pretrain a detector on pictures without labels (DETReg), and say whether it was worth it."""
    return work.create_once(
        request,
        context,
        key,
        body,
        ROUTES,
        lambda session: pretrainings.create(session, context.workspace_id, body, context.settings),
    )


@recipes_router.get("", response_model=PretrainingRecipes)
def list_pretraining_recipes(_: ContextDep) -> PretrainingRecipes:
    """How detectors can be pretrained: the published recipes, and one for pictures of one's own."""
    known = pretrainings.known()
    return PretrainingRecipes(items=known["recipes"], proposals=known["proposals"])


learning.add_learning_routes(
    router,
    learning.Learning(
        table=Pretraining,
        curves=pretraining_views.curves,
        as_csv="Losses and recall as a table, so far or whole.",
        as_json="Losses and recall, so far or whole; new points also come as events of kind `curve`.",
        picture="The regions of a watched picture beside what is found there after an epoch.",
        plot="Losses and class-agnostic recall.",
    ),
)
work.add_routes(router, ROUTES)
