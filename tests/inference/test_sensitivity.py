import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar

import jaxkinetic as jk
from jaxkinetic import phase_diagram
from jaxkinetic.shape.sensitivity import QUANTITIES, Sensitivity
from tests.inference import oracle

POINTS = [
    (1.0, 1.0, 1.0, 8.0),
    (1.2, 4.0, 0.5, 5.5),
    # Weak attention, where the U is that of r sigma_0 - log(sigma_0); at lam <= 0 there is none.
    (0.05, 0.02, 1.0, 8.0),
    (0.3, 2.0, 8.0, 8.0),
    # Close to t = 2.457, where the recency ends and the minimum goes to sigma_0 = 1.
    (1.0, 1.0, 2.2, 8.0),
    # A minimum near the start, and an almost hard decoder.
    (0.8, 9.0, 1.0, 3.0),
    (1.5, 2.0, 0.4, 40.0),
]


def at(beta, lam, time=1.0, vocab_size=8.0, edge=0.05) -> Sensitivity:
    theory = jk.theories.paper(time, vocab_size, lam_range=(-20.0, 1000.0))
    return jk.u_sensitivity({"beta": beta, "lam": lam}, theory=theory, edge=edge)


def quantities(point, edge=0.05):
    """The same five numbers from scipy's Bessel functions and a search that knows no slopes."""
    beta, lam, time, vocab_size = point

    def profile(*sources):
        # The oracle divides by e^{2 sqrt(c Y)} of the largest exponent, which belongs to the smallest source.
        floor = 1e-4
        n = np.arange(1, oracle.N_MODES + 1)
        c = time * n**2 * oracle.special.iv(n, beta)
        scale = np.exp(2 * np.sqrt(c.max() * np.log(np.expm1(lam) / np.expm1(lam * floor))))
        return oracle.shape(np.array([floor, *sources]), beta, lam, time, vocab_size)[1:] * scale

    found = minimize_scalar(
        lambda s: profile(s)[0], bounds=(0.01, 0.99), method="bounded", options={"xatol": 1e-12}
    )
    bottom, first, last, end = profile(found.x, edge, 1 - edge, 1.0)  # pyright: ignore[reportAttributeAccessIssue]
    primacy, recency = first - bottom, last - bottom
    return np.array([found.x, end - bottom, primacy, recency, (primacy - recency) / (primacy + recency)])  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("point", POINTS)
def test_quantities_as_defined(point):
    got = at(*point)
    expected = quantities(point)
    assert got.value("location") == pytest.approx(expected[0], rel=1e-6)
    np.testing.assert_allclose(got.values[1:], expected[1:], rtol=1e-9)
    assert got.value("drop") == pytest.approx(float(phase_diagram(*point).drop), rel=1e-11)


@pytest.mark.parametrize("point", POINTS)
def test_derivatives_against_differences(point):
    got = at(*point)
    for j, name in enumerate(("beta", "lam", "time", "vocab_size")):

        def shifted(share, j=j):
            moved = list(point)
            moved[j] *= 1 + share
            return at(*moved).values

        h = 1e-3
        near, far = (shifted(h) - shifted(-h)) / (2 * h), (shifted(2 * h) - shifted(-2 * h)) / (4 * h)
        expected = (4 * near - far) / 3 / point[j]
        np.testing.assert_allclose(got.derivatives[:, j], expected, rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(got.elasticities[:, j], expected * point[j] / got.values, rtol=1e-6)
    assert got.derivative("drop", "lam") == got.derivatives[QUANTITIES.index("drop"), 1]


def test_errors_by_the_delta_method_are_those_of_a_sample():
    """Of normal parameters close to the point, and infinite where a parameter is."""
    point, covariance = (1.2, 2.0, 0.6, 8.0), np.array([[4e-4, -3e-4], [-3e-4, 9e-4]])
    got = at(*point)
    drawn = np.random.default_rng(0).multivariate_normal(point[:2], covariance, 400)
    sample = np.array([at(b, lam, *point[2:]).values for b, lam in drawn]).std(axis=0)
    np.testing.assert_allclose(got.standard_errors(covariance), sample, rtol=0.12)
    # Of beta alone, and of all four parameters.
    np.testing.assert_allclose(got.standard_errors([[0.04]]), 0.2 * np.abs(got.derivatives[:, 0]))
    np.testing.assert_allclose(got.standard_errors(np.eye(4)), np.linalg.norm(got.derivatives, axis=1), rtol=1e-12)
    assert np.all(got.standard_errors(np.diag([np.inf, 1.0])) == np.inf)
    with pytest.raises(ValueError, match="Argument `covariance` must be square, of up to 4 parameters"):
        got.standard_errors(np.eye(5))
    with pytest.raises(ValueError, match="Argument `quantity` must be one of location, drop"):
        got.value("loc")


def test_location_by_another_root_finder():
    got = at(1.2, 2.0, 0.6).value("location")
    h = 1e-6

    def slope(s):
        low, high = oracle.shape(np.array([s - h, s + h, 1e-3]), 1.2, 2.0, 0.6)[:2]
        return high - low

    assert got == pytest.approx(brentq(slope, 0.02, 0.9), rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1.0, 1.0, 1.0), "Argument `beta` must lie in the theory's range, 0.01 to 10, but is -1.0"),
        ((1.0, 1.0, 0.0), "Argument `time` must be positive"),
        ((1.0, 1.0, 1.0, 1.0), "Argument `vocab_size` must be a number of at least 2"),
        ((1.0, 1.0, 1.0, 8.0, 0.5), r"Argument `edge` must lie in \(0, 0.5\), but is 0.5"),
        ((1.0, -1.0, 1.0), "no interior minimum"),
        ((1.0, 1.0, 2.9), "no interior minimum, so that there is no U to move \\(recency ends at t = 2.457"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        at(*arguments)


def test_a_kernel_of_ones_own_is_a_theory():
    """Kernel e^{beta cos} + a cos(2 .): derivatives in beta, lam and the amplitude against differences."""

    def build(beta, lam, amplitude):
        modes = jk.ExpCosine(beta, n_modes=24).coefficients() + jnp.zeros(24).at[1].set(amplitude)
        return jk.CausalAttention(jk.FourierKernel(modes), jk.ALiBi(lam))

    ranges = (("beta", 0.1, 3.0), ("lam", 0.1, 20.0), ("amplitude", 0.0, 1.0))
    theory = jk.theories.of_model(build, [jk.theories.Parameter(*r) for r in ranges], time=0.5)
    point = np.array([1.2, 3.0, 0.2])
    got = jk.u_sensitivity(point, theory=theory)
    assert got.names == ("beta", "lam", "amplitude", "time", "vocab_size")
    for j in range(3):
        step = 1e-4 * np.eye(3)[j]
        ends = [jk.u_sensitivity(point + s * step, theory=theory).values for s in (-1, 1)]
        np.testing.assert_allclose(got.derivatives[:, j], (ends[1] - ends[0]) / 2e-4, rtol=1e-5)
    assert got.value("location") == pytest.approx(float(jk.u_shape(build(*jnp.asarray(point)), 0.5, 8).argmin))


@pytest.mark.parametrize(
    ("covariance", "message"),
    [
        ([[1.0, 2.0], [0.0, 1.0]], "must be symmetric"),
        ([[1.0, np.nan], [np.nan, 1.0]], "must be symmetric, and finite"),
        ([[np.nan, 0.0], [0.0, 1.0]], "must be symmetric, and finite"),
        ([[1.0, 5.0], [5.0, 1.0]], "no negative eigenvalue"),
    ],
)
def test_matrices_that_are_no_covariance_are_refused(covariance, message):
    with pytest.raises(ValueError, match=message):
        at(1.0, 1.0).standard_errors(covariance)


def test_biases_beyond_what_is_resolved_are_refused():
    with pytest.raises(ValueError, match="`lam` must be at most 600"):
        at(1.0, 800.0)
    with pytest.raises(ValueError, match="`lam` must be at most 1000"):
        phase_diagram(1.0, 3e4, 1.0)
