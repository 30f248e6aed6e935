"""Answers about resumable uploads."""

from datetime import datetime
from typing import Literal

from app.schemas.common import View


class UploadView(View):
    """A resumable upload (tus 1.0.0). Once `complete`, name it as `upload_id` of a dataset or checkpoint."""

    id: str
    state: Literal["receiving", "complete"]
    filename: str
    length_bytes: int
    offset_bytes: int
    sha256: str | None
    created_at: datetime
    expires_at: datetime
