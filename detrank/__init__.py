"""Which pretrained detector should I fine-tune on this dataset?

    import detrank

    r = detrank.rank("set.zip", ["my_detector.pth", "timm://resnet18.a1_in1k"])
    r.best, r.to_pandas(), r        # in a notebook `r` is a table with a plot

`rank` talks to the service that DETRANK_URL names (with the key in DETRANK_API_KEY); without it to the one on this machine, which it
starts where none runs. `Client` and `AsyncClient` offer everything that a service has. Only httpx is needed.
"""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detrank.client import AsyncClient, Client
from detrank.documents import (
    Checkpoint,
    Dataset,
    Document,
    Job,
    Pretraining,
    PseudoLabelling,
    Search,
    Study,
    Subset,
    Verification,
    Worker,
)
from detrank.errors import DetrankError, ProblemError, StartFailed, Unreachable
from detrank.progress import Bars
from detrank.rankings import Candidate, Ranking
from detrank.resource import ENDED

__all__ = [
    "ENDED",
    "AsyncClient",
    "Bars",
    "Candidate",
    "Checkpoint",
    "Client",
    "Dataset",
    "DetrankError",
    "Document",
    "Job",
    "Pretraining",
    "ProblemError",
    "PseudoLabelling",
    "Ranking",
    "Search",
    "StartFailed",
    "Study",
    "Subset",
    "Unreachable",
    "Verification",
    "Worker",
    "connect",
    "rank",
]


@functools.cache
def connect() -> Client:
    """The client of this process for the service that the environment names, or for its own one; the same at every call."""
    return Client()


def rank(
    dataset: str | Path | Dataset, checkpoints: Sequence[str | Path | Checkpoint], **options: Any
) -> Ranking:
    """Orders checkpoints by how well they should fine-tune on a dataset; `Client.rank` tells of the options."""
    return connect().rank(dataset, checkpoints, **options)
