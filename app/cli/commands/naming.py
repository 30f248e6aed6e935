"""Finding a record by its id or by its name."""

from itertools import islice
from typing import Any

from app.cli.session import Failed

Record = dict[str, Any]
LISTED = 10


def find(resource: Any, what: str, prefix: str, word: str) -> Record:
    """By id, which begins with `prefix`, or the newest of that name. Raises Failed, naming what there is."""
    if word.startswith(prefix):
        return resource.get(word)
    names = []
    for record in resource.list(name=word):
        if record["name"] == word:
            return resource.get(record["id"])
        names.append(record["name"])
    # those that are called nearly so, else the newest
    names = names or [record["name"] for record in islice(resource.list(), LISTED)]
    raise Failed(
        f"no {what} is called {word!r} and no file is there; known: {', '.join(names[:LISTED]) or 'none'}"
    )
