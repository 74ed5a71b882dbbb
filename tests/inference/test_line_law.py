import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from jaxkinetic.inference import Priors
from jaxkinetic.inference.posterior.line_law import integrate_line, standardise
from jaxkinetic.inference.posterior.priors import alternative_columns, linear_evidence

PRIORS = Priors(mean=0.6, mean_spread=0.3, contrast_spread=0.15)
SHAPE = np.array([1.4, -0.2, -1.3, -0.6, 0.7])
SHAPE = (SHAPE - SHAPE.mean()) / SHAPE.std()
ERROR = np.array([0.03, 0.05, 0.04, 0.02, 0.06])
NOISE = np.array([0.02, -0.04, 0.01, 0.03, -0.05])


def normal(x, mean, spread):
    return np.exp(-(((x - mean) / spread) ** 2) / 2) / (np.sqrt(2 * np.pi) * spread)


def by_quadrature(accuracy, of_m=0, of_k=0):
    """Integral of likelihood, priors and m^a k^b over m and k >= 0, straight from their definitions."""

    def integrand(k, m):
        likelihood = np.prod(normal(accuracy, m + k * SHAPE, ERROR))
        return likelihood * normal(m, 0.6, 0.3) * 2 * normal(k, 0, 0.15) * m**of_m * k**of_k

    middle = np.average(accuracy, weights=ERROR**-2)
    return integrate.dblquad(integrand, middle - 0.2, middle + 0.2, 0, 0.5, epsabs=0, epsrel=1e-9)[0]


@pytest.mark.parametrize("contrast", [0.1, 0.0, -0.08])
def test_integral_over_offset_and_contrast_against_quadrature(contrast):
    # Where the contrast of the data is negative, the cut at k = 0 decides.
    accuracy = 0.5 + contrast * SHAPE + NOISE
    padded = [jnp.asarray(np.pad(x, (0, 3))) for x in (SHAPE, accuracy, ERROR**-2)]
    got = integrate_line(padded[0], padded[1], padded[2], PRIORS)
    exact = by_quadrature(accuracy)
    assert float(got.log_evidence) == pytest.approx(np.log(exact), abs=1e-8)
    # The truncated normal that is left has the moments of the posterior.
    (m, k), covariance = np.asarray(got.mean), np.asarray(got.covariance)
    cut = stats.truncnorm(-k / np.sqrt(covariance[1, 1]), np.inf, k, np.sqrt(covariance[1, 1]))
    mean_k = by_quadrature(accuracy, of_k=1) / exact
    assert cut.mean() == pytest.approx(mean_k, rel=1e-6)
    tilt = covariance[0, 1] / covariance[1, 1]
    assert m + tilt * (cut.mean() - k) == pytest.approx(by_quadrature(accuracy, of_m=1) / exact, rel=1e-8)


def test_huge_counts_cancel_nothing():
    accuracy = 0.5 + 0.1 * SHAPE
    precise, better = (
        integrate_line(jnp.asarray(SHAPE), jnp.asarray(accuracy), jnp.asarray(w * ERROR**-2), PRIORS)
        for w in (1e8, 1e10)
    )
    # Laplace: every point gains log(10), m and k lose one each.
    gain = float(better.log_evidence - precise.log_evidence)
    assert gain == pytest.approx((SHAPE.size - 2) * np.log(10), abs=1e-6)


def test_standardised_shapes():
    values = jnp.asarray([3.0, 9.0, 4.0, 99.0])
    own, others = standardise(values, jnp.asarray([1.0, 1.0, 1.0, 0.0]), values)
    np.testing.assert_allclose(own[:3], others[:3])
    assert float(own[3]) == 0
    np.testing.assert_allclose([own[:3].mean(), own[:3].std()], [0, 1], atol=1e-15)
    flat, _ = standardise(jnp.full(4, 2.0), jnp.ones(4), values)
    assert jnp.all(flat == 0)


@pytest.mark.parametrize("name", ["constant", "quadratic", "free-form"])
def test_alternatives_against_a_dense_normal(name):
    sources = np.array([0.1, 0.3, 0.5, 0.7, 0.95])
    columns = alternative_columns(name, sources, PRIORS)
    accuracy = 0.5 + NOISE
    covariance = np.diag(ERROR**2) + 0.3**2 + columns @ columns.T
    expected = stats.multivariate_normal(np.full(5, 0.6), covariance).logpdf(accuracy)  # pyright: ignore[reportArgumentType]
    assert linear_evidence(columns, accuracy, ERROR**-2, PRIORS) == pytest.approx(expected, rel=1e-12)
    spread = {"constant": 0.0, "quadratic": 0.15**2 * 5, "free-form": 0.15**2 * 5}
    assert np.trace(columns @ columns.T) == pytest.approx(spread[name], abs=1e-14)
    if name == "quadratic":
        np.testing.assert_allclose(columns.sum(axis=0), 0, atol=1e-14)
        assert np.linalg.matrix_rank(np.column_stack([columns, np.vander(sources, 3)])) == 3


@pytest.mark.parametrize(("name", "column"), [("quadratic", [-0.15, 0.15]), ("constant", [0.0, 0.0])])
def test_a_quadratic_through_two_points_is_a_line(name, column):
    """One column of the standard deviation tau_k over the two positions, and no second."""
    sources, accuracy, error = np.array([0.2, 0.9]), np.array([0.4, 0.55]), np.array([0.02, 0.03])
    found = linear_evidence(alternative_columns(name, sources, PRIORS), accuracy, error**-2, PRIORS)
    covariance = np.diag(error**2) + 0.3**2 + np.outer(column, column)
    expected = stats.multivariate_normal(np.full(2, 0.6), covariance).logpdf(accuracy)  # pyright: ignore[reportArgumentType]
    assert found == pytest.approx(expected, rel=1e-10)


def test_constant_evidence_against_quadrature():
    accuracy = 0.5 + NOISE
    exact = integrate.quad(lambda m: np.prod(normal(accuracy, m, ERROR)) * normal(m, 0.6, 0.3), 0.3, 0.7, epsabs=0)[
        0
    ]
    got = linear_evidence(np.zeros((5, 0)), accuracy, ERROR**-2, PRIORS)
    assert got == pytest.approx(np.log(exact), abs=1e-8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": np.nan}, "Argument `mean` must be finite"),
        ({"mean_spread": 0.0}, "Argument `mean_spread` must be positive"),
        ({"contrast_spread": 1e200}, "`contrast_spread` must lie within"),
        ({"contrast_spread": -1.0}, "Argument `contrast_spread` must be positive"),
    ],
)
def test_priors_that_are_none(changes, message):
    with pytest.raises(ValueError, match=message):
        Priors(**changes)


def test_priors_are_shown():
    assert "half-normal, standard deviation 0.15" in str(PRIORS)
