"""Refusals of the libraries, as the failure of a kind of work."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

import models_store
from app.errors import DetrankError
from worker.data.pictures import BadPicture
from worker.training.errors import TrainingDiverged, Untrainable


@contextmanager
def refusals(failure: type[DetrankError], less: str = "a smaller image_size would") -> Iterator[None]:
    """Turns refusals of the libraries into `failure`; `less`: what to ask for less of where memory is short."""
    try:
        yield
    except (models_store.Unusable, Untrainable, TrainingDiverged) as refusal:
        raise failure(refusal.detail, code=refusal.code) from refusal
    except BadPicture as refusal:
        raise failure(str(refusal), code="bad_picture") from refusal
    except torch.OutOfMemoryError as short:
        raise failure(
            f"the device ran out of memory even with one picture at a time: {less} need less ({short})"[
                :1000
            ],
            code="out_of_memory",
        ) from short
