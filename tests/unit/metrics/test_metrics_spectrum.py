"""The tridiagonal forms against dense linear algebra, on easy and on badly conditioned matrices."""

import numpy as np
import pytest

from worker.metrics.moments import Moments
from worker.metrics.spectrum import Tridiagonal, dual_spectrum, primal_spectrum


def features(n, d, seed=0, offset=1.0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) / (1 + np.arange(d)) + offset


def dense(t):
    return np.diag(t.diagonal) + np.diag(t.off, 1) + np.diag(t.off, -1)


@pytest.mark.parametrize("offset", [0.0, 1.0, 50.0])
@pytest.mark.parametrize("shape", [(50, 12), (30, 30), (9, 1), (40, 2)])
def test_primal_reduction_holds_both_matrices(shape, offset):
    x = features(*shape, offset=offset)
    n = len(x)
    mean = x.mean(axis=0)
    z, y = x - mean, np.random.default_rng(1).random((n, 3))
    s = primal_spectrum(z.T @ z, mean, n)
    np.testing.assert_allclose(np.linalg.eigvalsh(dense(s.centred)), np.linalg.eigvalsh(z.T @ z), atol=1e-9)
    np.testing.assert_allclose(
        np.linalg.eigvalsh(dense(s.raw)), np.linalg.eigvalsh(x.T @ x), rtol=1e-9, atol=1e-9
    )
    raw, centred = s.project(z.T @ y, y.sum(axis=0))
    for t, b, m, cross in ((s.raw, raw, x, x.T @ y), (s.centred, centred, z, z.T @ y)):
        direct = cross.T @ np.linalg.solve(m.T @ m + 0.3 * np.eye(shape[1]), cross)
        np.testing.assert_allclose(b.T @ t.solve(0.3, b), direct, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(s.lift_raw(raw), x.T @ y, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", [(12, 50), (30, 30), (2, 5), (1, 3)])
def test_dual_reduction_holds_both_matrices(shape):
    x = features(*shape)
    n = len(x)
    mean = x.mean(axis=0)
    z, y = x - mean, np.random.default_rng(1).random((n, 3))
    s = dual_spectrum(z @ z.T, z @ mean, mean, shape[1])
    np.testing.assert_allclose(
        np.linalg.eigvalsh(dense(s.raw)), np.linalg.eigvalsh(x @ x.T), rtol=1e-9, atol=1e-9
    )
    centred = np.sort(np.append(np.linalg.eigvalsh(dense(s.centred)), 0)) if n > 1 else np.zeros(1)
    np.testing.assert_allclose(centred, np.linalg.eigvalsh(z @ z.T), atol=1e-9)
    raw, _ = s.project(y, y.sum(axis=0))
    direct = y.T @ np.linalg.solve(x @ x.T + 0.3 * np.eye(n), y)
    np.testing.assert_allclose(raw.T @ s.raw.solve(0.3, raw), direct, rtol=1e-8)


@pytest.mark.parametrize("smallest", [1.0, 1e-6, 1e-14, 0.0])
def test_traces_and_logdets_both_ways(smallest):
    """Few shifts go by pivots, many by eigenvalues: the same numbers from 1e-6 to 1e8 times the matrix."""
    rng = np.random.default_rng(0)
    q, _ = np.linalg.qr(rng.standard_normal((80, 80)))
    s = primal_spectrum(q @ np.diag(np.geomspace(max(smallest, 1e-30), 10.0, 80)) @ q.T, np.ones(80) / 9, 100)
    t = s.raw
    values = t.eigenvalues
    for shift in np.geomspace(1e-5, 1e9, 15):
        few, many = np.array([shift]), np.full(40, shift)
        for shifts in (few, many):
            used, inverse = t.traces(shifts)
            np.testing.assert_allclose(used, (values / (values + shift)).sum(), rtol=1e-8)
            np.testing.assert_allclose(inverse, (1 / (values + shift)).sum(), rtol=1e-8)
            np.testing.assert_allclose(t.logdets(shifts), np.log(values + shift).sum(), rtol=1e-9, atol=1e-9)


def test_logdet_and_times():
    s = primal_spectrum(np.diag([3.0, 2.0, 1.0]), np.zeros(3), 5).centred
    assert s.logdet(2.0) == pytest.approx(np.log([2.5, 2.0, 1.5]).sum())
    x = np.random.default_rng(0).random((4, 3))
    np.testing.assert_allclose(s.times(x), x @ dense(s))


def test_a_shift_below_the_rounding_of_the_matrix_is_still_solved():
    t = Tridiagonal(np.array([1.0, 1.0]), np.array([1.0 + 1e-12]))
    x = t.solve(1e-13, np.array([[1.0], [1.0]]))
    assert np.isfinite(x).all()
    assert t.traces(np.array([1e-13]))[0] > 0


def test_moments_move_there_and_back():
    u = features(30, 5, offset=0.0)
    u -= u.mean(axis=0)
    e = np.array([1.0, -2.0, 0.5, 0.0, 3.0])

    def direct(rows):
        r = (rows**2).sum(axis=1)
        return Moments(len(rows), rows.T @ rows, r @ rows, float(r @ r))

    moved = direct(u).around(e)
    expected = direct(u + e)
    np.testing.assert_allclose(np.tril(moved.scatter), np.tril(expected.scatter))
    np.testing.assert_allclose(moved.cubic, expected.cubic)
    assert moved.quartic == pytest.approx(expected.quartic)
    back = moved.at_mean(e)
    np.testing.assert_allclose(np.tril(back.scatter), np.tril(u.T @ u), atol=1e-12)
    np.testing.assert_allclose(back.cubic, direct(u).cubic, atol=1e-10)
    assert back.quartic == pytest.approx(direct(u).quartic)
