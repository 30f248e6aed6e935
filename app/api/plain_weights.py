"""A fine-tuned checkpoint as its own library takes it: one zip of the weights and the few texts that go with them."""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi.responses import Response, StreamingResponse

from app.errors import Conflict
from app.storage.blobs import BlobStore

_PIECE = 1 << 20
_NO_TIME = (1980, 1, 1, 0, 0, 0)


def plain_zip(store: BlobStore, checkpoint_id: str, plain: dict[str, Any] | None, weights_sha256: str) -> Response:
    """The zip, streamed. Raises Conflict for a checkpoint without a plain form."""
    if plain is None:
        raise Conflict(
            f"the checkpoint {checkpoint_id} was not fine-tuned here; the plain form is written with what a verification "
            "makes. Its weights as they are kept: leave out `as`"
        )
    if "unavailable" in plain:
        raise Conflict(f"the checkpoint {checkpoint_id} has no plain form: {plain['unavailable']}")
    weights = store.local_path(weights_sha256)
    name = f"{checkpoint_id}-{plain['library']}.zip"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "private, no-cache"}
    return StreamingResponse(
        _pieces(plain["texts"], plain["weights"], weights), media_type="application/zip", headers=headers
    )


def _pieces(texts: dict[str, str], weights_name: str, weights: Path) -> Iterator[bytes]:
    out = _Written()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, text in sorted(texts.items()):
            archive.writestr(zipfile.ZipInfo(name, _NO_TIME), text)
        info = zipfile.ZipInfo(weights_name, _NO_TIME)
        with archive.open(info, "w", force_zip64=True) as target, weights.open("rb") as source:
            while piece := source.read(_PIECE):
                target.write(piece)
                yield out.taken()
    yield out.taken()


class _Written:
    """A file that can only be written to; what was is taken away in pieces."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        return

    def taken(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)
