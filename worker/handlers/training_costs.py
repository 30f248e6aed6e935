"""Steps of trainings that were measured on this host, kept for whoever trains alike."""

from datetime import UTC, datetime

import torch
from sqlalchemy.orm import Session

import models_store
from app.db.documents import StepCost
from app.queue import training_costs
from worker import machine
from worker.data.dataset import Dataset
from worker.training.cost import StepCost as Measured
from worker.training.cost import key_of, pixels_of
from worker.training.plan import Plan
from worker.training.trained import Trained

# the first step is slower than the others
LEAST_ITERATIONS = 10


def device_name(device: str | torch.device) -> str:
    """As people know it, so that steps of equal machines count for each other."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return str(machine.cpu_facts()["device_name"])


def memory_of(device: str | torch.device) -> int | None:
    """Bytes that the device has, of main memory those that this process may use."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return machine.memory()["memory_total_bytes"]


def key_here(manifest: models_store.Manifest, plan: Plan, device: str | torch.device) -> str:
    return key_of(manifest, plan, device_name(device))


def measured(step: Measured, pixels: float) -> StepCost:
    """A step that was tried, as it is kept."""
    return {
        "step_s": step.step_s,
        "image_s": step.image_s,
        "peak_memory_bytes": step.peak_memory_bytes,
        "pixels": pixels,
        "measured": "step",
    }


def too_large(pixels: float) -> StepCost:
    """Where not even one picture fitted."""
    return {
        "step_s": None,
        "image_s": None,
        "peak_memory_bytes": None,
        "pixels": pixels,
        "measured": "step",
        "too_large": True,
    }


def keep_trained(
    session: Session,
    manifest: models_store.Manifest,
    plan: Plan,
    trained: Trained,
    dataset: Dataset,
    device: str | torch.device,
) -> None:
    """What a whole training says of its steps, their pictures made ready included; of a few steps nothing is kept."""
    images = [image for image in dataset.images if image.split == "train"]
    if trained.iterations < LEAST_ITERATIONS or not images:
        return
    step: StepCost = {
        "step_s": trained.seconds / trained.iterations,
        "image_s": trained.image_s,
        "peak_memory_bytes": trained.peak_memory_bytes,
        "pixels": pixels_of(trained.detector, images, plan),
        "measured": "verification",
    }
    training_costs.keep(session, key_here(manifest, plan, device), step, datetime.now(UTC))
