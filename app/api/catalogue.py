"""What can be asked for: /v1/metrics, /v1/layers, /v1/architectures, /v1/shelf, /v1/recipes, /v1/formats"""

from typing import Annotated

from fastapi import APIRouter, Query

from app.api.deps import ContextDep
from app.api.problems import responses
from app.schemas.catalogue import Entries, Formats, Recipes, Shelf, ShelfQuery
from app.services.catalogue import catalogue
from app.services.shelf import ShelfFilters, choose

router = APIRouter(prefix="/v1", tags=["catalogue"])


@router.get("/metrics", response_model=Entries)
def list_metrics(_: ContextDep) -> dict:
    """The transferability metrics, with what they need."""
    return {"items": catalogue()["metrics"]}


@router.get("/layers", response_model=Entries)
def list_layers(_: ContextDep) -> dict:
    """The places where features are read."""
    return {"items": catalogue()["layers"]}


@router.get("/architectures", response_model=Entries)
def list_architectures(_: ContextDep) -> dict:
    """The detectors and backbones that can be built."""
    return {"items": catalogue()["architectures"]}


@router.get("/shelf", response_model=Shelf, responses=responses(422))
def list_shelf(_: ContextDep, asked: Annotated[ShelfQuery, Query()]) -> dict:
    """Public checkpoints to start from, the best published COCO AP first; add one by its name as `source`."""
    return {"items": choose(ShelfFilters(**asked.model_dump() | {"families": tuple(asked.families or ())}))}


@router.get("/recipes", response_model=Recipes)
def list_recipes(_: ContextDep) -> dict:
    """The ways to fine-tune a checkpoint, and what can be changed in them."""
    return {"items": catalogue()["recipes"], **catalogue()["training"]}


@router.get("/formats", response_model=Formats)
def list_formats(_: ContextDep) -> dict:
    """The formats of datasets and checkpoints that are read."""
    return catalogue()["formats"]
