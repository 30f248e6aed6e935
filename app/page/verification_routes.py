"""Verifications: a new one, its curves and results, and what it finds beside the truth, alone or beside another's."""

import asyncio
from collections.abc import Sequence

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from app.page import choices
from app.page.ask import Asker
from app.page.evaluations import (
    Side,
    classes_of,
    curve,
    headline,
    map_curve,
    precision_at_recall,
    recall_of_classes,
    shots,
)
from app.page.page_route import PageRoute
from app.page.render import page
from app.page.routes import followed, names

router = APIRouter(include_in_schema=False, route_class=PageRoute)
AT_ONCE = 12  # pictures on a page


@router.get("/verifications/new")
async def new_verification(request: Request) -> HTMLResponse:
    ask = Asker(request)
    offered, recipes, trainings = await asyncio.gather(
        choices.ready(ask), ask.get("/v1/recipes"), choices.trainings(ask)
    )
    return page(
        request,
        "verification_new.html",
        **offered,
        recipes=recipes["items"],
        freezes=recipes["freeze"],
        precisions=recipes["precisions"],
        trainings=trainings,
        chosen=request.query_params.get("checkpoint"),
        chosen_dataset=request.query_params.get("dataset"),
    )


@router.get("/verifications/{id}")
async def verification(request: Request, id: str) -> HTMLResponse:
    """A fine-tuning: its curves as they grow, what came of it, and pictures of what it finds."""
    ask = Asker(request)
    found, curves, called = await asyncio.gather(
        ask.get(f"/v1/verifications/{id}"), ask.items_of(f"/v1/verifications/{id}/curves"), names(ask)
    )
    return page(
        request,
        "verification.html",
        verification=found,
        losses=curve(curves),
        recalls=precision_at_recall(headline(found)),
        recalls_of_classes=recall_of_classes(headline(found)),
        maps=map_curve(curves),
        names=called,
        follow=followed(found, "verifications"),
    )


@router.get("/verifications/{id}/pictures")
async def pictures(
    request: Request, id: str, beside: str | None = None, cursor: str | None = None
) -> HTMLResponse:
    """Predictions beside the truth, the worst picture first; with `beside` also those of another, on the same pictures."""
    ask = Asker(request)
    found, called = await asyncio.gather(ask.get(f"/v1/verifications/{id}"), names(ask))
    others, boxes = await asyncio.gather(
        ask.items("/v1/verifications", dataset_id=found["dataset_id"], state="succeeded"),
        ask.get_or_none(f"/v1/verifications/{id}/predictions", limit=AT_ONCE, cursor=cursor),
    )
    sides = [Side("A" if beside else "", found, boxes)]
    if beside:
        ids = [image["image_id"] for image in boxes["items"]] if boxes else []
        other, its = await asyncio.gather(
            ask.get(f"/v1/verifications/{beside}"),
            ask.get_or_none(f"/v1/verifications/{beside}/predictions", image_id=ids),
        )
        sides.append(Side("B", other, its))
    curves = await asyncio.gather(
        *(ask.items_of(f"/v1/verifications/{side.verification['id']}/curves") for side in sides)
    )
    evaluations = [headline(side.verification) for side in sides]
    return page(
        request,
        "pictures.html",
        sides=sides,
        shots=shots(sides),
        others=[one for one in others if one["id"] != id],
        names=called,
        evaluations=evaluations,
        losses=_together(sides, [curve(points) for points in curves]),
        maps=_together(sides, [map_curve(points) for points in curves]),
        recalls=_together(sides, [dict(precision_at_recall(one)).get("IoU 0.50", []) for one in evaluations]),
        classes=classes_of(evaluations),
    )


def _together(
    sides: Sequence[Side], curves: Sequence[list[tuple[float, float]]]
) -> list[tuple[str, list[tuple[float, float]]]]:
    return [(side.letter, points) for side, points in zip(sides, curves, strict=True)]
