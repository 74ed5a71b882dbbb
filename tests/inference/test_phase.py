import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import brentq

import jaxkinetic as jk
from jaxkinetic import ALiBi, CausalAttention, ExpCosine, phase_diagram, u_shape
from jaxkinetic.limit import closed_form
from jaxkinetic.shape import phase_edges
from tests.inference import oracle

MODES = 60
# beta, lam, t, M: profiles with two interior minima, found by scanning; they lie just below the recency boundary.
TWO_WELLS = [
    (28.79166402921577, 8.317753129320183, 3.4133240445300287e-12, 2.98230750279558),
    (26.432489958719586, 9.212817862944027, 4.635572709260151e-11, 2.5133905034326983),
    (27.99258949751257, 30.978145385535672, 1.1418153464184352e-11, 2.3167411655429753),
]
ONE_WELL = [(1.3, 2.0, 0.9, 2.0), (1.3, 2.0, 0.9, 3.7), (1.3, 2.0, 0.9, 20.25)]


def wells(beta, lam, time, vocab_size, n=40_000):
    """Interior minima of the profile on a fine grid of sigma_0, from scipy's Bessel functions."""
    y = np.linspace(0, lam + 25, n)
    sources = np.log1p(np.expm1(lam) * np.exp(-y)) / lam
    values = oracle.shape(sources, beta, lam, time, vocab_size)
    low = (values[1:-1] < values[:-2]) & (values[1:-1] <= values[2:])
    return sources[1:-1][low], values[1:-1][low], values[0]


@functools.cache
def scattered():
    rng, n = np.random.default_rng(5), 64
    beta, lam = np.exp(rng.uniform(np.log(0.05), np.log(6), n)), np.exp(rng.uniform(-4, 3, n))
    edge, _ = phase_edges(beta, lam)
    # Half of them round the boundary, where wells are born.
    time = edge * np.exp(np.where(np.arange(n) % 2, rng.uniform(-3, 1, n), rng.uniform(-0.1, 0.1, n)))
    return beta, lam, time, phase_diagram(beta, lam, time, 8)


def test_recency_boundary_is_where_the_profiles_own_slope_vanishes():
    @jax.jit
    @functools.partial(jax.grad, argnums=4)
    def slope(beta, lam, time, vocab_size, source):
        rates = ExpCosine(beta, n_modes=MODES).growth_rates()
        log_weights = closed_form.log_mode_weights(vocab_size, MODES)
        return closed_form.profile(rates, log_weights, time, source, ALiBi(lam), signed=False)

    beta, lam, vocab_size = np.array([[0.1, 1.0, 3.0, 9.0], [0.2, 1.0, 3.0, 12.0], [8.0, 2.0, 11.5, 8.0]])
    edge, _ = phase_edges(beta, lam, vocab_size)
    for b, v, m, predicted in zip(beta, lam, vocab_size, edge, strict=True):
        found = brentq(
            lambda t, *p: float(slope(*p[:2], t, p[2], 1.0)) / t,
            predicted / 7, 5 * predicted, args=(b, v, m), xtol=1e-300, rtol=np.float64(1e-13),
        )  # fmt: skip
        assert predicted == pytest.approx(found, rel=1e-8)
    shifted = (1 + np.array([[-1e-9], [1e-9]])) * edge
    both = phase_diagram(beta, lam, shifted, vocab_size)
    np.testing.assert_allclose(both.recency_time[0], edge, rtol=1e-14)
    below, above = (jax.tree.map(lambda x, i=i: x[i], both) for i in (0, 1))
    assert jnp.all(below.has_recency)
    assert jnp.all(below.is_u_shaped)
    assert not jnp.any(above.has_recency)
    assert not jnp.any(above.is_u_shaped)


@pytest.mark.slow
def test_every_shape_against_the_scan_in_two_thousand_nodes():
    beta, lam, time, phases = scattered()

    @jax.jit
    def one_by_one(*points):
        def one(p):
            return u_shape(CausalAttention(ExpCosine(p[0], n_modes=28), ALiBi(p[1])), p[2], 8)

        return jax.lax.map(one, points, batch_size=32)

    u = one_by_one(beta, lam, time)
    for name in ("n_minima", "has_recency", "is_u_shaped", "theorem_holds"):
        np.testing.assert_array_equal(getattr(phases, name), getattr(u, name), err_msg=name)
    assert {0, 1} == set(np.asarray(phases.n_minima).tolist())
    # Minima without recency are no U.
    assert int(((phases.n_minima > 0) & ~phases.has_recency).sum()) >= 3
    np.testing.assert_allclose(phases.argmin, u.argmin, rtol=1e-12)
    np.testing.assert_allclose(phases.drop, u.drop, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(phases.recency_time, u.recency_threshold, rtol=1e-13)
    np.testing.assert_allclose(phases.theorem_time * u.smallness, phases.time * u.smallness_bound, rtol=1e-13)


def test_wells_of_any_vocabulary_where_a_fine_grid_shows_them():
    points = np.array(TWO_WELLS + ONE_WELL)
    phases = phase_diagram(*points.T)
    assert phases.n_minima.tolist() == [2, 2, 2, 1, 1, 1]
    assert phases.is_u_shaped.tolist() == [False, False, False, True, True, True]
    assert jnp.all(phases.has_recency)
    for i, point in enumerate(points):
        where, value, end = wells(*point)
        assert len(where) == int(phases.n_minima[i])
        lowest = np.argmin(value)
        assert float(phases.argmin[i]) == pytest.approx(where[lowest], rel=3e-3)
        assert float(phases.relative_drop[i]) == pytest.approx(1 - value[lowest] / end, rel=1e-5)


def test_recency_outlives_the_theorem_by_the_ratio_of_their_depths():
    """At lam = 1, M = 8, where the authors print 2.457489 and 0.174018: over (3 - sqrt 3) / sup n^2 I_n(beta)."""
    n = np.arange(1, 40)
    for beta, printed in ((1.0, 2.457489), (3.0, 0.174018)):
        theorem = min(3 - np.sqrt(3), 2 * (1 - np.exp(-1))) / (n**2 * oracle.special.iv(n, beta)).max()
        assert float(phase_diagram(beta, 1.0, 0.1, 8).outlives) == pytest.approx(printed / theorem, rel=1e-5)


def test_shapes_broadcast_and_batches_do_not_matter():
    beta, lam, time, phases = scattered()
    # Six rows of 256 points, the last one padded.
    grid = phase_diagram(beta[:20, None], lam[:20, None], time[None, :], 8)
    assert grid.argmin.shape == grid.vocab_size.shape == (20, 64)
    diagonal = np.arange(20)
    np.testing.assert_allclose(grid.drop[diagonal, diagonal], phases.drop[:20], rtol=1e-12, atol=1e-14)


def test_no_u_without_bias_or_depth():
    phases = phase_diagram(1.0, [0.0, -1.0, 5.0], [1.0, 1.0, 0.0])
    assert not jnp.any(phases.is_u_shaped | phases.theorem_holds | phases.has_recency)
    assert phases.n_minima.tolist() == [0, 0, 0]
    assert phases.argmin.tolist() == [1, 1, 1]
    assert phases.drop.tolist() == [0, 0, 0]


@pytest.mark.slow
def test_theorem_lies_inside_the_u_at_a_million_points():
    rng, n = np.random.default_rng(0), 10**6
    beta, lam = np.exp(rng.uniform(np.log(0.05), np.log(6), n)), np.exp(rng.uniform(-3, 2.5, n))
    vocab_size = rng.uniform(2, 24, n)
    bound = np.minimum(3 - np.sqrt(3), -2 * np.expm1(-lam))
    rates = jax.jit(jax.vmap(lambda b: ExpCosine(b, n_modes=28).growth_rates().max()))(beta)
    # Depths from well inside the theorem's region to past the recency boundary, many of them close to its edge.
    share = np.exp(np.where(rng.random(n) < 0.5, rng.uniform(-3, 1.5, n), -np.abs(rng.normal(0, 0.01, n))))
    phases = phase_diagram(beta, lam, share * bound / np.asarray(rates), vocab_size)
    proved, u = np.asarray(phases.theorem_holds), np.asarray(phases.is_u_shaped)
    np.testing.assert_array_equal(proved, share <= 1)
    assert proved.sum() > 700_000
    assert np.all(u[proved])
    assert (u & ~proved).sum() > 30_000
    assert (~u).sum() > 50_000
    assert np.all(np.asarray(phases.drop)[u] > 0)
    # Below beta = 6 nothing but recency decides.
    np.testing.assert_array_equal(u, phases.has_recency)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 1.0, 1.0, 8), "Argument `beta` must be positive"),
        ((1.0, np.nan, 1.0, 8), "Argument `lam` must be finite"),
        ((1.0, 1.0, -1.0, 8), "Argument `time` must be non-negative"),
        ((1.0, 1.0, 1.0, 1.9), "Argument `vocab_size` must be at least 2, but is 1.9"),
        ((np.ones(2), np.ones(3), 1.0, 8), "must have shapes that broadcast"),
        (([], 1.0, 1.0, 8), "at least one point"),
        ((1.0, 1e6, 3e5, 8), "more than 1024 terms"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        phase_diagram(*arguments)


def two_waves(beta, lam):
    return jk.CausalAttention(jk.FourierKernel(beta * jnp.array([1.0, 0.25])), jk.ALiBi(2 * lam))


def test_another_model_as_the_scan_of_its_profile():
    """And the paper's own, by a function."""
    beta, lam, time = [0.5, 1.0, 2.0], [0.4, 1.5, -1.0], 0.8
    phases = phase_diagram(beta, lam, time, 6, model=two_waves)
    for i, (b, v) in enumerate(zip(beta, lam, strict=True)):
        found = u_shape(two_waves(b, v), time, 6)
        for name in ("n_minima", "has_recency", "is_u_shaped", "theorem_holds"):
            assert getattr(phases, name)[i] == getattr(found, name)
        np.testing.assert_allclose(phases.argmin[i], found.argmin, rtol=1e-10)
        np.testing.assert_allclose(phases.drop[i], found.drop, rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(phases.recency_time[i], found.recency_threshold, rtol=1e-12)
    edges = phase_edges(beta, lam, 6, model=two_waves)
    np.testing.assert_allclose(edges, [phases.recency_time, phases.theorem_time], rtol=1e-14)
    own = phase_diagram(beta, lam, time, model=jk.theories.paper().model)
    for one, other in zip(jax.tree.leaves(own), jax.tree.leaves(phase_diagram(beta, lam, time)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda beta, lam: jk.CausalAttention(jk.FourierKernel(beta * jnp.array([1.0, lam]))), "a_n = -4"),
        (lambda beta, lam: jk.CausalAttention(jk.ExpCosine(beta), jk.PowerLaw(lam, 1.0)), "must be ALiBi"),
        (lambda beta, lam: jk.CausalAttention(jk.ExpCosine(beta, n_modes=4), jk.ALiBi(lam)), "raise `n_modes`"),
        (lambda beta, lam: beta * lam, "must build a CausalAttention"),
    ],
)
@pytest.mark.parametrize(
    "function",
    [lambda **m: phase_diagram(1.0, [2.0, -1.0], 1.0, **m), lambda **m: phase_edges(1.0, [2.0, -1.0], **m)],
)
@pytest.mark.usefixtures("as_installed")
def test_models_without_phases_are_refused(model, function, message):
    with pytest.raises(ValueError, match=message):
        function(model=model)
