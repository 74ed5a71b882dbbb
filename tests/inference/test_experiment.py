import jax.numpy as jnp
import numpy as np
import pytest

import jaxkinetic as jk
from jaxkinetic.inference.planned_experiment import spectrum
from tests.inference import oracle

SOURCES = (np.arange(12) + 0.5) / 12
THETA = np.array([1.5, 4.0, 0.4, 0.05])


def plan(sources, n_questions, beta, lam, c0, c1, theory=None):
    return jk.plan_experiment(sources, n_questions, {"beta": beta, "lam": lam}, c0=c0, c1=c1, theory=theory)


def accuracy(theta, sources, time=1.0, vocab_size=8.0):
    """c0 + c1 S_t from scipy's Bessel functions, with the factor that the oracle takes out put back."""
    beta, lam, c0, c1 = theta
    floor = 1e-3
    n = np.arange(1, oracle.N_MODES + 1)
    largest = (time * n**2 * oracle.special.iv(n, beta)).max()
    scale = np.exp(2 * np.sqrt(largest * np.log(np.expm1(lam) / np.expm1(lam * floor))))
    return c0 + c1 * scale * oracle.shape(np.array([floor, *sources]), beta, lam, time, vocab_size)[1:]


def gradient(theta, sources):
    columns = []
    for j in range(4):
        step = np.zeros(4)
        step[j] = 1e-3 * theta[j]
        near = (accuracy(theta + step, sources) - accuracy(theta - step, sources)) / 2
        far = (accuracy(theta + 2 * step, sources) - accuracy(theta - 2 * step, sources)) / 4
        columns.append((4 * near - far) / 3 / step[j])
    return np.stack(columns, axis=1)


def test_information_is_the_hessian_of_the_expected_chi_squared():
    counts = np.linspace(100, 1200, 12)
    planned = plan(SOURCES, counts, *THETA)
    truth = accuracy(THETA, SOURCES)
    np.testing.assert_allclose(planned.accuracy, truth, rtol=1e-12)
    variance = truth * (1 - truth) / counts

    def expected_chi2(theta):
        return np.sum((accuracy(theta, SOURCES) - truth) ** 2 / variance)

    def curvature(i, j, share):
        a, b = np.zeros(4), np.zeros(4)
        a[i], b[j] = share * THETA[i], share * THETA[j]
        corners = [s * r * expected_chi2(THETA + s * a + r * b) for s in (-1, 1) for r in (-1, 1)]
        return sum(corners) / (4 * share**2 * THETA[i] * THETA[j])

    hessian = np.array(
        [[(4 * curvature(i, j, 1e-3) - curvature(i, j, 2e-3)) / 3 for j in range(4)] for i in range(4)]
    )
    size = np.sqrt(np.outer(np.diag(planned.information), np.diag(planned.information)))
    np.testing.assert_allclose(hessian / 2 / size, planned.information / size, atol=1e-6)


def test_information_is_symmetric_and_positive_semi_definite():
    rng = np.random.default_rng(0)
    for _ in range(20):
        sources = np.sort(rng.choice(np.linspace(0.05, 1, 20), 6, replace=False))
        planned = plan(sources, rng.integers(1, 3000, 6), rng.uniform(0.5, 1), rng.uniform(-3, 5), 0.3, 0.01)
        np.testing.assert_array_equal(planned.information, planned.information.T)
        size = np.sqrt(np.diag(planned.information))
        assert np.linalg.eigvalsh(planned.information / np.outer(size, size)).min() > -1e-14


def test_errors_are_those_of_the_inverse_and_shrink_with_questions():
    planned, larger = (plan(SOURCES, n, *THETA) for n in (500, 2000))
    assert all(planned.identifiable.values())
    errors = np.sqrt(np.diag(np.linalg.inv(planned.information)))
    np.testing.assert_allclose(list(planned.standard_errors.values()), errors, rtol=1e-8)
    np.testing.assert_allclose(list(larger.standard_errors.values()), errors / 2, rtol=1e-8)
    assert planned.describe("lam").startswith("4 +- ")


def test_band_is_the_delta_method_and_that_of_sampled_parameters():
    planned = plan(SOURCES, 1e9, *THETA)
    at = np.array([0.03, 0.2, 0.55, 1.0])
    slopes = gradient(THETA, at)
    mean, low, high = planned.band(at, level=0.9)
    half = 1.6448536269514722 * np.sqrt(
        np.einsum("si,ij,sj->s", slopes, np.linalg.inv(planned.information), slopes)
    )
    np.testing.assert_allclose(mean, accuracy(THETA, at), rtol=1e-12)
    np.testing.assert_allclose(high - mean, half, rtol=1e-6)
    np.testing.assert_allclose(mean - low, half, rtol=1e-6)
    rng = np.random.default_rng(1)
    drawn = rng.multivariate_normal(THETA, np.linalg.inv(planned.information), 2000)
    inside = np.mean([(low < (a := accuracy(theta, at))) & (a < high) for theta in drawn], axis=0)
    np.testing.assert_allclose(inside, 0.9, atol=0.03)


def test_three_positions_leave_everything_open_but_themselves():
    planned = plan([0.1, 0.5, 0.9], 2000, *THETA)
    assert not any(planned.identifiable.values())
    assert all(np.isinf(e) for e in planned.standard_errors.values())
    assert planned.describe("beta") == "1.5, unidentified"
    _, low, high = planned.band([0.1, 0.3, 0.5, 0.9])
    assert np.isfinite(high - low).tolist() == [True, False, True, True]
    assert high[0] - low[0] == pytest.approx(
        2 * 1.959964 * np.sqrt(planned.accuracy[0] * (1 - planned.accuracy[0]) / 2000), rel=1e-5
    )


def test_a_flat_curve_says_nothing_about_beta_and_lam():
    planned = plan(SOURCES, 1000, 1.5, 4.0, 0.5, 0.0)
    assert planned.identifiable == {"beta": False, "lam": False, "c0": True, "c1": True}


def test_shallow_curves_hardly_tell_beta():
    planned = plan(SOURCES, 2655, 0.1, 0.1, 0.5, 0.1)
    assert "as good as unidentified" in planned.describe("beta")
    # From an error as large as beta itself on; errors fall as the root of the questions.
    asked = 2655 * (planned.standard_errors["beta"] / 0.1) ** 2
    for share, is_blind in ((0.8, True), (1.25, False)):
        found = plan(SOURCES, share * asked, 0.1, 0.1, 0.5, 0.1).describe("beta")
        assert ("as good as unidentified" in found) == is_blind


@pytest.mark.parametrize("accuracy", [0.0, 1.0])
def test_accuracies_of_none_and_all_have_no_information(accuracy):
    """Their binomial variance is 0: a share of a thousandth has one, and its errors are finite."""
    with pytest.raises(ValueError, match=f"must give accuracies within .0, 1., but give {accuracy:.3g} to"):
        plan(SOURCES, 100, 1.5, 4.0, accuracy, 0.0)
    beside = plan(SOURCES, 100, 1.5, 4.0, abs(accuracy - 1e-3), 0.0)
    assert beside.standard_errors["c0"] < np.inf


def test_a_weak_direction_is_seen_down_to_rounding():
    """Two parameters that nearly do the same: their difference has an information of 1 - correlation."""
    for apart, is_seen in ((1e-6, True), (1e-10, True), (1e-14, False)):
        information = np.array([[1.0, 1 - apart], [1 - apart, 1.0]])
        seen, blind = spectrum(information)
        assert (seen.shape[1], blind.shape[1]) == ((2, 0) if is_seen else (1, 1))
        if is_seen:
            difference = np.array([1.0, -1.0]) @ seen
            assert difference @ difference == pytest.approx(2 / apart, rel=1e-5)
        else:
            np.testing.assert_allclose(np.abs(blind[:, 0]), np.sqrt(0.5))


@pytest.mark.parametrize("units", [(1.0, 1.0), (1e3, 1e-4), (1e-6, 1e6)])
def test_a_direction_is_seen_if_its_information_is_above_its_noise_in_any_units(units):
    """Of 4 and 1 on two axes turned by 30 degrees, and noise of 2 on both."""
    c, s = np.cos(np.pi / 6), np.sin(np.pi / 6)
    turn, scale = np.array([[c, -s], [s, c]]), np.diag(units)
    information, noise = (scale @ turn @ np.diag(d) @ turn.T @ scale for d in ([4.0, 0.5], [2.0, 2.0]))
    seen, blind = spectrum(information, noise)
    assert (seen.shape, blind.shape) == ((2, 1), (2, 1))
    # Eigenvectors of the information whose diagonal is one, the unit in which directions are compared.
    root = np.diag(np.diag(information) ** -0.5)
    strength, direction = np.linalg.eigh(root @ information @ root)
    expected = root @ np.outer(direction[:, 1], direction[:, 1]) @ root / strength[1]
    np.testing.assert_allclose(seen @ seen.T, expected, rtol=1e-10)
    everything, nothing = spectrum(information, noise / 1e3)
    np.testing.assert_allclose(everything @ everything.T, np.linalg.inv(information), rtol=1e-9)
    assert nothing.shape == (2, 0)


def test_the_information_of_any_theory_is_that_of_its_function():
    """A decay c0 + c1 e^{-r sigma}: its gradient is (-c1 sigma e^{-r sigma}, 1, e^{-r sigma})."""
    rate = jk.theories.Parameter("rate", 0.1, 50.0, scale="log")
    decay = jk.theories.of_function(lambda sigma, r: jnp.exp(-r * sigma), [rate], name="decay")
    planned = jk.plan_experiment(SOURCES, 300, [4.0], c0=0.2, c1=0.5, theory=decay)
    shape = np.exp(-4 * SOURCES)
    gradient = np.stack([-0.5 * SOURCES * shape, np.ones(12), shape], axis=1)
    weight = 300 / (planned.accuracy * (1 - planned.accuracy))
    np.testing.assert_allclose(planned.accuracy, 0.2 + 0.5 * shape, rtol=1e-14)
    np.testing.assert_allclose(planned.information, gradient.T @ (weight[:, None] * gradient), rtol=1e-12)
    assert list(planned.standard_errors) == ["rate", "c0", "c1"]
    assert planned.describe("rate").startswith("4 +- ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sources": []}, "Argument `sources` must be a non-empty"),
        ({"sources": [0.5, 0.5]}, "Argument `sources` must not repeat a position"),
        ({"sources": [0.0, 0.5]}, "Argument `sources` must lie in"),
        ({"n_questions": 0}, "Argument `n_questions` must be at least 1"),
        ({"n_questions": [10, 10]}, "Argument `n_questions` must be at least 1, one or for each position"),
        ({"values": [1.5, 4.0, 1.0]}, "Argument `values` must hold each of beta, lam, but has shape"),
        ({"values": {"beta": 1.5}}, "Argument `values` must name beta, lam, but names beta"),
        ({"values": [20.0, 4.0]}, "Argument `beta` must lie in the theory's range, 0.01 to 10, but is 20"),
        ({"values": [1.5, np.nan]}, "Argument `lam` must lie in the theory's range, -20 to 100, but is nan"),
        ({"c1": -0.1}, "Argument `c1` must not be negative"),
        ({"c1": 5.0}, "must give accuracies within"),
    ],
)
def test_bad_input(changes, message):
    arguments = {"sources": SOURCES, "n_questions": 100, "values": [1.5, 4.0], "c0": 0.4, "c1": 0.05} | changes
    with pytest.raises(ValueError, match=message):
        jk.plan_experiment(**arguments)
