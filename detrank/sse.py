"""Server-sent events, read from bytes as they come (WHATWG HTML, 9.2)."""

import codecs
import re
from collections.abc import Iterator
from dataclasses import dataclass

# a carriage return at the end may be the first half of a line's end
_LINE = re.compile(r"(.*?)(\r\n|\n|\r(?=.))", re.S)


@dataclass(frozen=True)
class Event:
    """id: the one that stood when it came, which lasts until the next; empty where there was none."""

    id: str
    event: str
    data: str


class Decoder:
    """Bytes in, events out; what is not whole yet is kept."""

    def __init__(self) -> None:
        self._text = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._rest = ""
        self._id, self._event, self._data = "", "", list[str]()

    def feed(self, piece: bytes) -> Iterator[Event]:
        self._rest += self._text.decode(piece)
        at = 0
        while found := _LINE.match(self._rest, at):
            at = found.end()
            event = self._line(found[1])
            if event is not None:
                yield event
        self._rest = self._rest[at:]

    def _line(self, line: str) -> Event | None:
        if not line:
            event = Event(self._id, self._event or "message", "\n".join(self._data))
            empty, self._event, self._data = not self._data, "", []
            return None if empty else event
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        return None
