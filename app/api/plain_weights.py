"""A fine-tuned checkpoint as its own library takes it: one zip of the weights and the texts beside them."""

from fastapi.responses import Response, StreamingResponse
from zipstream import ZipStream

from app.db.documents import PlainForm
from app.errors import Conflict
from app.storage.blobs import BlobStore


def plain_zip(
    store: BlobStore, checkpoint_id: str, plain: PlainForm | None, weights_sha256: str | None
) -> Response:
    """The zip, written while it is sent. Raises Conflict for a checkpoint without a plain form."""
    if plain is None or weights_sha256 is None:
        raise Conflict(
            f"the checkpoint {checkpoint_id} was not fine-tuned here; the plain form is written with what a "
            "verification makes. Its weights as they are kept: leave out `as`"
        )
    if "unavailable" in plain:
        raise Conflict(f"the checkpoint {checkpoint_id} has no plain form: {plain['unavailable']}")
    archive = ZipStream(sized=True)
    for name, text in sorted(plain["texts"].items()):
        archive.add(text, name)
    archive.add_path(store.local_path(weights_sha256), plain["weights"])
    filename = f"{checkpoint_id}-{plain['library']}.zip"
    headers = {
        "Content-Disposition": f'attachment; filename="{filename}"',
        "Content-Length": str(len(archive)),
        "Cache-Control": "private, no-cache",
    }
    return StreamingResponse(archive, media_type="application/zip", headers=headers)
