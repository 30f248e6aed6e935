"""`?wait=`: an answer that is held back until there is something new."""

import asyncio

from app.api.caching import matches
from app.api.deps import Context
from app.api.watch import Stream
from app.queue.states import ENDED


async def until_news(
    context: Context, model: Stream, id: str, if_none_match: str | None, seconds: float
) -> None:
    """Until the row has another version than the caller knows, or, where none was given, until it has ended."""
    until = asyncio.get_running_loop().time() + seconds
    async with context.watch.on(model, id) as watched:
        while not context.watch.closing:
            left = until - asyncio.get_running_loop().time()
            if left <= 0:
                return
            sight = watched.sight
            if sight is None and watched.looks > 0:
                return
            if sight is not None and (
                sight.state in ENDED or (if_none_match and not matches(if_none_match, sight.version))
            ):
                return
            await watched.change(left)
