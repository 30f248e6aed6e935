"""The OpenAPI document as `/docs` shows it: operations by tag, bodies and answers by the names of their schemas."""

from typing import Any

Record = dict[str, Any]


def operations(document: Record) -> dict[str, list[Record]]:
    """By tag, in the order of the document."""
    found: dict[str, list[Record]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            found.setdefault((operation.get("tags") or ["other"])[0], []).append(
                _operation(document, path, method, operation)
            )
    return found


def _operation(document: Record, path: str, method: str, operation: Record) -> Record:
    return {
        "id": operation["operationId"],
        "method": method.upper(),
        "path": path,
        "says": operation.get("description") or operation.get("summary") or "",
        "parameters": [
            _field(document, one["name"], one["schema"], one) for one in operation.get("parameters", [])
        ],
        "bodies": [
            _body(document, media_type, one["schema"])
            for media_type, one in operation.get("requestBody", {}).get("content", {}).items()
        ],
        "answers": [_answer(document, status, one) for status, one in operation["responses"].items()],
    }


def _field(document: Record, name: str, schema: Record, about: Record) -> Record:
    return {
        "name": name,
        "place": about.get("in", ""),
        "required": about.get("required", False),
        "type": type_of(schema),
        "default": schema.get("default"),
        "says": about.get("description") or schema.get("description") or "",
    }


def _body(document: Record, media_type: str, schema: Record) -> Record:
    whole = _resolved(document, schema)
    return {
        "media_type": media_type,
        "type": type_of(schema),
        "says": whole.get("description", ""),
        "example": (whole.get("examples") or [None])[0],
        "fields": fields(document, whole),
    }


def _answer(document: Record, status: str, answer: Record) -> Record:
    content = answer.get("content") or {}
    schema = next((one.get("schema") or {} for one in content.values()), {})
    problem = "application/problem+json" in content
    return {
        "status": status,
        "says": answer.get("description", ""),
        "type": "" if problem else type_of(schema),
        "media_types": list(content),
        "fields": [] if problem else fields(document, _resolved(document, schema)),
    }


def fields(document: Record, schema: Record) -> list[Record]:
    """The properties of an object schema."""
    needed = set(schema.get("required", ()))
    return [
        _field(document, name, one, {"required": name in needed, "description": one.get("description")})
        for name, one in schema.get("properties", {}).items()
    ]


def type_of(schema: Record) -> str:
    """A schema in a few words: `string`, `list of DatasetView`, `integer or null`."""
    if "$ref" in schema:
        return schema["$ref"].rpartition("/")[2]
    if "const" in schema:
        return repr(schema["const"])
    if "enum" in schema:
        return " | ".join(str(one) for one in schema["enum"])
    for several in ("anyOf", "oneOf", "allOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(type_of(one) for one in schema[several]))
    if schema.get("type") == "array":
        return f"list of {type_of(schema.get('items', {}))}"
    return schema.get("format") or schema.get("type") or "anything"


def _resolved(document: Record, schema: Record) -> Record:
    """The schema that a reference names; one level, which is all that is shown."""
    if "$ref" not in schema:
        return schema
    return document["components"]["schemas"].get(schema["$ref"].rpartition("/")[2], {})
