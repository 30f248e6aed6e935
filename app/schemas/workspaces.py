"""Workspaces: what they may, and what they have."""

from typing import Annotated

from pydantic import BaseModel, Field

from app.schemas.common import Body
from app.schemas.keys import ScopeName

Quota = Annotated[int, Field(ge=0, le=2**62)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]

LEARNS = (
    "whether its own verifications sharpen the mAP that is predicted in its rankings; nothing of one "
    "workspace is ever used for another"
)


class Share(BaseModel):
    used: int
    limit: int | None = Field(description="null: any number")


class WorkspaceView(BaseModel):
    """How much a workspace stores and has queued, and how much it may."""

    id: str
    name: str
    priority: int = Field(description="its jobs go before those of workspaces with a smaller one")
    bytes: Share = Field(
        description="of all files that its records name, each once, and of uploads on their way; without previews and charts"
    )
    queued_jobs: Share
    learns: bool = Field(description=LEARNS)


class OwnWorkspaceUpdate(Body):
    """What is left out stays."""

    learns: bool | None = Field(default=None, description=LEARNS)


class OwnWorkspaceView(WorkspaceView):
    scope: ScopeName = Field(description="what the key that asks may do")
    key_requests_per_minute: int | None = Field(description="null: any number")
    workspace_requests_per_minute: int | None
    key_uploads_per_hour: int | None
    workspace_uploads_per_hour: int | None


class WorkspaceUpdate(Body):
    """What is left out stays."""

    max_bytes: Quota | None = Field(default=None, description="0: any number; null: that of the settings")
    max_queued_jobs: Count | None = Field(
        default=None, description="0: any number; null: that of the settings"
    )
    priority: int | None = Field(
        default=None, ge=-10, le=10, description="jobs of a larger one go before all others"
    )
