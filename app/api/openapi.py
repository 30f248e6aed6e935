"""What FastAPI cannot know by itself for the OpenAPI document: problems, raw bodies, stable names."""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.api.links import add_links
from app.schemas.checkpoints import CheckpointCreate
from app.schemas.common import Problem
from app.schemas.datasets import DatasetCreate

# models that endpoints read themselves, or that no endpoint returns
_MORE: tuple[type[BaseModel], ...] = (Problem, DatasetCreate, CheckpointCreate)


def operation_id(route: APIRoute) -> str:
    """The function's own name: stable for clients that are generated."""
    return route.name.replace("-", "_")


def raw_or_json(model: str, description: str) -> dict[str, Any]:
    """A request body that is either a file as it is or JSON of this model."""
    return {
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {
                    "schema": {"type": "string", "format": "binary", "description": description}
                },
                "application/json": {"schema": {"$ref": f"#/components/schemas/{model}"}},
            },
        }
    }


def raw(media_type: str) -> dict[str, Any]:
    content = {media_type: {"schema": {"type": "string", "format": "binary"}}}
    return {"requestBody": {"required": True, "content": content}}


def _contents(made: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What every answer may hold, by media type."""
    for operations in made["paths"].values():
        for operation in operations.values():
            for answer in operation["responses"].values():
                yield from answer.get("content", {}).values()


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document; made once."""
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title,
            version=app.version,
            summary=app.summary,
            description=app.description,
            routes=app.routes,
        )
        _, more = models_json_schema(
            [(model, "validation") for model in _MORE], ref_template="#/components/schemas/{model}"
        )
        schemas = made.setdefault("components", {}).setdefault("schemas", {})
        for name, schema in more["$defs"].items():
            schemas.setdefault(name, schema)
        for content in _contents(made):
            # a word of OpenAPI 3.2 in a document of 3.1
            if "itemSchema" in content:
                content["schema"] = {"type": "string", "description": "server-sent events"}
                del content["itemSchema"]
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        add_links(made)
        app.openapi_schema = made
    return app.openapi_schema
