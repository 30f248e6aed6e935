"""A service with something of everything, and the addresses of all its pages."""

import filled
import filled_work
from running import Workspace

LISTS = (
    "rankings",
    "datasets",
    "checkpoints",
    "verifications",
    "searches",
    "studies",
    "pretrainings",
    "pseudo-labellings",
)


def fill(space: Workspace) -> dict[str, str]:
    """name -> address, of every page with something on it, and of the ways to fail."""
    dataset = filled.dataset(space)
    done = filled.ranking(space, dataset, filled.NAMES, fails=1)
    goes_on = space.ranking(50)
    space.claim(goes_on["candidates"][0]["job_id"])
    cancelled = space.ranking(2)
    space.http.post(f"/v1/rankings/{cancelled['id']}:cancel").raise_for_status()
    broken = space.dataset(name="broken.zip", ready=False)
    space.fail(space.http.get(f"/v1/datasets/{broken}").json()["job_id"], "the archive has no pictures")
    verified, second, third = (
        filled.verification(space, dataset, done=True, name=name, level=level)
        for name, level in (("resnet50", 0.412), ("swin tiny", 0.377), ("squeezenet", 0.29))
    )
    trains = filled.verification(space, dataset, done=False)
    ids = done["checkpoint_ids"]
    trained = [one["id"] for one in (verified, second, third)]
    for name, scope in (("the build server", "read"), ("somebody who left", "write")):
        key = space.http.post("/v1/keys", json={"name": name, "scope": scope}).raise_for_status().json()
    space.http.delete(f"/v1/keys/{key['id']}").raise_for_status()
    bare = filled.dataset(space, "wheat without boxes")
    taught = filled_work.pseudo_labelling(space, bare, ids[0])
    pages = {
        "ranking": f"/rankings/{done['id']}",
        "ranking-running-50": f"/rankings/{goes_on['id']}",
        "ranking-cancelled": f"/rankings/{cancelled['id']}",
        "scores": f"/rankings/{done['id']}/scores",
        "candidate": f"/rankings/{done['id']}/candidates/{ids[0]}",
        "candidate-failed": f"/rankings/{done['id']}/candidates/{ids[-1]}",
        "dataset": f"/datasets/{dataset}",
        "dataset-broken": f"/datasets/{broken}",
        "checkpoint": f"/checkpoints/{ids[0]}",
        "verification": f"/verifications/{verified['id']}",
        "pictures": f"/verifications/{verified['id']}/pictures",
        "pictures-of-two": f"/verifications/{verified['id']}/pictures?beside={second['id']}",
        "verification-running": f"/verifications/{trains['id']}",
        "search": f"/searches/{filled_work.search(space, dataset, ids[:3], trained)}",
        "study": f"/studies/{filled_work.study(space, dataset, ids[:3])}",
        "pretraining": f"/pretrainings/{filled_work.pretraining(space, dataset, ids[0])}",
        "pseudo-labelling": f"/pseudo-labellings/{taught}",
        "review": f"/pseudo-labellings/{taught}/review",
        "job": f"/jobs/{done['candidates'][-1]['job_id']}",
        "wrong-address": "/nowhere",
        "deleted": "/rankings/rk_nothing",
    }
    return {
        "home": "/",
        **{kind: f"/{kind}" for kind in (*LISTS, "jobs", "workers", "keys", "docs")},
        **{f"new-{kind}": f"/{kind}/new" for kind in LISTS},
        **pages,
    }
