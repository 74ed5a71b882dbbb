"""Column sums of omega diverge as log N, (1.7) and (2.2); N omega approaches the graphon at rate 1 / N, (2.4)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkinetic import ALiBi

LAMS = [-6.0, -1.0, 0.0, 1.0, 6.0]
SIZES = np.array([40, 80, 160, 320, 640])


def slope(x, y):
    """Least-squares slope and its standard error from the scatter round the line."""
    (found, _), covariance = np.polyfit(x, y, 1, cov=True)
    return found, np.sqrt(covariance[0, 0])


def graphon_distance(positions, n_tokens, j):
    """int_0^1 |K_N(sigma, .) - k(sigma, .)| at sigma = j / N, by 32 midpoints in each cell of K_N."""
    inside = (jnp.arange(32) + 0.5) / 32
    source = (jnp.arange(n_tokens)[:, None] + inside[None, :]) / n_tokens
    limit = jax.vmap(jax.vmap(positions.graphon, (None, 0)), (None, 0))(jnp.asarray(j / n_tokens), source)
    kernel = n_tokens * positions.weights(n_tokens)[j - 1]
    return float(jnp.mean(jnp.abs(kernel[:, None] - limit)))


@pytest.mark.parametrize("lam", LAMS)
def test_column_sums_diverge_as_log_n(lam):
    """sum_j omega_{j1} = log N + c + O(log N / N), c = gamma + log((1 - e^{-lam}) / lam), and no column has more.

    With h = lam / N the sum is that of (e^h - 1) / (e^{h m} - 1) over m = 1..N - 1: the harmonic sum, which gives
    log N + gamma, and a Riemann sum of g(x) = lam / (e^{lam x} - 1) - 1 / x over [0, 1], which gives the rest. The
    coefficient of log N is one for every lam, as is that of |log sigma'| in int k(sigma, sigma') dsigma. The
    first correction, by the trapezoidal rule, is (lam (log N + c) / 2 - (1 - lam / 2 + g(1)) / 2) / N.
    """
    columns = [ALiBi(lam).weights(int(n)).sum(axis=0) for n in SIZES]
    assert all(int(jnp.argmax(column)) == 0 for column in columns)
    first = np.array([float(column[0]) for column in columns])
    log, end = (np.log(-np.expm1(-lam) / lam), lam / np.expm1(lam) - 1) if lam else (0.0, 0.0)
    leading = np.log(SIZES) + np.euler_gamma + log
    correction = (lam * leading / 2 - (1 - lam / 2 + end) / 2) / SIZES
    rest = first - leading - correction
    # Halving 1 / N divides log N / N^2 by nearly four.
    assert np.all(np.abs(rest[1:]) < np.abs(rest[:-1]) / 3)
    assert np.all(np.abs(rest) < (1 + lam**2) * np.log(SIZES) / SIZES**2)
    # Over this range of log N a least-squares slope moves by less than the values do.
    found, _ = slope(np.log(SIZES), first - correction)
    assert abs(found - 1) < np.ptp(rest)
    assert np.ptp(rest) < 0.05


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("lam", LAMS)
def test_kernel_approaches_the_graphon_at_rate_one(lam, sigma):
    """N int |K_N - k| tends to a constant that is known.

    In a cell, at distance x / N from its right end, K_N / k - 1 = (lam / N) (1/2 + x + 1 / (e^{lam sigma} - 1)) to
    first order; the last cell, where K_N = 0, has k(sigma, sigma) / N. Where the bracket keeps its sign the parts
    are equal, both kernels having mass one: 2 k(sigma, sigma) in all. It changes sign if lam sigma < -log 3.
    """
    positions = ALiBi(lam)
    distances = np.array([graphon_distance(positions, int(n), round(n * sigma)) for n in SIZES])
    found, error = slope(np.log(SIZES), np.log(distances))
    assert error < 0.03
    assert abs(found + 1) < 0.1, (found, error)
    diagonal = float(positions.graphon(jnp.asarray(sigma), jnp.asarray(sigma)))
    constant = 2 * diagonal
    if lam * sigma < -np.log(3):
        turn = -1 / np.expm1(lam * sigma) - 0.5
        constant = diagonal - lam * (turn**2 + (1 - turn) ** 2) / 2
    extrapolated = 2 * SIZES[-1] * distances[-1] - SIZES[-2] * distances[-2]
    assert extrapolated == pytest.approx(constant, rel=0.01)


@pytest.mark.parametrize("lam", LAMS)
def test_the_bound_holds_down_to_the_first_token(lam):
    """(N sigma + 1) int |K_N - k| stays below a constant for every sigma = j / N, though k grows as 1 / sigma.

    To first order in 1 / N the integral is at most 2 k(sigma, sigma) / N, and sigma k(sigma, sigma) at most the
    larger of 1 and lam / (1 - e^{-lam}); j + 1 is at most 3 j / 2 from the second token on, and the first has
    nothing to attend to: int k = 1. Higher orders are relative, |lam| / N.
    """
    positions, largest = ALiBi(lam), 3 * max(1.0, -lam / np.expm1(-lam) if lam else 1.0)
    for n_tokens in (40, 320):
        j = np.array([1, 2, 3, 5, 8, 13, n_tokens // 2, n_tokens])
        distances = np.array([graphon_distance(positions, n_tokens, int(k)) for k in j])
        assert np.all((j + 1) * distances < largest * (1 + abs(lam) / n_tokens) + 1e-9)


def test_without_bias_the_distance_is_two_over_j():
    """N / (j - 1) against N / j on j - 1 cells, and N / j on the last."""
    for n_tokens, j in ((8, 3), (40, 40), (64, 2)):
        assert graphon_distance(ALiBi(0.0), n_tokens, j) == pytest.approx(2 / j, rel=1e-12)
