"""URLs of a deployment: what in one cannot be meant, said without the URL itself, for a password may be in it."""

from importlib.util import find_spec
from urllib.parse import urlsplit

SCHEMES = {
    "database_url": ("postgresql", "postgres", "sqlite"),
    "broker_url": ("redis", "rediss", "amqp", "amqps", "pyamqp", "detrank-files"),
    "storage_url": ("file", "s3", "memory", "gs", "az", "abfs"),
    "traces_url": ("http", "https"),
}
_FOLDERS = ("sqlite", "file", "detrank-files")
_BUCKETS = {
    "s3": ("s3fs", "detrank[s3]"),
    "gs": ("gcsfs", "gcsfs"),
    "az": ("adlfs", "adlfs"),
    "abfs": ("adlfs", "adlfs"),
}
_DRIVER = "psycopg"


def fault_of(name: str, url: str) -> str | None:
    """What is wrong with the URL of the setting `name`, to follow its name; None where nothing is."""
    scheme, separator, rest = url.partition("://")
    kind, _, driver = scheme.partition("+")
    if not separator or kind not in SCHEMES[name]:
        return f"begins with none of {', '.join(f'{each}://' for each in SCHEMES[name])}"
    if kind in _FOLDERS:
        return (
            None
            if rest.startswith("/")
            else f"names a folder or file by three slashes, as in {kind}:///srv/detrank"
        )
    if kind in _BUCKETS:
        package, install = _BUCKETS[kind]
        if not rest.strip("/"):
            return f"names no bucket: write {kind}://bucket or {kind}://bucket/prefix"
        return None if find_spec(package) else f"needs another package: pip install '{install}'"
    if kind in ("postgresql", "postgres") and driver not in ("", _DRIVER):
        return f"asks for the driver {driver}: write postgresql+{_DRIVER}://"
    return None if kind == "memory" or driver == "socket" else _fault_of_server(url)


def with_driver(url: str) -> str:
    """The URL of a database with the driver that is installed, where it names none."""
    scheme, _, rest = url.partition("://")
    return f"postgresql+{_DRIVER}://{rest}" if scheme in ("postgresql", "postgres") else url


def _fault_of_server(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return "has no port from 0 to 65535 after the host; in a password write / as %2F, : as %3A, @ as %40, # as %23, ? as %3F"
    return None if host or "host=" in parts.query else "names no host"
