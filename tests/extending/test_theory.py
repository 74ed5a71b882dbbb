"""Theories of a user, with none to three parameters, are fitted, described and drawn as they are."""

from pathlib import Path

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy import optimize, stats

import jaxkinetic as jk
from jaxkinetic import plotting
from jaxkinetic.theories import Parameter

pytestmark = pytest.mark.optimized

# Four theories, in a line or two each -------------------------------------------------------------------

RATE = Parameter("rate", 0.2, 50.0, scale="log", symbol=r"\rho", meaning="decay")
CENTER = Parameter("center", 0.0, 1.0)
SKEW = Parameter("skew", -10.0, 10.0, scale="asinh")

THEORIES = {
    "edges": jk.theories.of_function(lambda x: (x - 0.5) ** 2, name="edges"),
    "decay": jk.theories.of_function(lambda x, rate: jnp.exp(-rate * x), [RATE], name="decay"),
    "two sided": jk.theories.of_function(
        lambda x, rate, center: jnp.cosh(rate * (x - center)), [RATE, CENTER], name="two sided"
    ),
    "skewed": jk.theories.of_function(
        lambda x, rate, center, skew: jnp.cosh(rate * (x - center)) + skew * x, [RATE, CENTER, SKEW], name="skewed"
    ),
}
PLANTED = {"edges": (), "decay": (4.0,), "two sided": (4.0, 0.6), "skewed": (5.0, 0.55, 2.0)}

# ---------------------------------------------------------------------------------------------------------

SIGMA = (np.arange(12) + 0.5) / 12


def measured(name: str, seed: int | None = 1, n_questions: int = 2000) -> list[jk.RetrievalCurve]:
    """Two curves of a theory with offsets and contrasts of their own."""
    rng, curves = np.random.default_rng(seed), []
    for offset, contrast in ((0.4, 0.4), (0.3, 0.5)):
        shape = np.asarray(THEORIES[name].log_shape(jnp.array(PLANTED[name]), jnp.asarray(SIGMA))[0])
        accuracy = offset + contrast * (shape - shape.min()) / np.ptp(shape)
        if seed is not None:
            accuracy = rng.binomial(n_questions, accuracy) / n_questions
        curves.append(jk.RetrievalCurve(SIGMA, accuracy, n_questions, 12))
    return curves


def chi2_of(name: str, curves: list[jk.RetrievalCurve], values: np.ndarray) -> float:
    """By SciPy's bounded least squares, beside the package's elimination."""
    total, shape = 0.0, np.asarray(THEORIES[name].log_shape(jnp.asarray(values), jnp.asarray(SIGMA))[0])
    for curve in curves:
        basis = np.stack([np.ones(12), shape / np.abs(shape).max()], axis=1) / curve.standard_error[:, None]
        found = optimize.lsq_linear(basis, curve.accuracy / curve.standard_error, ([-np.inf, 0], np.inf), "bvls")
        total += 2 * float(found.cost)
    return total


@pytest.fixture(scope="module")
def fits() -> dict[str, jk.CurveFit]:
    return {name: jk.fit_curves(measured(name), theory=theory) for name, theory in THEORIES.items()}


@pytest.mark.parametrize("name", list(THEORIES))
def test_minimum_is_that_of_scipy(fits: dict[str, jk.CurveFit], name: str):
    fit, n = fits[name], len(PLANTED[name])
    assert fit.dof == 24 - 4 - n
    assert fit.p_value == pytest.approx(stats.chi2.sf(fit.chi2, fit.dof), rel=1e-8)
    if not n:
        assert fit.chi2 == pytest.approx(chi2_of(name, fit.curves, np.zeros(0)), rel=1e-9)
        return
    bounds = [(float(p.low), float(p.high)) for p in fit.theory.parameters]
    found = optimize.minimize(
        lambda v: chi2_of(name, fit.curves, v), PLANTED[name], bounds=bounds, method="Nelder-Mead",
        options={"xatol": 1e-6, "fatol": 1e-7, "maxfev": 600},
    )  # fmt: skip
    assert fit.chi2 == pytest.approx(found.fun, abs=1e-5)
    assert chi2_of(name, fit.curves, np.array(list(fit.values.values()))) == pytest.approx(fit.chi2, rel=1e-8)
    np.testing.assert_allclose(list(fit.values.values()), found.x, rtol=2e-3)
    assert all(getattr(fit, k) == v for k, v in fit.values.items())


@pytest.mark.parametrize("name", ["decay", "two sided", "skewed"])
def test_ends_of_intervals_are_where_the_profile_crosses(fits: dict[str, jk.CurveFit], name: str):
    fit = fits[name]
    limit = fit.chi2 + stats.chi2.ppf(0.95, 1)
    for k, (parameter, interval) in enumerate(fit.intervals.items()):
        assert interval.low <= PLANTED[name][k] <= interval.high
        assert fit.identifiable[parameter] == interval.closed
        assert fit.describe(parameter).startswith("in [") == interval.closed
        profile = fit.profiles[parameter]
        for end, is_open in ((interval.low, interval.low_open), (interval.high, interval.high_open)):
            at = np.argmin(np.abs(profile.values[:, k] - end))
            assert profile.values[at, k] == end
            if is_open:
                continue
            assert chi2_of(name, fit.curves, profile.values[at]) == pytest.approx(limit, abs=1e-3)
            # No other choice of the remaining parameters does better there.
            free = [i for i in range(len(fit.values)) if i != k]
            start = profile.values[at]

            def along(others: np.ndarray, start=start, free=free) -> float:
                values = start.copy()
                values[free] = others
                return chi2_of(name, fit.curves, values)

            if free:
                options = {"maxfev": 120, "fatol": 1e-6}
                lower = optimize.minimize(along, start[free], method="Nelder-Mead", options=options)
                assert lower.fun > limit - 2e-3


def test_band_of_three_parameters_is_that_of_constrained_optimisation(fits: dict[str, jk.CurveFit]):
    fit = fits["skewed"]
    curve, at = fit.curves[0], np.array([0.02, 0.5])
    limit = fit.chi2 + stats.chi2.ppf(0.95, 1)
    low, high = fit.band(curve, at)
    fitted = fit.predict(curve, at)
    assert np.all((low < fitted) & (fitted < high))

    def shape(v: np.ndarray, x: np.ndarray) -> np.ndarray:
        values = np.cosh(v[0] * (np.append(SIGMA, x) - v[1])) + v[2] * np.append(SIGMA, x)
        return (values[12:] - values[:12].mean()) / np.ptp(values[:12])

    def room(v: np.ndarray) -> float:
        line = v[3] + v[4] * shape(v, SIGMA)
        own = np.sum(((curve.accuracy - line) / curve.standard_error) ** 2)
        return float(limit - own - chi2_of("skewed", [fit.curves[1]], v[:3]))

    best = np.array(list(fit.values.values()))
    slope, offset = np.polyfit(shape(best, SIGMA), fit.predict(curve), 1)
    bounds = [(0.2, 50.0), (0.0, 1.0), (-10.0, 10.0), (0.0, 1.0), (0.0, 2.0)]
    for j in range(2):
        for side, ours in ((-1, low[j]), (1, high[j])):
            found = optimize.minimize(
                lambda v, j=j, side=side: -side * (v[3] + v[4] * shape(v, at)[j]),
                [*best, offset, slope], method="SLSQP", constraints={"type": "ineq", "fun": room},
                bounds=bounds, options={"maxiter": 200, "ftol": 1e-10},
            )  # fmt: skip
            assert room(found.x) > -1e-4
            width = (high[j] - low[j]) / 2
            assert ours == pytest.approx(-side * found.fun, abs=0.02 * width)


@pytest.mark.parametrize("name", list(THEORIES))
def test_a_theory_is_told_and_drawn(fits: dict[str, jk.CurveFit], name: str):
    fit = fits[name]
    told = fit.summary()
    assert f"accuracy = c0 + c1 {name}(sigma_0" in told
    for parameter in fit.values:
        assert f"{parameter} " in told
        assert fit.describe(parameter) in told
    figure = plotting.plot_fit(fit)
    n = len(fit.values)
    assert len([ax for ax in figure.axes if ax.get_label() != "<colorbar>"]) == 2 + (1 if n == 2 else n)
    low, high = fit.band(fit.curves[1])
    assert np.all(low <= fit.predict(fit.curves[1]))
    assert np.all(fit.predict(fit.curves[1]) <= high)
    plt.close("all")


def test_a_fit_of_a_users_theory_is_read_back_but_for_its_function(fits: dict[str, jk.CurveFit], tmp_path: Path):
    fits["skewed"].to_json(tmp_path / "fit.json")
    found = jk.load(tmp_path / "fit.json")
    assert found.summary() == fits["skewed"].summary()
    with pytest.raises(RuntimeError, match="is not stored"):
        found.predict(found.curves[0])


def test_a_theory_of_a_model_with_the_papers_weights_is_the_papers():
    """The same head, found by coordinates that know nothing of its ridge."""
    curves = jk.load_curves(model="LongChat-13B (16K)")
    theory = jk.theories.of_model(
        lambda beta, lam: jk.CausalAttention(jk.ExpCosine(beta, n_modes=jk.required_modes(10.0)), jk.ALiBi(lam)),
        [Parameter("beta", 0.01, 10.0, scale="log"), Parameter("lam", -20.0, 100.0, scale="asinh")],
    )
    fit = jk.fit_curves(curves, theory=theory)
    assert fit.chi2 == pytest.approx(13.851396, abs=2e-6)
    assert fit.intervals["beta"].high == pytest.approx(5.0235, abs=2e-4)
    assert not fit.identifiable["beta"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Parameter("rate", 2.0, 1.0), "`rate_range` must increase"),
        (lambda: Parameter("rate", -1.0, 1.0, scale="log"), "`rate_range` must be positive"),
        (lambda: Parameter("rate", 0.0, np.inf), "`rate_range` must be finite"),
        (lambda: Parameter("my rate", 0.0, 1.0), "`name` must be a name"),
        (
            lambda: jk.theories.of_function(lambda x: x, [RATE]),
            "must take positions and values",
        ),
        (
            lambda: jk.fit_curves(
                measured("edges"),
                theory=jk.theories.of_model(
                    lambda p: jk.CausalAttention(jk.ExpCosine(1.0), jk.PowerLaw(p, 1.0)), [RATE]
                ),
            ),
            "must be ALiBi for a theory's closed form, but is PowerLaw. Fit other weights by `fit_by_simulation`",
        ),
        (
            lambda: jk.theories.of_model(lambda p: jk.ALiBi(p), [RATE]),  # pyright: ignore
            "`build` must build a CausalAttention, but builds ALiBi",
        ),
        (lambda: jk.theories.of_function(lambda x, a, b: a * b * x, [RATE, RATE]), "must have different names"),
        (lambda: jk.theories.of_function(3.0), "`function` must be a function"),  # pyright: ignore
        (lambda: jk.fit_curves(measured("edges"), theory="paper"), "`theory` must be a Theory"),  # pyright: ignore
        (lambda: jk.theories.paper(beta_range=(2.0, 1.0)), "`beta_range` must increase"),
    ],
)
@pytest.mark.usefixtures("as_installed")
def test_what_is_no_theory_is_refused(make, message: str):
    with pytest.raises(ValueError, match=message):
        make()
