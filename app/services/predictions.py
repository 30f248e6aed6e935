"""What a fine-tuned detector found on each image that was looked at, out of the document that its verification left."""

import json
from typing import Any

from app.db.documents import PREDICTIONS
from app.db.tables import Dataset, Verification
from app.errors import NotFound
from app.schemas.verifications import PredictedImage, Predictions, PredictionsQuery
from app.storage.blobs import BlobStore


def page(
    store: BlobStore, row: Verification, dataset: Dataset | None, asked: PredictionsQuery
) -> Predictions:
    """The images asked for, the worst first. Raises NotFound where none were kept, or for an image that is not among them."""
    kept = next((file["sha256"] for file in row.pictures or [] if file["file_name"] == PREDICTIONS), None)
    if kept is None:
        raise NotFound(
            f"the verification {row.id} is {row.state} and has no predictions; they are kept of one that has succeeded "
            "and keeps its weights"
        )
    with store.open(kept) as file:
        document: dict[str, Any] = json.load(file)
    images = document["images"]
    begin, stop = int(asked.cursor or 0), int(asked.cursor or 0) + asked.limit
    if asked.image_id:
        by_id = {image["image_id"]: image for image in images}
        if strangers := [id for id in asked.image_id if id not in by_id]:
            raise NotFound(f"image {strangers[0]} is not among the {len(images)} that were looked at")
        found, following = [by_id[id] for id in asked.image_id], None
    else:
        found, following = images[begin:stop], str(stop) if stop < len(images) else None
    held = dataset is not None and dataset.archive_sha256 is not None and dataset.stays_at is None
    return Predictions(
        items=[
            PredictedImage(
                **{name: image[name] for name in image if name != "file_name"},
                url=f"/v1/datasets/{row.dataset_id}/images/{image['file_name']}" if held else None,
            )
            for image in found
        ],
        next_cursor=following,
        threshold=document["threshold"],
        categories=document["categories"],
        images=len(images),
    )
