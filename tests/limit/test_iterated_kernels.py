"""Iterated kernels against the closed form, the Volterra-Hardy equation solved by other means, and particles."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

from jaxkinetic import (
    ALiBi,
    CausalAttention,
    ExpCosine,
    ExponentialSum,
    PowerLaw,
    SplineWeights,
    estimate_profile,
    iterated_kernels,
    retrieval_profile,
)
from jaxkinetic.limit import closed_form

pytestmark = pytest.mark.optimized

LOG_VALUES = np.array([0.3, -0.2, 0.5, 0.1, -1.2, -0.7, -0.9, 0.4])
WEIGHTS = {
    "exponentials": ExponentialSum([1.0, 0.3, 2.0], [1.0, -3.0, 20.0]),
    "power": PowerLaw(1.5, 0.02),
    "sharp power": PowerLaw(3.0, 0.002),
    "spline": SplineWeights(LOG_VALUES),
    "fine spline": SplineWeights(np.sin(3 * np.arange(21.0))),
}
RATES = ExpCosine(1.0).growth_rates()
SOURCES = jnp.asarray([0.01, 0.011, 0.05, 0.3, 0.77, 0.98, 1.0])


@pytest.mark.parametrize("lam", [-3.0, 0.0, 1.0, 10.0, 30.0])
@pytest.mark.parametrize("time", [0.3, 1.0, 4.0])
def test_alibi_against_the_closed_form(lam, time):
    log_weights = closed_form.log_mode_weights(8, RATES.size)
    exact = jax.vmap(lambda s: closed_form.profile(RATES, log_weights, jnp.asarray(time), s, ALiBi(lam)))(SOURCES)
    got = iterated_kernels(ALiBi(lam)).correction(RATES, time, 8, SOURCES)
    np.testing.assert_allclose(got, exact, rtol=3e-12)


def test_the_first_two_kernels_by_adaptive_quadrature():
    for positions in (WEIGHTS["power"], WEIGHTS["spline"]):
        graphon = jax.jit(lambda sigma, source, p=positions: p.graphon(sigma, source))
        found = iterated_kernels(positions)
        for source in (0.02, 0.4, 0.9):
            bends = [s for s in (source + np.arange(8) / 7, source + 0.02) if np.all(s < 1)]
            inner = quad(
                lambda s, g=graphon, x=source: float(g(1.0, s) * g(s, x)), source, 1,
                points=np.unique(np.clip(np.hstack([*bends, 0.97, np.arange(1, 7) / 7]), source, 1)),
                epsabs=1e-12, epsrel=1e-12, limit=400,
            )[0]  # fmt: skip
            h = found.at(jnp.asarray(source))
            assert float(h[0]) == pytest.approx(float(graphon(1.0, source)), rel=1e-11)
            assert float(h[1]) == pytest.approx(inner, rel=1e-9)


def volterra(positions, rate, depth, source, levels):
    """Solve (1.19) from one source by the trapezoidal rule in sigma and its powers in t, extrapolated.

    On a graded grid dg/dt = a (k(., source) + A g), whose solution is exact in t through the exponential of the
    lower triangular matrix A. Romberg's extrapolation removes the even powers of the spacing.
    """
    results = []
    for level in range(levels):
        n = 40 * 2**level
        # Graded towards the source, where the equation starts.
        x = np.linspace(0, 1, n + 1)
        sigma = source * (1 / source) ** x
        log_b = np.asarray(positions.log_weight(jnp.asarray(np.abs(sigma[:, None] - sigma[None, :]))))
        log_mass = np.asarray(positions.log_mass(jnp.asarray(sigma)))
        kernel = np.tril(np.exp(log_b - log_mass[:, None]))
        steps = sigma * np.log(1 / source) / n
        weights = kernel * steps[None, :]
        weights[:, 0] /= 2
        weights[np.arange(n + 1), np.arange(n + 1)] /= 2
        weights[0] = 0
        start = np.exp(np.asarray(positions.log_weight(jnp.asarray(sigma - source))) - log_mass)
        term, total = rate * depth * start, np.zeros_like(start)
        for m in range(2, 60):
            total, term = total + term, rate * depth / m * (weights @ term)
        results.append(total[-1])
    table = results
    for order in range(1, levels):
        table = [(4**order * b - a) / (4**order - 1) for a, b in itertools.pairwise(table)]
    return table[0]


@pytest.mark.parametrize(
    ("name", "source"),
    [pytest.param("exponentials", 0.05, marks=pytest.mark.slow), ("exponentials", 0.5), ("power", 0.3)],
)
def test_smooth_weights_solve_the_volterra_hardy_equation(name, source):
    positions = WEIGHTS[name]
    for rate in (0.9, -1.5):
        got = iterated_kernels(positions).profiles(jnp.asarray([rate]), 1.2, jnp.asarray([source]))[0, 0]
        assert float(got) == pytest.approx(volterra(positions, rate, 1.2, source, 6), rel=1e-7)


def collocated(positions, rate, depth, source, n_nodes):
    """The same by product integration: Gauss collocation on panels that end where the weight bends.

    Unlike the iterated kernels it marches from the source to the reader. At each node the rest of the panel is
    integrated over the interpolating polynomial.
    """
    bends = np.asarray(positions.breaks)
    fine = np.geomspace(source, 1, 14)
    edges = np.unique(np.round(np.concatenate([fine, bends, source + bends]), 13))
    edges = np.concatenate([[source], edges[(edges > source + 1e-9) & (edges < 1 - 1e-9)], [1.0]])
    x, gauss = np.polynomial.legendre.leggauss(n_nodes)
    nodes = (edges[:-1, None] + np.diff(edges)[:, None] * (x + 1) / 2).ravel()
    all_nodes = np.append(nodes, 1.0)

    def kernel(sigma, tau):
        log_b = positions.log_weight(jnp.asarray(np.maximum(sigma - tau, 0)))
        return np.exp(np.asarray(log_b - positions.log_mass(jnp.asarray(sigma))))

    inverse = np.linalg.inv(np.polynomial.legendre.legvander(x, n_nodes - 1))
    row, panel, start, end = [], [], [], []
    for i, sigma in enumerate(all_nodes):
        for p in range(np.searchsorted(edges, sigma)):
            left, right = edges[p], min(edges[p + 1], sigma)
            # The weight also bends at sigma minus its breaks.
            cuts = np.unique(np.clip(np.concatenate([[left, right], sigma - bends]), left, right))
            row += [i] * (cuts.size - 1)
            panel += [p] * (cuts.size - 1)
            start += cuts[:-1].tolist()
            end += cuts[1:].tolist()
    a, b = np.array(start)[:, None], np.array(end)[:, None]
    left, right = edges[panel][:, None], edges[np.array(panel) + 1][:, None]
    tau = a + (b - a) * (x + 1) / 2
    values = gauss * (b - a) / 2 * kernel(np.broadcast_to(all_nodes[row][:, None], tau.shape), tau)
    basis = np.polynomial.legendre.legvander((2 * tau - left - right) / (right - left), n_nodes - 1) @ inverse
    table = np.zeros((all_nodes.size, edges.size - 1, n_nodes))
    np.add.at(table, (row, panel), np.einsum("qi,qij->qj", values, basis))
    matrix = table.reshape(all_nodes.size, -1)
    start = kernel(all_nodes, source)
    term, total = rate * depth * start, np.zeros_like(start)
    for m in range(2, 60):
        total, term = total + term, rate * depth / m * (matrix @ term[:-1])
    return total[-1]


@pytest.mark.parametrize("source", [0.01, 0.1, 0.52])
@pytest.mark.parametrize("name", ["spline", "power", "sharp power"])
def test_weights_with_bends_solve_the_volterra_hardy_equation(name, source):
    positions = WEIGHTS[name]
    for rate in (0.9, -1.5):
        found = iterated_kernels(positions, n_nodes=24)
        got = found.profiles(jnp.asarray([rate]), 1.2, jnp.asarray([source]))[0, 0]
        assert float(got) == pytest.approx(collocated(positions, rate, 1.2, source, 12), rel=1e-7)


def test_the_other_solvers_know_the_closed_form():
    exact = float(closed_form.volterra_hardy(*(jnp.asarray(v) for v in (0.9, 1.2, 1.0, 0.1)), positions=ALiBi(2.0)))
    assert volterra(ALiBi(2.0), 0.9, 1.2, 0.1, 6) == pytest.approx(exact, rel=1e-10)
    assert collocated(ALiBi(2.0), 0.9, 1.2, 0.1, 12) == pytest.approx(exact, rel=1e-11)


@pytest.mark.parametrize("positions", WEIGHTS.values(), ids=WEIGHTS.keys())
def test_more_nodes_change_nothing(positions):
    few, many = (iterated_kernels(positions, 0.002, n_nodes=n) for n in (24, 30))
    sources = jnp.linspace(0.002, 1, 60)
    np.testing.assert_allclose(
        few.correction(RATES, 1.0, 8, sources), many.correction(RATES, 1.0, 8, sources), rtol=1e-9
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["exponentials", "power", "spline"])
def test_particles_approach_it(name):
    """The distance to the limit falls as 1 / N: N = 64 and 256 extrapolate it away, with errors below 5 per cent.

    The control variate keeps the mean whatever the limit says (`test_control_variates_...`), so that a wrong limit
    is not hidden by it.
    """
    model = CausalAttention(ExpCosine(1.0), WEIGHTS[name])
    sources = [0.125, 0.25, 0.5, 0.75]
    few, many = (
        estimate_profile(
            model, 1.0, 8, n, n_prompts=n_prompts, key=jax.random.key(n), sources=sources, estimator="adjoint"
        )
        for n, n_prompts in ((64, 2048), (256, 1024))
    )
    assert few.control_variate
    value = (4 * many.values - few.values) / 3
    error = np.hypot(4 * many.standard_error, few.standard_error) / 3
    limit = np.asarray(retrieval_profile(model, 1.0, 8, sources).values)
    assert np.all(error < 0.05 * limit)
    assert np.all(np.abs(value - limit) < 4 * error)
    # Over all sources together an error of the limit as a whole would show at a few per cent.
    assert np.sum(((value - limit) / error) ** 2) < stats.chi2.ppf(0.9999, len(sources))


@pytest.mark.slow
def test_control_variates_from_iterated_kernels_keep_the_mean_and_sharpen_it():
    model = CausalAttention(ExpCosine(1.0), WEIGHTS["spline"])
    plain, sharp = (
        estimate_profile(
            model, 1.0, 8, 96, n_prompts=512, key=jax.random.key(0), estimator="adjoint", control_variate=on
        )
        for on in (False, True)
    )
    middle = (plain.sources > 0.1) & (plain.sources < 0.9)
    assert np.median((plain.standard_error / sharp.standard_error)[middle]) > 3
    gap = (plain.values - sharp.values)[middle] / np.hypot(plain.standard_error, sharp.standard_error)[middle]
    assert np.abs(gap).max() < 4.5


def test_derivatives_in_the_weights_against_differences():
    direction = jnp.asarray(np.random.default_rng(0).normal(size=LOG_VALUES.size))

    def profile(x):
        positions = SplineWeights(LOG_VALUES + x * direction)
        return iterated_kernels(positions).correction(RATES, 1.0, 8, SOURCES)

    h = 1e-4
    near, far = ((profile(k * h) - profile(-k * h)) / (2 * k * h) for k in (1, 2))
    differences = (4 * near - far) / 3
    np.testing.assert_allclose(jax.jacfwd(profile)(0.0), differences, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(jax.jacrev(profile)(0.0), differences, rtol=1e-8, atol=1e-10)


def test_derivative_in_the_source_and_in_beta():
    model = lambda beta: CausalAttention(ExpCosine(beta, n_modes=16), WEIGHTS["spline"])  # noqa: E731
    profile = lambda beta, s: retrieval_profile(model(beta), 1.0, 8, s[None]).values[0]  # noqa: E731
    beta, s, h = jnp.asarray(0.9), jnp.asarray(0.31), 1e-5
    slopes = jax.grad(profile, argnums=(0, 1))(beta, s)
    differences = [
        (profile(beta + h, s) - profile(beta - h, s)) / (2 * h),
        (profile(beta, s + h) - profile(beta, s - h)) / (2 * h),
    ]
    np.testing.assert_allclose(slopes, differences, rtol=1e-7)


def test_single_precision_stays_single():
    positions = WEIGHTS["spline"]
    single = jax.tree.map(lambda x: x.astype(jnp.float32), positions)
    got = iterated_kernels(single).correction(RATES.astype(jnp.float32), 1.0, 8, SOURCES.astype(jnp.float32))
    exact = iterated_kernels(positions).correction(RATES, 1.0, 8, SOURCES)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, exact, rtol=2e-5)


def test_a_series_cut_short_is_an_error():
    found = iterated_kernels(ALiBi(1.0), n_terms=6)
    with pytest.raises(RuntimeError, match="has not decayed after 6 terms: raise `n_terms`"):
        found.correction(RATES, 1.0, 8, SOURCES)


def test_unresolved_weights_are_an_error():
    found = iterated_kernels(SplineWeights(10 * np.sin(3 * np.arange(21.0))), n_nodes=6)
    with pytest.raises(RuntimeError, match=r"6 nodes a panel do not resolve the profile .* raise `n_nodes`"):
        found.correction(RATES, 1.0, 8, SOURCES)


def test_sources_out_of_range_are_an_error():
    found = iterated_kernels(ALiBi(1.0), 0.05)
    for source in (0.04, 1.1):
        with pytest.raises(RuntimeError, match=r"outside \[0.05, 1\]: lower `smallest_source`"):
            found.at(jnp.asarray(source))
        with pytest.raises(RuntimeError, match=r"outside \[0.05, 1\]"):
            eqx.filter_jit(found.correction)(RATES, 1.0, 8, jnp.asarray([source]))


@pytest.mark.usefixtures("as_installed")
@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((1.0,), {}, "`positions` must be PositionalWeights, such as ALiBi, but is float"),
        ((ALiBi(1.0), 0.0), {}, r"`smallest_source` must lie in \(0, 1\), but is 0"),
        ((ALiBi(1.0),), {"n_terms": 0}, "`n_terms` must be at least 1"),
        ((ALiBi(1.0),), {"n_nodes": 3}, "`n_nodes` must be at least 4"),
    ],
)
def test_bad_input(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        iterated_kernels(*arguments, **options)
