"""What the forms for new work offer: what is ready, and what earlier work took."""

import asyncio
import statistics
from collections.abc import Sequence
from typing import Any

from app.page.ask import Asker, Record
from app.page.words import family, size

MOST = 400  # of a list of choices: more would be a page of over 200 kB
LOOKED_AT = 3  # rankings whose seconds are asked for


async def ready(ask: Asker) -> dict[str, Any]:
    """Datasets and checkpoints that work can begin with, the newest first; `open_vocabulary`: those that only say boxes from words."""
    datasets, checkpoints = await asyncio.gather(
        ask.items("/v1/datasets", most=MOST, state="ready"),
        ask.items("/v1/checkpoints", most=MOST, state="ready"),
    )
    asked = [one for one in checkpoints if one["kind"] == "open_vocabulary"]
    others = [one for one in checkpoints if one["kind"] != "open_vocabulary"]
    return {"datasets": datasets, "checkpoints": others, "open_vocabulary": asked}


async def paces(ask: Asker, datasets: Sequence[Record]) -> Record:
    """{usual, of}: seconds that a picture took one worker, in the middle of the newest rankings' candidates and by checkpoint.

    `usual` is None while no ranking has ended. Candidates whose features were kept from before are left out.
    """
    done = (await ask.get("/v1/rankings", state="succeeded", limit=LOOKED_AT))["items"]
    known: Record = {}
    by_id = {dataset["id"]: dataset for dataset in datasets}
    for ranking in await asyncio.gather(*(ask.get(f"/v1/rankings/{one['id']}") for one in done)):
        images = images_read(ranking["request"]["max_images"], by_id.get(ranking["dataset_id"]))
        for candidate in ranking["candidates"] if images else ():
            timings = candidate["timings"] or {}
            if isinstance(timings.get("total"), int | float) and not timings.get("cached"):
                known.setdefault(candidate["checkpoint_id"], timings["total"] / images)
    return {"usual": statistics.median(known.values()) if known else None, "of": known}


async def trainings(ask: Asker) -> Record:
    """By checkpoint what fine-tuning it takes, as the newest rankings measured it: {recipe, iterations, seconds, step_s, image_size,
    batch_size, memory, device}. Those of which nothing was measured are left out."""
    done = (await ask.get("/v1/rankings", state="succeeded", limit=LOOKED_AT))["items"]
    known: Record = {}
    for ranking in await asyncio.gather(*(ask.get(f"/v1/rankings/{one['id']}") for one in done)):
        for candidate in ranking["candidates"]:
            cost = candidate["cost"].get("training")
            if cost and cost["seconds"] is not None and cost["iterations"] and cost["step_s"]:
                names = ("recipe", "iterations", "seconds", "step_s", "image_size", "batch_size", "device")
                told = {name: cost[name] for name in names} | {"memory": size(cost["peak_memory_bytes"])}
                known.setdefault(candidate["checkpoint_id"], told)
    return known


async def pretrainings(ask: Asker, checkpoints: Sequence[Record]) -> list[Record]:
    """Of the newest pretrainings that are done, one for each method and family of architectures, what they took.

    image_s, region_s: seconds of training and of finding regions for a picture; size, batch, iterations: of the training, or of the
    last round; tuning_s, tuning_iterations: of one fine-tuning of its comparison. None where it says nothing of it.
    """
    families = {one["id"]: family(one["architecture"]) for one in checkpoints}
    done = (await ask.get("/v1/pretrainings", state="succeeded", limit=LOOKED_AT))["items"]
    known: dict[tuple[str, str], Record] = {}
    for one in await asyncio.gather(*(ask.get(f"/v1/pretrainings/{each['id']}") for each in done)):
        plan = one["plan"] or {}
        plan = plan.get("training") or plan
        rounds = (one["request"].get("rounds") or 1) if one["method"] == "self_training" else 1
        looked_at = (plan.get("iterations") or one["iterations"] or 0) * (plan.get("batch_size") or 0)
        if not looked_at or not one["seconds"]:
            continue
        kind, cost = families.get(one["trained_checkpoint_id"], ""), one["cost"] or {}
        of_arms = len(one["verification_ids"]) - (rounds if one["method"] == "self_training" else 0)
        told = {
            "method": one["method"],
            "family": kind,
            "image_s": one["seconds"] / looked_at,
            "size": plan.get("image_size"),
            "batch": plan["batch_size"],
            "iterations": plan.get("iterations") or one["iterations"],
            "region_s": cost["proposing_s"] / one["trained_on"] if cost and one["trained_on"] else None,
            "tuning_s": cost["comparing_s"] / of_arms if cost and of_arms > 0 else None,
            "tuning_iterations": (one["request"]["compare"] or {}).get("iterations"),
        }
        known.setdefault((one["method"], kind), told)
    return list(known.values())


def images_read(most: int | None, dataset: Record | None) -> int | None:
    """How many training pictures a ranking reads that asks for at most `most`; None where nobody knows."""
    splits = ((dataset or {}).get("summary") or {}).get("splits") or {}
    held = splits.get("train", {}).get("images")
    return most if held is None else held if most is None else min(most, held)
