import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize, stats

from jaxkinetic import (
    ALiBi,
    ExpCosine,
    Posterior,
    Priors,
    RetrievalCurve,
    curve_posterior,
    fit_curves,
    load_curves,
    plan_experiment,
    theories,
)
from jaxkinetic.inference.posterior.grid_likelihood import log_likelihood
from jaxkinetic.limit import closed_form
from tests.inference import oracle

pytestmark = pytest.mark.optimized

BETA, LAM, VOCAB = 2.0, 6.0, 3
A = theories.Parameter("a", 0.0, 1.0)
PRIORS = Priors(contrast_spread=0.3)
GRID = (48, 48)


def planted(n_positions=16, n_questions=5000, seed=0, beta=BETA, lam=LAM, contrast=0.6):
    sources = (np.arange(n_positions) + 0.5) / n_positions
    values = oracle.shape(sources, beta, lam, 1.0, VOCAB)
    accuracy = 0.2 + contrast * (values - values.min()) / np.ptp(values)
    counts = np.random.default_rng(seed).binomial(n_questions, accuracy)
    return RetrievalCurve(sources, counts / n_questions, n_questions)


def theory(beta_range=(0.3, 8.0), lam_range=(-5.0, 50.0), time=1.0, vocab_size=VOCAB):
    return theories.paper(time, vocab_size, beta_range=beta_range, lam_range=lam_range)


@functools.cache
def wide() -> Posterior:
    return curve_posterior(planted(10, 400), theory=theory(), priors=PRIORS, grid=GRID)


@functools.cache
def pooled() -> Posterior:
    """Of two curves, the second of about half the accuracy."""
    other = planted(7, 300, seed=4)
    lower = RetrievalCurve(other.sources, 0.05 + 0.4 * other.accuracy, 300)
    return curve_posterior([planted(10, 400), lower], theory=theory(), priors=PRIORS, grid=GRID)


@functools.cache
def weighed() -> Posterior:
    """Of two depths and two vocabularies."""
    weighed = [theory(time=t, vocab_size=m) for t in (0.5, 1.0) for m in (3, 6)]
    return curve_posterior(planted(10, 400), theory=weighed, priors=PRIORS, grid=(96, 96))


@pytest.mark.parametrize("of", [wide, pooled])
def test_every_cell_is_prior_times_likelihood_over_evidence(of):
    posterior = of()
    assert posterior.mass.shape == (1, *GRID)
    assert posterior.mass.sum() == pytest.approx(1.0, abs=1e-12)
    u, share = posterior.marginal("beta")
    assert share.sum() == pytest.approx(1.0, abs=1e-12)
    # Cells are equal in arcsinh(lam / s), the prior is flat in arcsinh(lam).
    s = np.minimum(posterior.first, 4)[:, None] / 4
    q = np.arcsinh(posterior.second / s)
    half = (q[:, 1:2] - q[:, :1]) / 2
    widths = np.arcsinh(s * np.sinh(q + half)) - np.arcsinh(s * np.sinh(q - half))
    areas = np.diff(np.log(u))[:, None] * widths / (np.log(8 / 0.3) * (np.arcsinh(50) + np.arcsinh(5)))
    for cell in np.argsort(posterior.mass, axis=None)[::-1][[0, 5, 60, 300]]:
        *_, i, j = np.unravel_index(cell, posterior.mass.shape)
        got = np.log(posterior.mass.ravel()[cell]) + posterior.log_evidence - np.log(areas[i, j])
        assert np.log(posterior.density[i, j]) + posterior.log_evidence == pytest.approx(got, abs=1e-9)
        assert got == pytest.approx(
            sum(by_brute_force(c, posterior.first[i], posterior.second[i, j]) for c in posterior.curves), abs=1e-6
        )


def by_brute_force(curve, beta, lam):
    """Integrated over the offset as one normal, over k >= 0 on a fine grid."""
    s = oracle.shape(curve.sources, beta, lam, 1.0, VOCAB)
    s = (s - s.mean()) / s.std()
    normal = stats.multivariate_normal(np.full(s.size, 0.5), np.diag(curve.standard_error**2) + 0.5**2)  # pyright: ignore[reportArgumentType]
    k = np.linspace(0, 1.2, 24001)
    log_density = normal.logpdf(curve.accuracy - k[:, None] * s) + stats.halfnorm.logpdf(k, scale=0.3)
    return np.log(np.trapezoid(np.exp(log_density - log_density.max()), k)) + log_density.max()


def test_a_grid_of_few_cells_adapts_to_a_narrow_posterior():
    coarse, fine = (curve_posterior(planted(), theory=theory(), priors=PRIORS, grid=(n, n)) for n in (96, 192))
    assert coarse.log_evidence == pytest.approx(fine.log_evidence, abs=0.03)
    for name in ("beta", "lam"):
        assert coarse.identifiable[name]
        few, many = coarse.intervals[name], fine.intervals[name]
        assert few.high - few.low == pytest.approx(many.high - many.low, rel=0.05)
        assert abs(few.low - many.low) < 0.1 * (many.high - many.low)
        edges, share = fine.marginal(name)
        assert share[(edges[1:] > few.low) & (edges[:-1] < few.high)].sum() == pytest.approx(0.9, abs=0.03)
    # An even grid of the same size over the whole prior would lay one row and a half across it.
    beta = coarse.intervals["beta"]
    assert np.log(beta.high / beta.low) < 1.5 * np.log(8 / 0.3) / 96
    assert ((coarse.first > beta.low) & (coarse.first < beta.high)).sum() > 10


@pytest.mark.parametrize("n", [32, 64])
def test_intervals_on_few_cells_are_those_of_a_bell(n):
    """The tails have wide cells: an interval that took from them more than they hold was 14 per cent too wide."""
    narrow = theory((1.0, 4.0), (2.0, 15.0))
    for seed in range(3):
        posterior = curve_posterior(planted(10, 20_000, seed), theory=narrow, priors=PRIORS, grid=(n, n))
        for name in ("beta", "lam"):
            edges, share = posterior.marginal(name)
            ends, flat = posterior.intervals[name], np.log if name == "beta" else np.arcsinh
            centres = (flat(edges[1:]) + flat(edges[:-1])) / 2
            spread = np.sqrt(share @ centres**2 - (share @ centres) ** 2)
            bell = 2 * stats.norm.ppf(0.95) * spread
            assert flat(ends.high) - flat(ends.low) == pytest.approx(bell, rel=0.03)


def test_depths_and_vocabularies_are_weighed_by_their_evidence():
    both, options = weighed(), {"priors": PRIORS, "grid": (96, 96)}
    curve = both.curves[0]
    alone = np.array([curve_posterior(curve, theory=each, **options).log_evidence for each in both.theories])
    np.testing.assert_allclose(both.probabilities, np.exp(alone - both.log_evidence) / 4, rtol=5e-3)


def test_regions_hold_what_they_promise():
    posterior = wide()
    joint = posterior.mass.sum(0)
    for level in (0.5, 0.9):
        inside = posterior.region(level)
        assert level <= joint[inside].sum() < level + joint.max()
        assert posterior.density[inside].min() >= posterior.density[~inside].max()
    with pytest.raises(ValueError, match="Argument `name` must be one of"):
        posterior.marginal("gamma")


def test_published_curves_leave_beta_open():
    posterior = curve_posterior(load_curves(model="MPT-30B-Instruct"), grid=(64, 64))
    assert posterior.intervals["beta"].low_open
    assert str(posterior.intervals["beta"]).startswith("[<0.01, ")
    assert not posterior.identifiable["beta"]
    assert not posterior.intervals["beta"].closed


@pytest.mark.parametrize("seed", [0, 4])
def test_a_peak_too_narrow_for_a_first_look_beside_a_wide_mode_is_found(seed):
    """Mass on either side of beta = 1 against two fine sums, one round each mode: a grid once lost the higher."""
    at = (np.arange(30) + 0.5) / 30
    accuracy = plan_experiment(
        at, 10_000, {"beta": 2.0, "lam": 6.0}, c0=0.2, c1=0.06, theory=theories.paper(vocab_size=VOCAB)
    ).accuracy
    counts = np.random.default_rng(seed).binomial(10_000, accuracy)
    posterior = curve_posterior(
        RetrievalCurve(at, counts / 10_000, 10_000), theory=theories.paper(vocab_size=VOCAB)
    )
    sums = []
    for betas, lams in (((0.02, 1.0), (0.02, 3.0)), ((1.8, 2.2), (4.0, 9.0))):
        u, v = np.log(np.geomspace(*betas, 400)), np.linspace(np.arcsinh(lams[0]), np.arcsinh(lams[1]), 400)
        found = log_likelihood(np.exp(u), np.tile(np.sinh(v), (400, 1)), posterior._data[0], posterior.priors)
        sums.append(np.exp(found - posterior.log_evidence).sum() * (u[1] - u[0]) * (v[1] - v[0]))
    area = np.log(10 / 0.01) * (np.arcsinh(20) + np.arcsinh(100))
    assert sum(sums) / area == pytest.approx(1, abs=0.02)
    share = posterior.mass.sum((0, 2))[posterior.first > 1].sum()
    assert share == pytest.approx(sums[1] / sum(sums), abs=1e-5)
    assert share > 0.999


@pytest.mark.parametrize("model", ["Claude-1.3", "GPT-3.5-Turbo", "Llama-2-70b-chat-hf"])
def test_an_end_that_only_the_prior_sets_is_open(model):
    """Down the ridge the likelihood stays, and it is the prior's volume that falls and closes the interval."""
    posterior = curve_posterior(load_curves(model=model))
    assert posterior.intervals["beta"].low > 0.015
    # At the left end of the range of beta, the best lam is as good as the best of all but for a factor e^1.
    search = np.concatenate([-np.geomspace(1e-4, 20, 400), np.geomspace(1e-4, 100, 400)])
    found = [
        log_likelihood(np.array([b]), search[None], posterior._data[0], posterior.priors).max()
        for b in (0.0101, *np.geomspace(0.011, 9.9, 60))
    ]
    assert (found[0] > max(found) - 1.645**2 / 2) == posterior.intervals["beta"].low_open
    assert posterior.identifiable["beta"] == posterior.intervals["beta"].closed
    assert not posterior.identifiable["beta"]


def test_a_ridge_that_leaves_the_range_between_cells_leaves_the_interval_open():
    """Llama-2 70B: a ridge no wider than a cell runs up to lam = 100, where chi-squared is still within reach."""
    curves = load_curves(model="Llama-2-70b-chat-hf")
    posterior, fit = curve_posterior(curves), fit_curves(curves, level=0.9)
    assert fit.intervals["beta"].high_open
    for name in ("beta", "lam"):
        assert posterior.intervals[name].high_open == fit.intervals[name].high_open
        assert posterior.intervals[name].low_open == fit.intervals[name].low_open
        assert not posterior.identifiable[name]
        assert posterior.describe(name).startswith("unidentified, [")
    # Rows beyond the end of the ridge have cells too.
    assert np.all(posterior.density >= 0)
    assert np.all(np.diff(posterior._edges) > 0)


@pytest.mark.parametrize("model", ["MPT-30B-Instruct", "GPT-3.5-Turbo (16K)"])
def test_goodness_of_fit_is_that_of_least_squares(model):
    curves = load_curves(model=model)
    posterior, fit = curve_posterior(curves), fit_curves(curves)
    assert posterior.chi2 == pytest.approx(fit.chi2, abs=2e-3)
    assert posterior.dof == fit.dof
    assert posterior.p_value == pytest.approx(fit.p_value, rel=5e-3)


@pytest.mark.parametrize("model", ["Claude-1.3", "GPT-3.5-Turbo (16K)", "LongChat-13B (16K)"])
def test_the_ridge_at_small_beta_is_resolved(model):
    """Density of beta against a sum over so many lam that the narrowest ridge, lam ~ beta, is smooth."""
    posterior = curve_posterior(load_curves(model=model))
    edges, share = posterior.marginal("beta")
    for i in [0, *np.searchsorted(posterior.first, [0.03, 0.3])]:
        beta = posterior.first[i]
        low, high = np.arcsinh(200 / beta * np.array([-20, 100]))
        lam = beta / 200 * np.sinh(np.linspace(low, high, 20_001))
        v = np.arcsinh(lam)
        middle = np.sinh((v[1:] + v[:-1]) / 2)
        found = log_likelihood(np.array([beta]), middle[None], posterior._data[0], posterior.priors)[0]
        row = np.sum(np.exp(found - posterior.log_evidence) * np.diff(v)) / (v[-1] - v[0])
        # The prior of log(beta) is flat, so that a row's density over the prior's is its likelihood over evidence.
        density = share[i] / np.diff(np.log(edges))[i] * np.log(10 / 0.01)
        assert density == pytest.approx(row, rel=2e-3)


def test_evidence_tells_u_from_constant():
    sources = (np.arange(10) + 0.5) / 10
    rng = np.random.default_rng(3)
    flat = RetrievalCurve(sources, rng.binomial(400, 0.5, 10) / 400, 400)
    options = {"theory": theory(), "priors": PRIORS, "grid": GRID}
    level = curve_posterior(flat, **options)
    assert level.log_evidence_of["constant"] > level.log_evidence > level.log_evidence_of["free-form"]
    steep = curve_posterior(planted(16, 5000), **options)
    assert steep.log_evidence > max(steep.log_evidence_of.values()) + 3


def predicts_what_is_left(posterior, curve, at):
    """Quantiles of an accuracy, over cells: a normal offset, and a contrast far from its cut."""
    found = posterior.predict(curve, at)
    w, n = curve.standard_error**-2, curve.sources.size
    cells = np.flatnonzero(posterior.mass.ravel() > 1e-5)
    mean, spread = np.empty((2, cells.size, len(at)))
    for k, cell in enumerate(cells):
        t, i, j = np.unravel_index(cell, posterior.mass.shape)
        both, of = np.append(curve.sources, at), posterior.theories[t]
        s = oracle.shape(both, posterior.first[i], posterior.second[i, j], float(of.time), of.vocab_size)
        basis = np.stack([np.ones(both.size), (s - s[:n].mean()) / s[:n].std()], axis=1)
        own, wanted = basis[:n], basis[n:]
        covariance = np.linalg.inv(own.T @ (w[:, None] * own) + np.diag([0.5**-2, 0.3**-2]))
        mean[k] = wanted @ covariance @ (own.T @ (w * curve.accuracy) + np.array([0.5 * 0.5**-2, 0]))
        spread[k] = np.sqrt(np.einsum("pi,ij,pj->p", wanted, covariance, wanted))
    share = posterior.mass.ravel()[cells] / posterior.mass.ravel()[cells].sum()
    for p in range(len(at)):
        ends = mean[:, p].min() - 9 * spread[:, p].max(), mean[:, p].max() + 9 * spread[:, p].max()
        exact = []
        for q in (0.05, 0.5, 0.95):

            def beyond(x, p=p, q=q):
                return share @ stats.norm.cdf((x - mean[:, p]) / spread[:, p]) - q

            exact.append(float(optimize.root_scalar(beyond, bracket=ends).root))
        # Of 2000 draws.
        np.testing.assert_allclose([x[p] for x in found], exact, atol=0.06 * (exact[2] - exact[0]))


def test_bands_are_those_of_the_posterior():
    posterior = wide()
    curve = posterior.curves[0]
    low, _, high = posterior.predict(curve)
    predicts_what_is_left(posterior, curve, curve.sources)
    new_low, _, new_high = posterior.predict(curve, [0.5], n_questions=100)
    assert new_high - new_low > 2 * 1.64 * np.sqrt(0.25 / 100) * 0.8
    for drawn, again in zip((low, high), posterior.predict(curve)[::2], strict=True):
        np.testing.assert_array_equal(drawn, again)


def test_each_of_two_curves_is_predicted_by_its_own_line():
    at = np.array([0.04, 0.5, 0.95])
    for curve in pooled().curves:
        predicts_what_is_left(pooled(), curve, at)
    medians = [pooled().predict(curve, at)[1] for curve in pooled().curves]
    assert np.all(np.abs(np.subtract(*medians)) > 0.05)


def test_predictions_over_depths_and_vocabularies_draw_each_cell_from_its_own():
    """Two depths and two vocabularies that all have a share: a line fitted to another shape is far off."""
    assert weighed().probabilities.min() > 0.01
    predicts_what_is_left(weighed(), weighed().curves[0], np.array([0.01, 0.02, 0.5, 1.0]))


@pytest.mark.slow
def test_marginals_against_a_random_walk():
    # A prior that leaves out the second mode at small beta: a walk would take for ever to cross.
    posterior = curve_posterior(planted(10, 2000), theory=theory((1.2, 8.0)), priors=PRIORS, grid=(120, 120))
    curve = posterior.curves[0]
    sources, accuracy, error = (jnp.asarray(x) for x in (curve.sources, curve.accuracy, curve.standard_error))
    n_modes = 28
    low = jnp.asarray([jnp.log(1.2), jnp.arcsinh(-5.0), -jnp.inf, 0.0])
    high = jnp.asarray([jnp.log(8.0), jnp.arcsinh(50.0), jnp.inf, jnp.inf])

    def log_density(x):
        """Joint density of (log beta, arcsinh lam, m, k): nothing is integrated out."""
        beta, lam, m, k = jnp.exp(x[0]), jnp.sinh(x[1]), x[2], x[3]
        rates = ExpCosine(beta, n_modes=n_modes).growth_rates()[:10]
        log_weights, one = closed_form.log_mode_weights(VOCAB, 10), jnp.asarray(1.0)
        s = jax.vmap(lambda at: closed_form.profile(rates, log_weights, one, at, ALiBi(lam), False))(sources)
        s = (s - s.mean()) / s.std()
        squares = ((accuracy - m - k * s) / error) ** 2
        inside = jnp.all((x > low) & (x < high))
        return jnp.where(inside, -(squares.sum() + ((m - 0.5) / 0.5) ** 2 + (k / 0.3) ** 2) / 2, -jnp.inf)

    density = jax.vmap(log_density)

    @functools.partial(jax.jit, static_argnums=3)
    def walk(key, start, root, n_steps):
        def step(state, key):
            x, value = state
            ahead, toss = jax.random.split(key)
            proposal = x + jax.random.normal(ahead, x.shape) @ root.T
            new = density(proposal)
            accept = jnp.log(jax.random.uniform(toss, value.shape)) < new - value
            x, value = jnp.where(accept[:, None], proposal, x), jnp.where(accept, new, value)
            return (x, value), x[:, :2]

        (end, _), path = jax.lax.scan(step, (start, density(start)), jax.random.split(key, n_steps))
        return end, path

    n_chains = 512
    centre = jnp.asarray([np.log(BETA), np.arcsinh(LAM), accuracy.mean(), accuracy.std()])
    scatter = 0.02 * jax.random.normal(jax.random.key(0), (n_chains, 4))
    end, _ = walk(jax.random.key(1), centre[None] + scatter, jnp.diag(jnp.asarray([0.03, 0.05, 0.005, 0.005])), 500)
    root = jnp.linalg.cholesky(jnp.cov(end.T)) * 2.4 / 2
    end, _ = walk(jax.random.key(2), end, root, 500)
    _, path = walk(jax.random.key(3), end, root, 1500)
    for name, axis, flat in (("beta", 0, np.log), ("lam", 1, np.arcsinh)):
        edges, mass = posterior.marginal(name)
        edges = flat(edges)
        cumulative = np.concatenate([[0], np.cumsum(mass)])
        # Fifteen bins over the bulk, the tails one bin each.
        low_end, high_end = np.interp([0.005, 0.995], cumulative, edges)
        bins = np.concatenate([[-np.inf], np.linspace(low_end, high_end, 16), [np.inf]])
        expected = np.diff(np.interp(bins, edges, cumulative))
        drawn = np.histogram(np.asarray(path[:, :, axis]).ravel(), bins)[0] / path[:, :, axis].size
        assert np.abs(drawn - expected).sum() / 2 < 0.02, name


@pytest.mark.slow
def test_intervals_cover_planted_values():
    inside = {"beta": 0, "lam": 0}
    narrow = theory((1.0, 4.0), (2.0, 15.0))
    for seed in range(400):
        curve = planted(10, 20_000, seed)
        posterior = curve_posterior(curve, theory=narrow, priors=PRIORS, level=0.9, grid=(32, 32))
        for name, value in (("beta", BETA), ("lam", LAM)):
            interval = posterior.intervals[name]
            assert interval.closed
            inside[name] += interval.low <= value <= interval.high
    for name, count in inside.items():
        assert 0.86 <= count / 400 <= 0.94, name


def test_shallow_curves_leave_the_interval_open():
    options = {"theory": theories.paper(vocab_size=VOCAB), "grid": GRID}
    n_open = 0
    for seed in range(10):
        posterior = curve_posterior(planted(5, 300, seed, beta=0.3, lam=0.3, contrast=0.05), **options)
        n_open += not posterior.identifiable["beta"]
        assert posterior.describe("beta").startswith("unidentified, [") == (not posterior.identifiable["beta"])
        assert posterior.identifiable["beta"] == posterior.intervals["beta"].closed
    assert n_open >= 9


@pytest.mark.parametrize(
    ("curves", "options", "message"),
    [
        ([], {}, "Argument `curves` must hold at least one curve"),
        (RetrievalCurve([0.5], [0.5], 10), {}, "curves of 2 positions at least"),
        (RetrievalCurve([0.2, 0.5], [0.5, 0.6]), {}, "must have n_questions, but curve has none"),
        (RetrievalCurve([0.2, 0.5], [0.5, 0.5], 10), {}, "must vary with position"),
        (planted(4), {"level": 1.0}, "Argument `level` must lie in"),
        (planted(4), {"grid": (200, 4)}, "Argument `grid` must be at least 16"),
        (planted(10, 400), {"priors": Priors(mean=0.9, mean_spread=0.01)}, "excludes the data: the mean accuracy"),
        (planted(10, 400), {"priors": Priors(contrast_spread=0.01)}, "excludes the data: curve varies by"),
        (
            planted(10, 5000),
            {"theory": theory((0.01, 0.02), (-20.0, -10.0))},
            r"`theory` excludes the data: with beta from 0.01 to 0.02 and lam from -20 to -10 chi-squared is",
        ),
        (
            planted(16, 50_000),
            {"theory": theory((5.0, 10.0))},
            "excludes the data: with beta from 5 to 10",
        ),
    ],
)
def test_bad_input(curves, options, message):
    options = {"theory": theories.paper(vocab_size=VOCAB), "grid": GRID} | options
    with pytest.raises(ValueError, match=message):
        curve_posterior(curves, **options)


@pytest.mark.slow
def test_priors_that_leave_out_little_and_curves_that_reject_the_model_pass():
    narrow = curve_posterior(planted(16, 5000), theory=theory((1.9, 2.1), (5.0, 7.0)), grid=GRID)
    assert narrow.p_value > 1e-3
    # The planted values are out of the range, and the data can hardly tell.
    beside = curve_posterior(planted(10, 400), theory=theory((0.01, 1.0), (-20.0, 100.0)), grid=GRID)
    assert beside.p_value > 1e-3
    rejected = load_curves(model="GPT-3.5-Turbo (16K)")
    for ranges in (((0.05, 5.0), (-5.0, 20.0)), ((0.05, 1.0), (0.0, 2.0))):
        assert curve_posterior(rejected, theory=theory(*ranges, vocab_size=8)).p_value < 1e-10


def test_a_grid_too_coarse_for_a_thin_ridge_says_so():
    curves = load_curves(model="GPT-3.5-Turbo (16K)")
    with pytest.raises(ValueError, match=r"Argument `grid` is too coarse for these curves: cells of \(48, 48\)"):
        curve_posterior(curves, grid=GRID)
    fine, finer = curve_posterior(curves, grid=(100, 100)), curve_posterior(curves, grid=(200, 200))
    assert fine.log_evidence == pytest.approx(finer.log_evidence, abs=1e-3)


@pytest.mark.usefixtures("as_installed")
def test_bad_types():
    with pytest.raises(ValueError, match="must hold RetrievalCurve, but holds float"):
        curve_posterior([1.0])  # pyright: ignore[reportArgumentType]
    bad: list[tuple[dict[str, Any], str]] = [
        ({"theory": []}, "`theory` must hold one theory or several, but holds none"),
        ({"theory": [1.0]}, "`theory` must be a Theory, but is float"),
        ({"theory": theories.of_function(lambda s, a: a * s, [A])}, r"`theory` must have two parameters .* has 1"),
        ({"theory": [theory(), theory((0.2, 8.0))]}, "`theory` must hold theories of the same parameters"),
        ({"grid": 16}, "`grid` must be two numbers, of rows and of columns, but is 16"),
        ({"priors": {}}, "`priors` must be a Priors, but is dict"),
    ]
    for options, message in bad:
        with pytest.raises(ValueError, match=f"Argument {message}"):
            curve_posterior(planted(4), **options)
    with pytest.raises(ValueError, match="Argument `curves` must be a RetrievalCurve or several, but is 3"):
        curve_posterior(3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="Argument `name` must be one of beta, lam, but is 'x'"):
        wide().describe("x")
    with pytest.raises(ValueError, match=r"Argument `sources` must lie in \(0, 1\], but is \[\]"):
        wide().predict(wide().curves[0], [])


def test_other_curves_cannot_be_predicted():
    with pytest.raises(ValueError, match="must be one of the posterior's curves"):
        wide().predict(planted())
    with pytest.raises(ValueError, match="Argument `sources` must lie in"):
        wide().predict(wide().curves[0], [0.0])


@pytest.mark.parametrize("level", [0.0, 1.0, 2.0, -0.5, np.nan])
def test_a_level_is_a_probability(level):
    with pytest.raises(ValueError, match=r"Argument `level` must lie in \(0, 1\), but is"):
        wide().predict(wide().curves[0], level=level)
    with pytest.raises(ValueError, match=r"Argument `level` must lie in \(0, 1\), but is"):
        wide().region(level)


def test_a_measurement_has_questions():
    with pytest.raises(ValueError, match="Argument `n_questions` must be at least 1, but is 0"):
        wide().predict(wide().curves[0], n_questions=0)


def test_a_posterior_of_any_theory_is_that_of_a_sum_over_a_dense_grid():
    """A valley between two exponentials: parameters on a linear and on a logarithmic scale."""
    tilt, rate = theories.Parameter("tilt", -3.0, 3.0), theories.Parameter("rate", 0.5, 40.0, scale="log")

    def valley(sigma, tilt, rate, exp=jnp.exp):
        return exp(-rate * sigma) + tilt * exp(-rate * (1 - sigma))

    sources = (np.arange(9) + 0.5) / 9
    truth = 0.5 + 0.3 * valley(sources, 0.6, 6.0, np.exp)
    curve = RetrievalCurve(sources, np.random.default_rng(2).binomial(400, truth) / 400, 400)
    found = curve_posterior(curve, theory=theories.of_function(valley, [tilt, rate]), priors=PRIORS, grid=(96, 96))
    a = np.linspace(-3, 3, 801)
    r = np.geomspace(0.5, 40, 801)
    s = valley(sources, a[:, None, None], r[:, None], np.exp)
    s = (s - s.mean(axis=2, keepdims=True)) / s.std(axis=2, keepdims=True)
    # Accuracies are normal for a given contrast; contrasts are summed as well.
    k = np.linspace(0, 1.2, 121)
    covariance = np.diag(curve.standard_error**2) + 0.5**2
    root = np.linalg.cholesky(np.linalg.inv(covariance))
    y, t = (curve.accuracy - 0.5) @ root, s @ root
    squares = (y**2).sum() - 2 * k[:, None, None] * (t @ y) + k[:, None, None] ** 2 * (t**2).sum(axis=2)
    log_p = -squares / 2 + stats.halfnorm.logpdf(k, scale=0.3)[:, None, None]
    constant = -np.linalg.slogdet(2 * np.pi * covariance)[1] / 2
    cells = np.trapezoid(np.exp(log_p + constant), k, axis=0)
    by_tilt, by_rate = np.trapezoid(cells, np.log(r), axis=1), np.trapezoid(cells, a, axis=0)
    total = np.trapezoid(by_tilt, a)
    assert found.log_evidence == pytest.approx(np.log(total / 6 / np.log(80)), abs=5e-3)
    for name, at, density in (("tilt", a, by_tilt), ("rate", np.log(r), by_rate)):
        edges, share = found.marginal(name)
        edges = np.log(edges) if name == "rate" else edges
        cumulative = np.cumsum((density[1:] + density[:-1]) / 2 * np.diff(at)) / total
        exact = np.interp(edges, at[1:], cumulative)
        np.testing.assert_allclose(np.concatenate([[0], np.cumsum(share)]), exact, atol=0.01)
    assert found.identifiable == {name: i.closed for name, i in found.intervals.items()}
    low, median, high = found.predict(curve)
    assert np.all((low < median) & (median < high))
