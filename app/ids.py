"""Prefixed, sortable identifiers: `ds_`, `ckpt_`, `rk_`, `job_`, `up_`, `ws_`, `key_` + a UUID version 7 (RFC 9562, 5.7)."""

import os
import time
from datetime import datetime


def new_id(prefix: str) -> str:
    """`<prefix>_<32 hex digits>`; ids made later sort later (to the millisecond)."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10), "big")
    value = (milliseconds & (1 << 48) - 1) << 80 | random
    value = value & ~(0xF << 76) | 0x7 << 76  # version
    value = value & ~(0x3 << 62) | 0x2 << 62  # variant
    return f"{prefix}_{value:032x}"


def earliest_id(prefix: str, when: datetime) -> str:
    """What sorts before every id that is made at `when` or later, and after those made before that millisecond."""
    milliseconds = max(0, int(when.timestamp() * 1000)) & (1 << 48) - 1
    return f"{prefix}_{milliseconds << 80:032x}"
