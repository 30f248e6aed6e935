"""Limits on cost and licence: who is left out, and why."""

from __future__ import annotations

from worker.ranking.records import Candidate, Filters


def reason_against(candidate: Candidate, filters: Filters) -> str | None:
    """Why `filters` leave `candidate` out, None when they do not. A cost that is not known does not pass a limit."""
    limits = (
        ("parameters", candidate.parameters, filters.max_parameters),
        ("bytes of memory", candidate.peak_memory_bytes, filters.max_memory_bytes),
        ("ms per image", candidate.ms_per_image, filters.max_ms_per_image),
        ("ms to find objects", candidate.inference_ms, filters.max_inference_ms),
        (
            "bytes of memory to find objects",
            candidate.inference_memory_bytes,
            filters.max_inference_memory_bytes,
        ),
        ("seconds of fine-tuning", candidate.training_s, filters.max_training_s),
        ("bytes of memory to fine-tune", candidate.training_memory_bytes, filters.max_training_memory_bytes),
    )
    reasons = []
    for unit, found, allowed in limits:
        if allowed is None:
            continue
        if found is None:
            reasons.append(f"its {unit} are not known, and at most {allowed:,} are asked for")
        elif found > allowed:
            reasons.append(f"{found:,} {unit}, and at most {allowed:,} are asked for")
    if filters.fits is not None and candidate.fits is not filters.fits:
        wanted = "fits into the device's memory" if filters.fits else "does not fit into it"
        known = {True: "it fits", False: "it does not fit", None: "that is not known"}[candidate.fits]
        reasons.append(f"asked for are those whose fine-tuning {wanted}: {known}")
    if filters.licences is not None:
        allowed_names = ", ".join(filters.licences) or "none"
        if not candidate.licence:
            reasons.append(f"its licence is not known; allowed are: {allowed_names}")
        elif _plain(candidate.licence) not in {_plain(name) for name in filters.licences}:
            reasons.append(f"its licence is {candidate.licence}; allowed are: {allowed_names}")
    return "; ".join(reasons) or None


def _plain(licence: str) -> str:
    return licence.strip().casefold()
