"""Which addresses belong to the internet, and connections that go to no others.

A name is looked up once, every address that it has must be public, and the connection goes to one of these very addresses, so a
name that is answered differently a moment later leads nowhere else.
"""

import ipaddress
import socket
from collections.abc import Iterable
from typing import Any

# addresses of IPv4 in the clothes of IPv6
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class NotPublic(Exception):
    """It leads to a private network. Not an OSError, which clients of HTTP take for a fault that may pass."""


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the internet, and not to this machine or a network around it."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


def refuse_private(host: str, found: Iterable[tuple[Any, ...]]) -> None:
    """Raises NotPublic where one of the answers of `socket.getaddrinfo` for `host` is in a private network."""
    for *_, place in found:
        if not is_public(str(place[0])):
            raise NotPublic(f"{host} leads to {place[0]}, which is in a private network")


def refusal_in(failure: BaseException | None) -> NotPublic | None:
    """The NotPublic that a failure is, or was made of by a library on the way."""
    while failure is not None and not isinstance(failure, NotPublic):
        failure = failure.__cause__ or failure.__context__
    return failure


def connected(host: str, port: int, timeout_s: float, *, allow_private: bool) -> socket.socket:
    """A socket that is connected to `host`, whose timeout stays `timeout_s`. Raises NotPublic, and OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if not allow_private:
        refuse_private(host, found)
    last: OSError | None = None
    for family, kind, protocol, _, place in found:
        sock = socket.socket(family, kind, protocol)
        sock.settimeout(timeout_s)
        try:
            sock.connect(place)
        except OSError as failure:
            sock.close()
            last = failure
            continue
        return sock
    raise last or OSError(f"{host} has no address")
