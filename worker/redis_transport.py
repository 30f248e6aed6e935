"""kombu's Redis transport, able to go on after an acknowledgement that Redis did not hear.

kombu forgets a message only once Redis has said so. With one message at a time, as our workers take them, an acknowledgement
that fails - Redis was restarted during a long job - would count as a message in hand for ever: the worker would never ask
for another one, nor notice that its connection is gone. Our jobs do not need the acknowledgement; the next poll does.
"""

from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis


class QoS(redis.QoS):
    def ack(self, delivery_tag: str) -> None:
        try:
            super().ack(delivery_tag)
        finally:
            self._quick_ack(delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        try:
            super().reject(delivery_tag, requeue)
        finally:
            self._quick_ack(delivery_tag)


class Channel(redis.Channel):
    QoS: Any = QoS


class Transport(redis.Transport):
    Channel = Channel


def use_it() -> None:
    """From now on `redis://` and `rediss://` in this process mean this transport."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:Transport"
