"""What answers about every kind of long work have in common."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import Field

from app.schemas.common import JobStateName, View


class WorkSummary(View):
    """What a list shows of work of any kind."""

    id: str
    name: str | None
    state: JobStateName
    stage: str | None
    error: Mapping[str, Any] | None
    job_id: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class WorkDetails(View):
    """What is shown of one more than in a list."""

    request: dict[str, Any] = Field(description="as asked, every default filled in")
    cancel_requested_at: datetime | None
