"""Callers of an HTTP service that cost little themselves: they share the cores with what they measure."""

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

TICKS_PER_S = 100


@dataclass
class Heard:
    """Seconds of each answer, how many there were of each status, and how long the calling went on."""

    seconds: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    lasted_s: float = 0.0
    etag: str | None = None

    @property
    def per_second(self) -> float:
        return len(self.seconds) / self.lasted_s

    def percentile_ms(self, percent: float) -> float:
        ordered = sorted(self.seconds)
        return 1e3 * ordered[min(len(ordered) - 1, int(percent / 100 * len(ordered)))]


async def ask(
    url: str,
    *,
    seconds: float,
    connections: int = 16,
    every_s: float = 0.0,
    headers: dict[str, str] | None = None,
    follow_etag: bool = False,
) -> Heard:
    """GET `url` over so many connections that stay open, each again once it was answered or, where given, `every_s`.

    follow_etag: each caller sends back the tag that it was told last. Raises OSError where a connection breaks.
    """
    heard = Heard()
    began = time.perf_counter()
    until = began + seconds
    await asyncio.gather(
        *(
            _one(url, until, heard, headers or {}, every_s, every_s * n / connections, follow_etag)
            for n in range(connections)
        )
    )
    heard.lasted_s = time.perf_counter() - began
    return heard


async def _one(
    url: str, until: float, heard: Heard, headers: dict[str, str], every_s: float, wait_s: float, follow: bool
) -> None:
    parts = urlsplit(url)
    await asyncio.sleep(wait_s)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    fixed = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    tag = ""
    try:
        while time.perf_counter() < until:
            began = time.perf_counter()
            known = f"If-None-Match: {tag}\r\n" if follow and tag else ""
            writer.write(f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\n{fixed}{known}\r\n".encode())
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status = int(head.split(" ", 2)[1])
            fields = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(":") for line in head.split("\r\n")[1:])
            }
            await reader.readexactly(int(fields.get("content-length", 0)))
            heard.seconds.append(time.perf_counter() - began)
            heard.statuses[status] = heard.statuses.get(status, 0) + 1
            tag = heard.etag = fields.get("etag", tag)
            if every_s:
                await asyncio.sleep(max(0.0, every_s - (time.perf_counter() - began)))
    finally:
        writer.close()


def cpu_seconds(pid: int) -> float:
    """Of all threads of a process, since it began."""
    words = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(words[11]) + int(words[12])) / TICKS_PER_S


def memory_mb(pid: int, of: str = "VmRSS") -> float:
    """What a process has in memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(of)) / 1024


def peak_memory_mb(pid: int) -> float:
    """The most that it had at once."""
    return memory_mb(pid, "VmHWM")
