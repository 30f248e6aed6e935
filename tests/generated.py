"""What both tests with generated requests hold answers to, and how a part of an upload is written."""

import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@schemathesis.serializer("application/offset+octet-stream")
def part_of_an_upload(_: object, value: object) -> bytes:
    return getattr(value, "data", None) or str(value).encode()
