"""Rankings: a new one, one as it comes and as it is, and everything about one of its candidates."""

import asyncio
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from app.page import choices
from app.page import ranking_table as table
from app.page.ask import Asker
from app.page.page_route import PageRoute
from app.page.render import alone, page
from app.page.routes import followed, names, nothing_here

router = APIRouter(include_in_schema=False, route_class=PageRoute)

MOST_COMPARED = 50


@router.get("/rankings/new")
async def new_ranking(request: Request) -> HTMLResponse:
    ask = Asker(request)
    offered, metrics, workers, recipes, done = await asyncio.gather(
        choices.ready(ask),
        ask.items_of("/v1/metrics"),
        ask.items_of("/v1/workers"),
        ask.items_of("/v1/recipes"),
        ask.get("/v1/rankings", state="succeeded", limit=MOST_COMPARED),
    )
    return page(
        request,
        "ranking_new.html",
        **offered,
        paces=await choices.paces(ask, offered["datasets"]),
        metrics=metrics,
        recipes=recipes,
        rankings=done["items"],
        names={one["id"]: one["name"] for one in offered["datasets"]},
        workers=[worker for worker in workers if worker["alive"]],
        chosen=request.query_params.getlist("checkpoint"),
        chosen_dataset=request.query_params.get("dataset"),
    )


@router.get("/rankings/latest")
async def latest_ranking(request: Request, dataset: str | None = None) -> Response:
    """A link that always leads to the newest ranking, with `dataset` to that dataset's: one that is done before others."""
    ask = Asker(request)
    for state in ("succeeded", None):
        found = (await ask.get("/v1/rankings", limit=1, dataset_id=dataset, state=state))["items"]
        if found:
            return RedirectResponse(f"/rankings/{found[0]['id']}", 303)
    return RedirectResponse(f"/datasets/{dataset}" if dataset else "/rankings", 303)


@router.get("/rankings/{id}.html")
async def ranking_file(request: Request, id: str) -> Response:
    """A ranking as one HTML file."""
    return alone(request, "ranking.html", f"{id}.html", **await _shown(request, id))


@router.get("/rankings/{id}")
async def ranking(request: Request, id: str) -> Response:
    """The order, how sure it is, what each candidate costs, and who is left out."""
    return page(request, "ranking.html", **await _shown(request, id))


# what the page asks the API to leave out, by the API's own names; memory is written in GiB
LIMITS = ("max_inference_ms", "max_parameters", "max_training_s", "fits", "frontier", "order_by")
GIB = 2**30


def limits_of(request: Request) -> dict[str, Any]:
    """Of the address what is a limit and says something; the API checks it."""
    given = request.query_params
    found: dict[str, Any] = {name: given[name] for name in LIMITS if given.get(name)}
    if memory := given.get("max_training_gib"):
        try:
            found["max_training_memory_bytes"] = int(float(memory) * GIB)
        except (ValueError, OverflowError):
            found["max_training_memory_bytes"] = memory  # that the API says what is wrong with it
    return found


async def _shown(request: Request, id: str) -> dict[str, Any]:
    ask, limits = Asker(request), limits_of(request)
    found, called = await asyncio.gather(ask.get(f"/v1/rankings/{id}", **limits), names(ask))
    jobs = {}
    if found["state"] in ("running", "cancelling"):
        jobs = {
            job["checkpoint_id"]: job
            for job in await ask.items("/v1/jobs", resource_id=id, state="running")
            if job["checkpoint_id"]
        }
    rows = table.rows(found)
    return {
        "ranking": found,
        "rows": rows,
        "span": table.span(rows),
        "accuracy": table.accuracy_of(rows),
        "points": table.points(rows, table.accuracy_of(rows)),
        "verified": table.points(rows, "map"),
        "orders": table.static_orders(found),
        "quantity": table.quantity(found),
        "asked": request.query_params,
        "limits": urlencode(limits),
        "jobs": jobs,
        "names": called,
        "follow": followed(found, "rankings"),
    }


@router.get("/rankings/{id}/scores")
async def scores(request: Request, id: str, by: str | None = None) -> Response:
    """The candidates by any metric at any layer; by what the ranking is ordered by where nothing is asked for."""
    found = await Asker(request).get(f"/v1/rankings/{id}")
    places = table.places(found)
    own = table.place_of(found["ranked_by"] or {})
    chosen = by if by in places else own if own in places else next(iter(places), None)
    return page(
        request,
        "scores.html",
        ranking=found,
        places=places,
        chosen=chosen,
        own=own,
        rows=table.by_place(found, chosen) if chosen else [],
    )


@router.get("/rankings/{id}/candidates/{checkpoint_id}")
async def candidate(request: Request, id: str, checkpoint_id: str) -> Response:
    """Everything that the ranking knows of one candidate: every metric at every layer, cost, seconds, warnings."""
    found = await Asker(request).get(f"/v1/rankings/{id}")
    for one in found["candidates"]:
        if one["checkpoint_id"] == checkpoint_id:
            return page(
                request,
                "candidate.html",
                ranking=found,
                candidate=one,
                scores=table.metrics_of(one),
                follow=None,
            )
    return nothing_here(request)
