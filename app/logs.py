"""JSON log lines with the request's id, on standard error."""

import logging
import sys

import structlog

_MARK = "_detrank"
_OURS = ("app", "detrank")


def configure(level: str = "INFO") -> None:
    """Makes every logger of this process write JSON lines; `level` is that of our own, others write warnings only."""
    root = logging.getLogger()
    for name in _OURS:
        logging.getLogger(name).setLevel(level.upper())
    if any(getattr(handler, _MARK, False) for handler in root.handlers):
        return
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    setattr(handler, _MARK, True)
    root.addHandler(handler)
