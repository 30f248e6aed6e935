"""One service with everything that it offers, for programs that block and for those that await.

import detrank

with detrank.Client("http://127.0.0.1:8000") as service:
    dataset = service.datasets.wait(service.datasets.add("set.zip").id)
    ranking = service.rankings.create(dataset.id, ["ckpt_..."])
    print(service.rankings.wait(ranking.id))

async with detrank.AsyncClient() as service:
    ranking = await service.rank("set.zip", ["timm://resnet18.a1_in1k"])
    async for event in service.jobs.events(ranking.job_id):
        print(event)
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import httpx

from detrank import http
from detrank.access import Audit, AuditEntry, Key, Keys, Workspace, Workspaces
from detrank.documents import (
    Checkpoint,
    Dataset,
    Job,
    Pretraining,
    PseudoLabelling,
    Record,
    Search,
    Study,
    Subset,
    Verification,
    Worker,
)
from detrank.drivers import Awaiting, Blocking, Options
from detrank.embedded import Address
from detrank.methods import IO, Has, call
from detrank.progress import Bars, bars
from detrank.rankings import Ranking
from detrank.resources import (
    Checkpoints,
    Datasets,
    Jobs,
    Pretrainings,
    PseudoLabellings,
    Rankings,
    Searches,
    Studies,
    Subsets,
    Verifications,
)
from detrank.steps import Steps
from detrank.webhooks import Webhook, Webhooks
from detrank.work import ranked


class Service(Has[IO]):
    """What both clients offer."""

    def __init__(self, io: IO) -> None:
        self.io = io
        self.datasets: Datasets[IO] = Datasets(io, Dataset)
        self.checkpoints: Checkpoints[IO] = Checkpoints(io, Checkpoint)
        self.rankings: Rankings[IO] = Rankings(io, Ranking)
        self.verifications: Verifications[IO] = Verifications(io, Verification)
        self.subsets: Subsets[IO] = Subsets(io, Subset)
        self.searches: Searches[IO] = Searches(io, Search)
        self.studies: Studies[IO] = Studies(io, Study)
        self.pretrainings: Pretrainings[IO] = Pretrainings(io, Pretraining)
        self.pseudo_labellings: PseudoLabellings[IO] = PseudoLabellings(io, PseudoLabelling)
        self.jobs: Jobs[IO] = Jobs(io, Job)
        self.webhooks: Webhooks[IO] = Webhooks(io, Webhook)
        self.keys: Keys[IO] = Keys(io, Key)
        self.audit: Audit[IO] = Audit(io, AuditEntry)
        self.workspaces: Workspaces[IO] = Workspaces(io, Workspace)

    @property
    def url(self) -> str:
        """Where the service listens; one that has to be started is started now. Raises Unreachable or StartFailed."""
        return self.io.address.url

    @call
    def rank(
        self,
        dataset: str | Path | Dataset,
        checkpoints: Sequence[str | Path | Checkpoint],
        *,
        progress: bool | Bars = True,
        timeout_s: float | None = None,
        **fields: Any,
    ) -> Steps[Ranking]:
        """Orders checkpoints by how well they should fine-tune on a dataset; waits until the order is there.

        dataset: an archive, a folder, a source (`s3://`, `hf://datasets/`, `file://`), an id, a name, or a Dataset.
        checkpoints: weights files, sources (`torchvision://`, `timm://`, `hf://`), ids, names, or Checkpoints. What is there already,
        by its content or its source, is not sent again. One that cannot be used is left out, with a warning.
        progress: bars in a notebook (tqdm) or a terminal (rich), where these are installed.
        timeout_s: for all of it. Raises TimeoutError; the work goes on.
        fields: of the ranking: metrics, layers, max_images, image_size, rank_by, filters, verify, ...; `POST /v1/rankings` has all.

        Raises ProblemError where the service refuses, where no checkpoint can be used, and where the ranking failed.
        """
        shown = bars(progress) if isinstance(progress, bool) else progress
        with shown:
            return (yield from ranked(self, dataset, checkpoints, fields, bars=shown, timeout_s=timeout_s))

    @call
    def get(self, path: str, **parameters: Any) -> Steps[Record]:
        """Any document of the API, by its path."""
        return (yield from http.get(path, **parameters))

    @call
    def post(self, path: str, body: Record | None = None) -> Steps[Record]:
        return (yield from http.post(path, body))

    @call
    def request(self, method: str, path: str, **options: Any) -> Steps[httpx.Response]:
        """Any request, tried again where that is harmless. Options: headers, params, json, content."""
        return (yield from http.request(method, path, **options))

    @call
    def catalogue(self, name: str, **filters: Any) -> Steps[Sequence[Record]]:
        """`metrics`, `layers`, `architectures`, `shelf`, `recipes`, `pretraining-recipes` or `problems`, as this service offers them."""
        items: Sequence[Record] = (yield from http.get(f"/v1/{name}", **filters))["items"]
        return items

    @call
    def formats(self) -> Steps[Record]:
        """`datasets` and `checkpoints`: what can be read."""
        return (yield from http.get("/v1/formats"))

    @call
    def explain(self, code: str) -> Steps[Record]:
        """What a type of problem means, why it comes about and what to do, by the `code` of a ProblemError."""
        return (yield from http.get(f"/v1/problems/{code}"))

    @call
    def workers(self) -> Steps[Sequence[Worker]]:
        """Worker processes that were heard of, the latest first."""
        return [Worker(one) for one in (yield from http.get("/v1/workers"))["items"]]

    @call
    def ready(self) -> Steps[Record]:
        """What every part of the deployment says of itself. Raises ProblemError where one is broken."""
        return (yield from http.get("/readyz"))


class Client(Service[Blocking]):
    """A service whose answers are waited for. Not for sharing between threads.

    url: of a service; without one DETRANK_URL says it, and without that it is the one on this machine (DETRANK_DATA_DIR, by default
    ~/.detrank), which is started where none runs, and then stopped with this client.
    key: an API key, where the service asks for one; without one that of DETRANK_API_KEY.
    transport: of httpx, for tests.
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout_s: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        super().__init__(Blocking(Address(url), Options(_key(key), timeout_s, transport)))

    def close(self) -> None:
        self.io.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncClient(Service[Awaiting]):
    """The same for asyncio: every method is awaited, `list`, `follow` and `events` are iterated with `async for`."""

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        *,
        timeout_s: float = 60.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        super().__init__(Awaiting(Address(url), Options(_key(key), timeout_s, transport)))

    async def close(self) -> None:
        await self.io.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _key(key: str | None) -> str | None:
    return key or os.environ.get("DETRANK_API_KEY") or None
