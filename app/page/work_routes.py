"""Searches, studies, pretrainings and pseudo-labellings: a new one of each, and one as it comes and as it is."""

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from app.page import choices
from app.page.ask import Asker, Record
from app.page.evaluations import curve, map_curve, recall_curves, spent_by_round, trusted
from app.page.page_route import PageRoute
from app.page.render import page
from app.page.routes import followed, names

router = APIRouter(include_in_schema=False, route_class=PageRoute)


@router.get("/searches/new")
async def new_search(request: Request) -> HTMLResponse:
    ask = Asker(request)
    offered, recipes, trainings = await asyncio.gather(
        choices.ready(ask), ask.items_of("/v1/recipes"), choices.trainings(ask)
    )
    return page(request, "search_new.html", **offered, recipes=recipes, trainings=trainings)


@router.get("/searches/{id}")
async def search(request: Request, id: str) -> HTMLResponse:
    """A search: where the budget went, round by round."""
    ask = Asker(request)
    found, called = await asyncio.gather(ask.get(f"/v1/searches/{id}"), names(ask))
    return page(
        request,
        "search.html",
        search=found,
        spans=spent_by_round(found),
        names=called,
        follow=followed(found, "searches"),
    )


@router.get("/studies/new")
async def new_study(request: Request) -> HTMLResponse:
    ask = Asker(request)
    offered, recipes, metrics = await asyncio.gather(
        choices.ready(ask), ask.items_of("/v1/recipes"), ask.items_of("/v1/metrics")
    )
    return page(request, "study_new.html", **offered, recipes=recipes, metrics=metrics)


@router.get("/studies/{id}")
async def study(request: Request, id: str) -> HTMLResponse:
    """A study: which metric deserved trust."""
    found = await Asker(request).get(f"/v1/studies/{id}")
    return page(request, "study.html", study=found, trusted=trusted(found), follow=followed(found, "studies"))


@router.get("/pretrainings/new")
async def new_pretraining(request: Request) -> HTMLResponse:
    ask = Asker(request)
    offered, known, recipes = await asyncio.gather(
        choices.ready(ask), ask.get("/v1/pretraining-recipes"), ask.items_of("/v1/recipes")
    )
    return page(
        request,
        "pretraining_new.html",
        **offered,
        pretraining_recipes=known["items"],
        quick=next(one for one in known["items"] if one["image_size"] is not None),
        took=await choices.pretrainings(ask, offered["checkpoints"]),
        proposals=known["proposals"],
        recipes=recipes,
        method="self_training" if request.query_params.get("method") == "self_training" else "detreg",
        chosen=request.query_params.get("checkpoint"),
        chosen_dataset=request.query_params.get("dataset"),
    )


@router.get("/pretrainings/{id}")
async def pretraining(request: Request, id: str) -> HTMLResponse:
    """A detector that learns from pictures without labels, and what that gained."""
    ask = Asker(request)
    found, curves, called = await asyncio.gather(
        ask.get(f"/v1/pretrainings/{id}"), ask.items_of(f"/v1/pretrainings/{id}/curves"), names(ask)
    )
    return page(
        request,
        "pretraining.html",
        pretraining=found,
        losses=curve(curves),
        recalls=recall_curves(curves),
        maps=map_curve(curves) if found["method"] == "self_training" else [],
        names=called,
        follow=followed(found, "pretrainings"),
    )


@router.get("/pseudo-labellings/new")
async def new_pseudo_labelling(request: Request) -> HTMLResponse:
    offered = await choices.ready(Asker(request))
    dataset, teachers = request.query_params.get("dataset"), _teachers(request.app.openapi())
    labelled = any(
        one["id"] == dataset and one["supervision"] == "image_labels" for one in offered["datasets"]
    )
    chosen = request.query_params.get("checkpoint")
    words = any(one["id"] == chosen for one in offered["open_vocabulary"])
    return page(
        request,
        "pseudo_labelling_new.html",
        **offered,
        teachers=teachers,
        teacher="words" if words else "image_labels" if labelled else teachers[0],
        chosen=chosen,
        chosen_dataset=dataset,
    )


def _teachers(document: Record) -> list[str]:
    """The teachers that POST /v1/pseudo-labellings takes, by its own document."""
    field = document["components"]["schemas"]["PseudoLabellingCreate"]["properties"]["teacher"]
    return field.get("enum") or [field["const"]]


@router.get("/pseudo-labellings/{id}")
async def pseudo_labelling(request: Request, id: str) -> HTMLResponse:
    """Boxes that a teacher says, and what they are worth."""
    ask = Asker(request)
    found, curves, called = await asyncio.gather(
        ask.get(f"/v1/pseudo-labellings/{id}"), ask.items_of(f"/v1/pseudo-labellings/{id}/curves"), names(ask)
    )
    bins = found["quality"]["calibration"]["bins"] if found["quality"] else []
    return page(
        request,
        "pseudo_labelling.html",
        pseudo_labelling=found,
        bins=[(one["score"], one["right"]) for one in bins if one["boxes"]],
        losses=curve(curves),
        names=called,
        follow=followed(found, "pseudo-labellings"),
    )
