"""OpenAPI links: which requests an answer leads to, for clients and tools that find their way by the document."""

from collections.abc import Iterator
from typing import Any

Document = dict[str, Any]

JOB = "/v1/jobs/{id}"
# where an answer has the id of the record that it is about
OF_ONE = "$response.body#/id"
OF_LIST = "$response.body#/items/0/id"
# streams that end with the work only
_ENDLESS = "/events"


def add_links(document: Document) -> None:
    """Links a record that was made, and the first of a list, to all that can be asked of it, and what has a job to the job."""
    paths: dict[str, Document] = document["paths"]
    for path, operations in paths.items():
        about = _about(paths, path)
        for method, id in (("post", OF_ONE), ("get", OF_LIST)):
            answer = _success(operations.get(method))
            if answer is None or not about:
                continue
            found = {operation: {"operationId": operation, "parameters": {"id": id}} for operation in about}
            if method == "post" and JOB in paths:
                job = paths[JOB]["get"]["operationId"]
                found["job"] = {"operationId": job, "parameters": {"id": "$response.body#/job_id"}}
            answer["links"] = answer.get("links", {}) | found


def _about(paths: dict[str, Document], path: str) -> list[str]:
    """The operations on one record of the list at `path`, by their ids."""
    return [operation["operationId"] for operation in _operations(paths, path)]


def _operations(paths: dict[str, Document], path: str) -> Iterator[Document]:
    for other, operations in paths.items():
        rest = other.removeprefix(path + "/{id}")
        if rest != other and rest.count("{") == 0 and rest != _ENDLESS:
            yield from operations.values()


def _success(operation: Document | None) -> Document | None:
    """What it answers where all goes well."""
    if operation is None:
        return None
    return next(
        (answer for status, answer in operation["responses"].items() if status in ("200", "201", "202")), None
    )
