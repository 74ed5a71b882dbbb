"""The information expected of one more point, against direct summation and against Fisher information."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import jaxkinetic as jk
from jaxkinetic import NextMeasurement, Posterior, Priors, RetrievalCurve, curve_posterior, next_measurement
from jaxkinetic.inference.posterior.predictive import LineLaws, cut_normal
from tests.inference import oracle

pytestmark = pytest.mark.optimized

VOCAB = 3
PRIORS = Priors(contrast_spread=0.3)
THEORY = jk.theories.paper(vocab_size=VOCAB, beta_range=(0.3, 8.0), lam_range=(-5.0, 50.0))
AT = np.array([0.02, 0.2, 0.6, 0.98])


def planted(n_positions, n_questions, contrast, beta=2.0, lam=6.0, low=0.2):
    sources = (np.arange(n_positions) + 0.5) / n_positions
    values = oracle.shape(sources, beta, lam, 1.0, VOCAB)
    accuracy = low + contrast * (values - values.min()) / np.ptp(values)
    counts = np.random.default_rng(0).binomial(n_questions, accuracy)
    return RetrievalCurve(sources, counts / n_questions, n_questions)


@functools.cache
def vague():
    return curve_posterior(planted(6, 200, 0.3), theory=THEORY, priors=PRIORS, grid=(32, 32))


@functools.cache
def told() -> NextMeasurement:
    return next_measurement(vague(), n_questions=(200, 3000), sources=AT)


@functools.cache
def near(low, high):
    """A curve whose accuracies lie between two values, of which one may be close to 0 or 1."""
    return curve_posterior(planted(6, 200, high - low, low=low), theory=THEORY, priors=PRIORS, grid=(32, 32))


def by_summation(posterior, source, n_questions):
    """Mutual information of (cell, number of right answers) over cells, a fine grid of k, and one of accuracies.

    For each cell and k the offset is normal; accuracies beyond 0 and 1 are those ends, and answers are binomial.
    """
    curve, mass = posterior.curves[0], posterior.mass[0]
    weight = curve.standard_error**-2
    k = np.linspace(0, 1.2, 241)
    edges = np.sin(np.linspace(0, np.pi / 2, 1201)) ** 2
    cells = np.argwhere(mass > 1e-3 * mass.max())
    of_m = 1 / (weight.sum() + PRIORS.mean_spread**-2)
    given = []
    for i, j in cells:
        both = oracle.shape(
            np.append(curve.sources, source), posterior.first[i], posterior.second[i, j], 1.0, VOCAB
        )
        s = (both - both[:-1].mean()) / both[:-1].std()
        left = curve.accuracy - k[:, None] * s[:-1]
        m = of_m * (left @ weight + PRIORS.mean / PRIORS.mean_spread**2)
        misfit = (weight * (left - m[:, None]) ** 2).sum(axis=1) + ((m - PRIORS.mean) / PRIORS.mean_spread) ** 2
        log_p = -misfit / 2 + stats.halfnorm.logpdf(k, scale=PRIORS.contrast_spread)
        share = np.exp(log_p - log_p.max())
        share, mean = share[share > 1e-9] / share.sum(), (m + k * s[-1])[share > 1e-9]
        below = special.ndtr((edges - mean[:, None]) / np.sqrt(of_m))
        given.append(np.diff(share @ below, prepend=0, append=share.sum()))
    prior = np.array([mass[i, j] for i, j in cells])
    prior /= prior.sum()
    accuracy = np.concatenate([[0], (edges[1:] + edges[:-1]) / 2, [1]])
    outcomes = np.array(given).clip(0) @ stats.binom.pmf(np.arange(n_questions + 1), n_questions, accuracy[:, None])
    mixed = prior @ outcomes
    return float(prior @ special.xlogy(outcomes, outcomes).sum(axis=1) - special.xlogy(mixed, mixed).sum())


@pytest.mark.parametrize("source", range(AT.size))
def test_information_is_that_of_a_direct_sum(source):
    found = told()
    for q, n in enumerate(found.n_questions):
        expected = by_summation(vague(), AT[source], n)
        got, error = found.information[0, source, q], found.error[0, source, q]
        assert error < 0.02 + 0.05 * expected
        assert abs(got - expected) < 3 * error + 1e-3


@pytest.mark.parametrize(("low", "high", "source"), [(0.85, 0.999, 0.98), (0.6, 0.95, 0.98), (0.02, 0.12, 0.2)])
def test_information_close_to_all_right_or_all_wrong_is_that_of_binomial_answers(low, high, source):
    """A normal law of one width for all draws was off by 15 to 35 per cent here, at 200 questions."""
    found = next_measurement(near(low, high), n_questions=(200, 1000), sources=[source])
    expected = [by_summation(near(low, high), source, n) for n in (200, 1000)]
    np.testing.assert_allclose(found.information[0, 0], expected, rtol=0.06)


def test_error_is_the_distance_between_halves_of_the_draws(monkeypatch):
    """Draws of two accuracies a, b in the order a, a, a, b: halves that see only a, and both of them equally."""
    accuracies = np.tile([0.2, 0.2, 0.2, 0.4], 128)

    def line_laws(self, share, sources):
        del self
        assert share.size == accuracies.size
        lines = np.stack([accuracies, np.full(share.size, 10.0)], axis=1)[:, None]
        covariance = np.broadcast_to(np.diag([1e-12, 1e-12]), (share.size, 1, 2, 2))
        return LineLaws(lines, covariance, np.zeros((share.size, 1, sources.size)))

    monkeypatch.setattr(Posterior, "line_laws", line_laws)
    found = next_measurement(vague(), n_questions=30, sources=[0.5])
    a, b = stats.binom.pmf(np.arange(31)[:, None], 30, [0.2, 0.4]).T

    def information(share):
        mixed = (1 - share) * a + share * b
        each = [special.xlogy(p, p).sum() for p in (a, b, mixed)]
        return (1 - share) * each[0] + share * each[1] - each[2]

    whole, half = information(0.25), information(0.5)
    # Laws narrower than a cell of accuracies are as wide as half of it.
    assert found.information[0, 0, 0] == pytest.approx(whole, rel=0.03)
    assert found.error[0, 0, 0] == pytest.approx(max(half, abs(2 * whole - half)), rel=0.03)


@pytest.mark.slow
def test_information_of_a_well_known_curve_is_that_of_fisher():
    """Half the gain of the log determinant of Fisher's matrix, offset and contrast taken out."""
    curve = planted(16, 20_000, 0.6)
    posterior = curve_posterior(curve, theory=THEORY, priors=PRIORS)
    found = next_measurement(posterior, n_questions=80_000, sources=[0.1, 0.5, 0.99])
    fit = jk.fit_curves(curve, theory=jk.theories.paper(vocab_size=VOCAB))
    model = jk.CausalAttention(jk.ExpCosine(fit.beta), jk.ALiBi(fit.lam))
    values = np.asarray(jk.retrieval_profile(model, 1.0, VOCAB, curve.sources).values)
    c1, c0 = np.polyfit(values, curve.accuracy, 1, w=1 / curve.standard_error)

    def log_determinant(sources, n_questions):
        planned = jk.plan_experiment(sources, n_questions, fit.values, c0=c0, c1=c1, theory=fit.theory)
        f = planned.information
        return np.linalg.slogdet(f)[1] - np.linalg.slogdet(f[2:, 2:])[1]

    known = np.full(16, 20_000.0)
    for source, got in zip(found.sources, found.information[0, :, 0], strict=True):
        more = log_determinant(np.append(curve.sources, source), np.append(known, 80_000.0))
        assert got == pytest.approx((more - log_determinant(curve.sources, known)) / 2, rel=0.1, abs=0.01)


def test_as_many_questions_as_behind_the_points_and_four_times_as_many_are_asked():
    assert next_measurement(vague(), sources=[0.5]).n_questions.tolist() == [200, 800]


def test_more_questions_tell_more_and_the_best_place_is_said():
    found = told()
    assert np.all(found.information[..., 1] > found.information[..., 0])
    curve, source = found.best()
    assert curve is vague().curves[0]
    assert found.information[0, list(AT).index(source), 1] == found.information[..., 1].max()
    assert found.best(200)[1] == AT[np.argmax(found.information[0, :, 0])]
    first, row, _ = str(found).splitlines()
    assert first.split()[-3:] == ["region", "shrinks", "to"]
    assert f"{found.best(200)[1]:.3f}" in row
    assert f"{100 * np.exp(-found.information[..., 0].max()):.0f} %" in row


def test_a_curve_the_wrong_way_up_says_little_but_no_nonsense():
    """Contrasts are pressed against zero, seventy standard deviations away from where the data have them."""
    right = planted(12, 200, 0.0)
    curve = RetrievalCurve(right.sources, 0.3 + 0.4 * np.sin(np.pi * right.sources), 20_000)
    posterior = curve_posterior(curve, theory=THEORY, priors=PRIORS)
    for band in posterior.predict(curve):
        assert np.all((band > 0) & (band < 1))
    found = next_measurement(posterior, n_questions=1000, sources=AT)
    assert np.all(np.isfinite(found.information))
    assert found.information.max() < 0.1


@pytest.mark.parametrize("x", [-60.0, -31.0, -29.0, -3.0, 0.0, 5.0])
def test_cut_normal_against_scipy(x):
    share = np.array([0.01, 0.5, 0.99])
    expected = stats.truncnorm.isf(share, -x, np.inf, loc=x)
    np.testing.assert_allclose(
        cut_normal(jnp.full(3, x), jnp.asarray(share)), expected, rtol=6e-3 if x < -30 else 1e-9
    )


def test_a_curve_has_no_points_beyond_its_items():
    few, many = (
        RetrievalCurve(c.sources, c.accuracy, c.n_questions, n_items=n)
        for c, n in ((planted(5, 300, 0.3), 5), (planted(20, 300, 0.3), 20))
    )
    found = next_measurement(
        curve_posterior([few, many], theory=THEORY, priors=PRIORS, grid=(32, 32)), n_questions=300
    )
    assert (found.sources[0], found.sources[-1]) == (pytest.approx(0.025), pytest.approx(0.975))
    inside = (found.sources > 0.1 - 1e-6) & (found.sources < 0.9 + 1e-6)
    assert np.all(np.isnan(found.information[0, ~inside, 0]))
    assert np.all(np.isfinite(found.information[0, inside, 0]))
    assert np.all(np.isfinite(found.information[1]))


def test_where_no_curve_has_an_item_there_is_no_best_point():
    curve = planted(5, 300, 0.3)
    short = RetrievalCurve(curve.sources, curve.accuracy, curve.n_questions, n_items=5)
    found = next_measurement(
        curve_posterior(short, theory=THEORY, priors=PRIORS, grid=(32, 32)), n_questions=300, sources=[0.95]
    )
    assert np.all(np.isnan(found.information))
    assert "no position lies between its first and last item" in str(found)
    with pytest.raises(ValueError, match="Argument `sources` had no position between the first and the last item"):
        found.best()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_questions": 0}, "Argument `n_questions` must be at least 1"),
        ({"n_questions": [100, np.nan]}, "Argument `n_questions` must be at least 1"),
        ({"n_questions": 1e9}, "Argument `n_questions` is too large"),
        ({"n_questions": "12"}, "Argument `n_questions` must be a real number or several, but is '12'"),
        ({"sources": [0.0]}, "Argument `sources` must lie in"),
        ({"sources": []}, "Argument `sources` must lie in"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        next_measurement(vague(), **options)
    with pytest.raises(ValueError, match="Argument `n_questions` must be one of"):
        told().best(17)
