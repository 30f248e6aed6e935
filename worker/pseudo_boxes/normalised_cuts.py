"""Normalised cuts (Shi and Malik, PAMI 22, 2000) of tokens by their similarity, by Lanczos on a sparse affinity.

The published tools build the whole N x N affinity, S where it is above a threshold and 1e-5 elsewhere, and find all of its
eigenvectors. The same matrix is a sparse one plus a constant, whose product with a vector is cheap, and only the few smallest
eigenvectors are asked for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array, vstack
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

WEAK = 1e-5
BLOCK = 512


@dataclass(frozen=True, eq=False)
class Affinity:
    """W = `strong` + WEAK, (N, N); `degrees` (N,) its row sums."""

    strong: csr_array
    degrees: np.ndarray


def affinity_of(vectors: np.ndarray, threshold: float) -> Affinity:
    """Of (N, d) vectors of length 1: their inner products above `threshold` (at least 0), WEAK elsewhere."""
    rows = []
    for start in range(0, len(vectors), BLOCK):
        alike = vectors[start : start + BLOCK] @ vectors.T
        rows.append(csr_array(np.where(alike > threshold, alike - np.float32(WEAK), np.float32(0))))
    strong = csr_array(vstack(rows)) if rows else csr_array((0, 0), dtype=np.float32)
    degrees = np.asarray(strong.sum(axis=1, dtype=np.float64)).ravel() + WEAK * len(vectors)
    return Affinity(strong, degrees)


def cut_vectors(affinity: Affinity, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(values (k,), vectors (N, k)) float64, k <= count: of (D - W) v = l D v the smallest but the first, which is constant.

    Signed so that the entry of largest size is positive; v' D v = 1. Fewer where N is small or Lanczos does not converge.
    """
    size = len(affinity.degrees)
    wanted = min(count + 1, size - 1)
    if wanted < 2:
        return np.zeros(0), np.zeros((size, 0))
    scale = 1 / np.sqrt(affinity.degrees)

    def product(x: np.ndarray) -> np.ndarray:
        scaled = scale * x.ravel()
        return scale * (affinity.strong @ scaled + WEAK * scaled.sum())

    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
    # A start of our own: ARPACK's is random. No constant, which is nearly the first vector alone.
    start = np.cos(np.arange(size) * 1.618) + 1.5
    try:
        values, vectors = eigsh(
            operator, k=wanted, which="LA", v0=start, ncv=min(size, 4 * wanted + 16), tol=1e-8
        )
    except ArpackNoConvergence as stopped:
        values, vectors = stopped.eigenvalues, stopped.eigenvectors
    order = np.argsort(-values, kind="stable")[1:]
    found = scale[:, None] * vectors[:, order]
    largest = np.abs(found).argmax(axis=0)
    signs = np.sign(found[largest, np.arange(found.shape[1])])
    return 1 - values[order], found * signs
