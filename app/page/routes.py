"""The addresses of the page. Each mirrors one of the API: what `/v1/rankings/rk_...` tells, `/rankings/rk_...` shows."""

import asyncio
from collections.abc import Sequence
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response

from app.page.ask import Asker, Record, Refused
from app.page.page_route import PageRoute
from app.page.reference import operations
from app.page.render import page
from app.page.words import ended

router = APIRouter(include_in_schema=False, route_class=PageRoute)
MOST_CLASSES = 30
MOST_FOREBEARS = 8

# what a list holds -> its title; the template has the columns
LISTS = {
    "rankings": "Rankings",
    "datasets": "Datasets",
    "checkpoints": "Checkpoints",
    "verifications": "Verifications",
    "searches": "Searches",
    "studies": "Studies",
    "pretrainings": "Pretrainings",
    "pseudo-labellings": "Pseudo-labellings",
    "jobs": "Jobs",
}


WORK_STATES = ("queued", "running", "succeeded", "failed", "cancelled")
STATES_OF = {
    "datasets": ("processing", "ready", "invalid"),
    "checkpoints": ("processing", "ready", "invalid"),
}


@router.get("/")
async def home(request: Request) -> HTMLResponse:
    """What there is, and what to do next."""
    ask = Asker(request)
    kinds = ("rankings", "datasets", "checkpoints")
    *lists, jobs, workers = await asyncio.gather(
        *(ask.get(f"/v1/{kind}", limit=6) for kind in kinds),
        ask.items("/v1/jobs", state="running"),
        ask.items_of("/v1/workers"),
    )
    found = {kind: answer["items"] for kind, answer in zip(kinds, lists, strict=True)}
    return page(
        request,
        "home.html",
        **found,
        running=jobs,
        workers=workers,
        names=await names(ask),
        follow=active(found["rankings"], "rankings"),
    )


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    """The whole API, rendered here: nothing is loaded from elsewhere."""
    return page(request, "docs.html", tags=operations(request.app.openapi()))


@router.get("/workers")
async def workers(request: Request) -> HTMLResponse:
    """Who computes, and on what."""
    return page(request, "workers.html", items=await Asker(request).items_of("/v1/workers"), follow=None)


def _list(kind: str) -> None:
    async def listed(request: Request, cursor: str | None = None, state: str | None = None) -> HTMLResponse:
        ask = Asker(request)
        found, called = await asyncio.gather(
            ask.get(f"/v1/{kind}", limit=50, cursor=cursor, state=state or None), names(ask)
        )
        return page(
            request,
            "list.html",
            kind=kind,
            title=LISTS[kind],
            items=found["items"],
            next_cursor=found["next_cursor"],
            state=state,
            states=STATES_OF.get(kind, WORK_STATES),
            names=called,
            follow=active(found["items"], kind),
        )

    router.get(f"/{kind}", name=f"page_{kind}")(listed)


for _kind in LISTS:
    _list(_kind)


@router.get("/datasets/new")
async def new_dataset(request: Request) -> HTMLResponse:
    ask = Asker(request)
    formats = await ask.get("/v1/formats")
    return page(request, "dataset_new.html", formats=formats["datasets"])


@router.get("/datasets/{id}")
async def dataset(request: Request, id: str) -> HTMLResponse:
    """A dataset with its report: what was read as what, and everything that was dropped."""
    ask = Asker(request)
    found = await ask.get(f"/v1/datasets/{id}")
    report, rankings = await asyncio.gather(
        ask.get_or_none(f"/v1/datasets/{id}/report"), ask.items("/v1/rankings", dataset_id=id)
    )
    return page(
        request,
        "dataset.html",
        dataset=found,
        report=report,
        class_rows=class_rows(found["summary"] or {}),
        rankings=rankings,
        job=await job_of(ask, found),
        follow=followed(found),
    )


@router.get("/checkpoints/new")
async def new_checkpoint(request: Request) -> HTMLResponse:
    ask = Asker(request)
    architectures, shelf = await asyncio.gather(ask.items_of("/v1/architectures"), ask.items_of("/v1/shelf"))
    return page(request, "checkpoint_new.html", architectures=architectures, shelf=shelf)


@router.get("/checkpoints/{id}")
async def checkpoint(request: Request, id: str) -> HTMLResponse:
    """Weights: what they are, what was asked or guessed, where they come from."""
    ask = Asker(request)
    found = await ask.get(f"/v1/checkpoints/{id}")
    rankings, trained, forebears = await asyncio.gather(
        ask.items("/v1/rankings", checkpoint_id=id),
        ask.items("/v1/verifications", checkpoint_id=id),
        lineage(ask, found),
    )
    return page(
        request,
        "checkpoint.html",
        checkpoint=found,
        manifest=found["manifest"] or {},
        rankings=rankings,
        trained=trained,
        forebears=forebears,
        cost=await cost_of(ask, id, rankings),
        job=await job_of(ask, found),
        follow=followed(found),
    )


@router.get("/jobs/{id}")
async def job(request: Request, id: str) -> HTMLResponse:
    """One unit of work: where it runs, how far it is, and what to do about an error."""
    ask = Asker(request)
    found = await ask.get(f"/v1/jobs/{id}")
    of_owner, called = await asyncio.gather(
        ask.items("/v1/jobs", resource_id=found["resource_id"]), names(ask)
    )
    return page(
        request,
        "job.html",
        job=found,
        children=[one for one in of_owner if one["id"] != id],
        names=called,
        about=await about_error(ask, found["error"]),
        owner=owner_of(found),
        follow=followed(found, "jobs"),
    )


async def about_error(ask: Asker, error: Record | None) -> Record | None:
    """What the service says of this kind of error; None where it says nothing."""
    code = str((error or {}).get("type") or "").rpartition("/")[2]
    return await ask.get_or_none(f"/v1/problems/{quote(code)}") if code else None


async def lineage(ask: Asker, checkpoint: Record) -> list[Record]:
    """The checkpoint and those that it was trained from, itself first; one that was deleted is {name} alone."""
    found = [checkpoint]
    while len(found) < MOST_FOREBEARS:
        parent = (found[-1].get("provenance") or {}).get("parent") or {}
        if not parent.get("checkpoint_id"):
            break
        found.append(
            await ask.get_or_none(f"/v1/checkpoints/{parent['checkpoint_id']}")
            or {"name": parent.get("name") or parent["checkpoint_id"]}
        )
    return found


async def cost_of(ask: Asker, id: str, rankings: Sequence[Record]) -> Record | None:
    """What it cost in the newest ranking that measured it: {ranking, cost, timings}."""
    for one in [each for each in rankings if each["state"] == "succeeded"][:2]:
        ranking = await ask.get(f"/v1/rankings/{one['id']}")
        for candidate in ranking["candidates"]:
            if candidate["checkpoint_id"] == id and candidate["cost"]["ms_per_image"] is not None:
                return {"ranking": ranking, "cost": candidate["cost"], "timings": candidate["timings"] or {}}
    return None


def class_rows(summary: Record) -> list[tuple[str, float]]:
    """The most frequent classes with their objects."""
    found = [(one["name"], one["annotations"]) for one in summary.get("categories") or []]
    return sorted(found, key=lambda row: -row[1])[:MOST_CLASSES]


OWNERS = {
    "ds": "datasets",
    "ckpt": "checkpoints",
    "rk": "rankings",
    "vf": "verifications",
    "sr": "searches",
    "st": "studies",
    "pt": "pretrainings",
    "pl": "pseudo-labellings",
}


def owner_of(job: Record) -> str | None:
    """The address of what a job works for; None where it has no page."""
    kind = OWNERS.get(job["resource_id"].partition("_")[0])
    return f"/{kind}/{job['resource_id']}" if kind else None


def followed(record: Record, kind: str | None = None) -> str | None:
    """The stream that says when this record changes; None where it has ended. Datasets and checkpoints have their job's."""
    if ended(record):
        return None
    if kind is None:
        return f"/v1/jobs/{record['job_id']}/events" if record["job_id"] else None
    return f"/v1/{kind}/{record['id']}/events"


def active(records: Sequence[Record], kind: str) -> str | None:
    """The stream of the newest record of a list that goes on: one list follows one stream."""
    own = None if kind in ("datasets", "checkpoints") else kind
    return next((stream for record in records if (stream := followed(record, own))), None)


async def names(ask: Asker) -> dict[str, str]:
    """Names of the newest datasets and checkpoints by id; what is older is called by its id."""
    lists = await asyncio.gather(ask.items("/v1/datasets"), ask.items("/v1/checkpoints"))
    return {record["id"]: record["name"] for found in lists for record in found}


async def job_of(ask: Asker, record: Record) -> Record | None:
    """The job of a dataset or checkpoint that is being read."""
    if record["state"] != "processing" or record["job_id"] is None:
        return None
    return await ask.get_or_none(f"/v1/jobs/{record['job_id']}")


async def refused(request: Request, failure: Refused) -> Response:
    """What the API refused, as a page that says what happened and what to do."""
    problem = failure.problem
    if problem["status"] == 401:
        return page(request, "sign_in.html", 401, problem=problem)
    return page(request, "error.html", problem["status"], problem=problem)


def nothing_here(request: Request) -> Response:
    """For an address that is nobody's."""
    title, detail = (
        "There is nothing at this address",
        f"{request.url.path} is not an address of this service.",
    )
    return page(request, "error.html", 404, problem={"status": 404, "title": title, "detail": detail})
