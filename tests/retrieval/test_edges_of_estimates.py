"""Estimates where something is missing: atoms without weight, densities that vanish, steps too long, no control."""

import copy
import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxkinetic as jk
from jaxkinetic.integrate import reason
from jaxkinetic.model import PromptLaw
from jaxkinetic.particles.ensemble import Moments
from jaxkinetic.retrieval import control
from jaxkinetic.retrieval.band import simultaneous_factor
from jaxkinetic.retrieval.estimators import ESTIMATORS, Adjoint
from jaxkinetic.retrieval.profile_ensemble import (
    ProfileEnsemble,
    choose_estimator,
    prepare_profile,
    source_tokens,
)
from jaxkinetic.retrieval.source_law import tabulate_source
from jaxkinetic.retrieval.steps import settle_ensemble
from jaxkinetic.retrieval.window import window
from tests.limit.laws import CODEWORDS, SMOOTH

MODEL = jk.CausalAttention(jk.ExpCosine(1.0), jk.ALiBi(1.0))
KEY = jax.random.key(3)
TOUCHING = jk.DensityPrompts([0.5])
VANISHING_AT_THE_START = jk.DensityPrompts(lambda s: jnp.array([0.5 - 0.4 * s]))


@pytest.mark.parametrize(
    "law", [jk.CodewordPrompts([0.5, 0.5, 0, 0]), jk.CodewordPrompts([0.5, 0.5 - 1e-15, 1e-15, 0])]
)
def test_codewords_that_never_occur_leave_the_control_as_sharp_and_without_bias(law):
    arguments = {"prompts": law, "sources": [0.3, 0.7], "n_steps": 4}
    with_control, without = (
        jk.estimate_profile(MODEL, 1.0, 4, 12, n_prompts=2048, key=KEY, control_variate=c, **arguments)
        for c in (True, False)
    )
    assert np.all(with_control.standard_error < without.standard_error / 3)
    error = np.hypot(with_control.standard_error, without.standard_error)
    assert np.all(np.abs(with_control.values - without.values) < 3.5 * error)


@pytest.mark.parametrize("width", [0.002, 0.3, 1.4, 1.6, 4.0])
def test_mean_of_the_hard_window_over_a_cluster_is_its_integral(width):
    law = jk.ClusterPrompts([0.5, 2.0], width)
    source = tabulate_source(law, jnp.array([0.3, 0.9]), 8, "hard")
    # On a grid that the edges of the window split evenly.
    z = (np.arange(400_000) + 0.5) / 20_000 - 10
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) / 20_000
    for x in (0.5, 0.9, 2.1, 3.6, 6.0):
        exact = [float(density @ np.asarray(window(jnp.asarray(x - c - width * z), 8, "hard"))) for c in (0.5, 2.0)]
        found = source.mean_window(jnp.asarray(x))
        np.testing.assert_allclose(found, exact, rtol=0, atol=2e-4)


def test_naive_hard_estimates_of_narrow_clusters_are_those_of_glauber():
    """Sources that nothing can tell from their cluster: S_N = 0, and each token hits or misses as a whole."""
    law = jk.ClusterPrompts([0.5, 2.0], 0.002)
    found = jk.estimate_profile(
        MODEL, 1.0, 8, 8, n_prompts=4096, key=KEY, prompts=law, estimator="naive", accuracy="hard", n_steps=4
    )
    assert np.all(np.abs(found.values) <= 4 * found.standard_error + 1e-9), found.values


def test_hard_densities_keep_all_their_modes_and_no_more():
    source = tabulate_source(SMOOTH, jnp.array([0.4]), 6, "hard")
    theta = 2 * np.pi * (np.arange(60_000) + 0.5) / 60_000
    weights = np.asarray(SMOOTH.density(jnp.asarray(0.4), jnp.asarray(theta))) / theta.size
    for x in (0.3, 2.0, 5.5):
        exact = weights @ np.asarray(window(jnp.asarray(x - theta), 6, "hard"))
        np.testing.assert_allclose(source.mean_window(jnp.asarray(x)), exact[None], rtol=0, atol=1e-3)


class TwoPoints(PromptLaw):
    """A law of another kind, whose modes do not decay."""

    def sample(self, key, n_tokens):
        return jax.random.bernoulli(key, 0.5, (n_tokens,)) * 1.0

    def fourier(self, sigma, n_modes):
        del sigma
        return (1 + jnp.exp(-1j * jnp.arange(1, n_modes + 1))) / 2


def test_laws_whose_mean_hard_window_is_not_known_are_refused():
    with pytest.raises(ValueError, match="`accuracy` must be 'soft' for TwoPoints"):
        tabulate_source(TwoPoints(), jnp.array([0.4]), 6, "hard")


# The estimator ---------------------------------------------------------------------------------------------


def test_auto_looks_at_the_density_without_a_profile_being_prepared():
    assert choose_estimator(SMOOTH, "auto", "soft").name == "adjoint"
    for law in (TOUCHING, VANISHING_AT_THE_START):
        assert choose_estimator(law, "auto", "soft").name == "glauber"
    with pytest.raises(ValueError, match="`estimator` must not be 'adjoint' for a density that falls to"):
        choose_estimator(VANISHING_AT_THE_START, "adjoint", "soft")
    # Asked for, it needs a density above zero at the sources only.
    assert choose_estimator(VANISHING_AT_THE_START, "adjoint", "soft", np.array([0.3, 0.8])).name == "adjoint"
    # 1 - 2 a cos(theta) falls to 1 - 2 a: a thousandth is the least to divide by.
    for lowest, chosen in ((0.9e-3, "glauber"), (1.1e-3, "adjoint")):
        assert choose_estimator(jk.DensityPrompts([(1 - lowest) / 2]), "auto", "soft").name == chosen


@pytest.mark.slow
def test_a_density_that_touches_zero_is_estimated_with_a_control_and_without_bias():
    found = [
        jk.estimate_profile(
            MODEL,
            1.0,
            4,
            12,
            n_prompts=2048,
            key=KEY,
            prompts=TOUCHING,
            control_variate=c,
            sources=[0.3, 0.7],
            n_steps=4,
        )
        for c in (None, False)
    ]
    assert [f.estimator for f in found] == ["glauber", "glauber"]
    assert found[0].control_variate
    assert np.all(found[0].standard_error < 0.8 * found[1].standard_error)
    error = np.hypot(found[0].standard_error, found[1].standard_error)
    assert np.all(np.abs(found[0].values - found[1].values) < 3.5 * error)


@pytest.mark.parametrize("limit", [1, "nan"])
def test_a_control_whose_limit_is_not_resolved_is_left_out_unless_asked_for(monkeypatch, limit):
    if limit == "nan":
        broken = lambda *arguments: control.UniformControl(jnp.full((2, 4), jnp.nan))  # noqa: ARG005, E731
        monkeypatch.setattr("jaxkinetic.retrieval.profile_ensemble.law_control", broken)
    else:
        monkeypatch.setattr(control, "_MOST_STEPS", limit)
    arguments = {"prompts": CODEWORDS, "estimator": "glauber", "sources": [0.3, 0.7]}
    with pytest.warns(UserWarning, match="No control variate: the limit for CodewordPrompts at t = 1 could not be"):
        ensemble = prepare_profile(MODEL, 1.0, 4, 8, **arguments)
    assert ensemble.problem.control is None
    with pytest.raises(RuntimeError, match="`control_variate` must be False here: the limit for CodewordPrompts"):
        prepare_profile(MODEL, 1.0, 4, 8, control_variate=True, **arguments)


# Steps -----------------------------------------------------------------------------------------------------


class Modelled(ProfileEnsemble):
    """An ensemble whose error of n steps is known: values 1 + noise + error(n) + rounding."""

    error: Any
    rounding: float
    control: Any
    tried: list[int]

    def __init__(self, error, rounding=0.0, control=None, estimator: Any = ESTIMATORS["adjoint"]):
        problem = prepare_profile(MODEL, 1.0, 4, 8).problem
        super().__init__(problem, estimator, 1.0, control is not None)
        for name, value in {"error": error, "rounding": rounding, "control": control, "tried": []}.items():
            object.__setattr__(self, name, value)

    def insist(self):
        return self

    def replace(self, problem):
        nudged = copy.copy(self)
        object.__setattr__(nudged, "problem", problem)
        return nudged

    def without_control(self):
        bare = copy.copy(self)
        object.__setattr__(bare, "control", None)
        object.__setattr__(bare, "may_drop_control", False)
        return bare

    def pilot(self, n_steps, key, first, memory, devices):
        del key, first, memory, devices
        self.tried.append(n_steps)
        noise = np.random.default_rng(0).normal(size=(32, 2))
        digits = np.random.default_rng(n_steps + round(1e20 * (float(self.problem.time) - 1)))
        values = 1 + noise + self.error(n_steps) + self.rounding * digits.normal(size=(32, 2))
        return values if self.control is None else values - self.control

    def pilot_control(self, key, first, memory, devices):
        del key, first, memory, devices
        return self.control


def settle(ensemble, n_prompts=1024, n_steps=None):
    return settle_ensemble(ensemble, KEY, n_prompts, n_steps, 0, 1e9, jax.devices())


def fifth_order(n):
    return 10.0 * n**-5.0


def test_steps_are_halved_until_their_error_is_far_below_the_noise():
    found = settle(Modelled(fifth_order))
    allowed = 0.02 / np.sqrt(1024)
    assert found.n_steps == 8
    assert found.step_error == pytest.approx(fifth_order(8) * (1 - 2**-5), rel=1e-6)
    assert fifth_order(4) > allowed > fifth_order(8)


def test_an_error_that_does_not_fall_yet_is_not_rounding():
    """Steps too long for the forces: up to 32 of them the values are anything."""
    found = settle(Modelled(lambda n: 3.0 * (-1) ** np.log2(n) if n < 64 else fifth_order(n)))
    assert found.n_steps == 64


def test_rounding_ends_the_search_and_is_said_where_it_is_large():
    quiet, loud = Modelled(fifth_order, 1e-3), Modelled(fifth_order, 3e-2)
    found = settle(quiet, 2**14)
    assert max(quiet.tried) <= 64
    assert found.step_error < 0.01
    with pytest.warns(
        UserWarning, match="standard errors: where tokens part so fast that derivatives explode, use"
    ):
        settle(loud, 2**14)


def test_the_most_steps_are_not_taken_in_silence():
    with pytest.warns(
        UserWarning, match=r"128 constant steps leave an error of .* standard errors: .* earlier `time`"
    ):
        found = settle(Modelled(lambda n: 1.6 / n))
    assert found.n_steps == 128
    with pytest.raises(RuntimeError, match="128 constant steps do not resolve the way to t = 1"):
        settle(Modelled(lambda n: 3.0 * (-1) ** np.log2(n)))
    with pytest.raises(RuntimeError, match="do not give finite values: where tokens part so fast"):
        settle(Modelled(lambda n: np.nan + n))


def test_given_steps_are_taken_and_their_error_is_said():
    with pytest.warns(UserWarning, match="2 constant steps leave an error of .*: raise `n_steps`, or leave it out"):
        found = settle(Modelled(fifth_order), n_steps=2)
    assert found.n_steps == 2
    assert settle(Modelled(fifth_order), n_steps=8).n_steps == 8


@pytest.mark.parametrize(("share", "is_loud"), [(0.08, False), (0.12, True)])
def test_an_error_of_the_steps_is_said_from_a_tenth_of_the_standard_error_on(share, is_loud):
    """The noise of `Modelled` has a standard deviation of about one, of 32 prompts; fewer are not asked for."""
    spread = np.random.default_rng(0).normal(size=(32, 2)).std(axis=0, ddof=1)
    error = share * spread.min() / np.sqrt(1024)
    model = Modelled(lambda n: error * (n == 8))
    if is_loud:
        with pytest.warns(UserWarning, match=r"8 constant steps leave an error of .* up to 0.12 standard errors"):
            settle(model, n_steps=8)
    else:
        assert settle(model, n_steps=8).step_error == pytest.approx(error, rel=1e-6)


def test_a_control_that_sharpens_nothing_is_dropped():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(32, 2))
    assert settle(Modelled(fifth_order, control=0.9 * noise)).ensemble.may_drop_control
    assert not settle(Modelled(fifth_order, control=3 * rng.normal(size=(32, 2)))).ensemble.may_drop_control


def test_depths_that_no_steps_reach_are_errors():
    for time in (1e4, 30.0):
        with pytest.raises(RuntimeError, match="constant steps"):
            jk.estimate_profile(
                jk.CausalAttention(jk.ExpCosine(5.0), jk.ALiBi(1.0)),
                time,
                4,
                6,
                n_prompts=64,
                key=KEY,
                control_variate=False,
            )


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200])
def test_values_that_are_not_finite_are_an_error(monkeypatch, value):
    """Nor those of which the squares are not, so that there is a mean and no error."""

    class Broken(Adjoint):
        def __call__(self, problem, key):
            return jnp.full(7, value) * problem.time * jnp.sign(jax.random.normal(key))

    monkeypatch.setitem(ESTIMATORS, "adjoint", Broken())
    ensemble = prepare_profile(MODEL, 1.0, 4, 8, control_variate=False)
    said = pytest.raises(RuntimeError, match="prompts from 64 on are not finite with 4 constant steps to t = 1")
    with said:
        ensemble.run(4, KEY, 32, 64, 1e9, jax.devices())


# Continued, and all sources at once --------------------------------------------------------------------------


def test_an_estimate_goes_on_from_an_earlier_one_with_its_steps_and_its_bits():
    def run(n_prompts, **more):
        return jk.estimate_profile(
            MODEL, 1.0, 4, 8, n_prompts=n_prompts, key=KEY, sources="all", joint=True, **more
        )

    part, whole = run(64), run(160, n_steps=4)
    both = run(96, onto=part)
    assert (both.n_prompts, both.n_steps, both.step_error) == (160, part.n_steps, part.step_error)
    np.testing.assert_array_equal(both.values, whole.values)
    np.testing.assert_array_equal(both.covariance, whole.covariance)
    with pytest.raises(ValueError, match="`joint` must be True, as `onto` has it, but is False"):
        jk.estimate_profile(MODEL, 1.0, 4, 8, n_prompts=96, key=KEY, onto=part)
    with pytest.raises(ValueError, match="`n_steps` must be 4, as `onto` has it, but is 5"):
        run(96, onto=part, n_steps=5)
    with pytest.raises(ValueError, match="`sources` must be those of `onto`"):
        jk.estimate_profile(MODEL, 1.0, 4, 8, n_prompts=96, key=KEY, sources=[0.3], joint=True, onto=part)
    with pytest.raises(ValueError, match="`onto` must hold a multiple of 32 prompts"):
        run(96, onto=run(65))


def test_an_estimate_that_began_later_goes_on_where_it_stopped():
    """It once ran its own prompts again, and claimed an error that was too small by the root of two."""

    def run(n_prompts, **more):
        return jk.estimate_profile(MODEL, 1.0, 4, 8, n_prompts=n_prompts, key=KEY, sources=[0.3], n_steps=4, **more)

    later, whole = run(64, first=64), run(160, first=64)
    for first in (0, 64):
        both = run(96, onto=later, first=first)
        assert (both.first, both.n_prompts) == (64, 160)
        np.testing.assert_array_equal(both.values, whole.values)
    with pytest.raises(ValueError, match="`first` must be 64, as `onto` has it, but is 32"):
        run(96, onto=later, first=32)


@pytest.mark.parametrize("change", [{"lam": -4.0}, {"time": 0.3}, {"key": jax.random.key(9)}, {"beta": 2.0}])
def test_an_estimate_of_something_else_is_not_gone_on_from(change):
    def run(beta=1.0, lam=1.0, time=1.0, key=KEY, onto=None):
        model = jk.CausalAttention(jk.ExpCosine(beta, n_modes=20), jk.ALiBi(lam))
        return jk.estimate_profile(model, time, 4, 8, n_prompts=32, key=key, sources=[0.3], n_steps=4, onto=onto)

    part = run()
    assert run(onto=part).n_prompts == 64
    with pytest.raises(ValueError, match="`onto` must be an estimate of the same model, depth and law"):
        run(**change, onto=part)


def test_the_law_of_an_estimate_that_goes_on_is_the_same():
    def run(p, onto=None):
        law = jk.CodewordPrompts(lambda s: jnp.array([p, 1 - p]) + 0 * s)
        return jk.estimate_profile(
            MODEL, 1.0, 2, 8, n_prompts=32, key=KEY, prompts=law, sources=[0.3], n_steps=4, onto=onto
        )

    assert run(0.3, run(0.3)).n_prompts == 64
    with pytest.raises(ValueError, match="of the same model, depth and law"):
        run(0.4, run(0.3))


def test_moments_with_and_without_covariance_do_not_merge():
    values = np.random.default_rng(0).normal(size=(8, 3))
    with pytest.raises(ValueError, match="must be of the same statistics to merge"):
        Moments.of(values, joint=True).merge(Moments.of(values))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n_tokens", [10, 20, 100, 1000, 4096])
def test_positions_name_their_tokens_in_either_precision(n_tokens, dtype):
    """0.3 is more than that in single precision, and was the token after."""
    tokens = np.unique(np.round(np.arange(1, 100) / 100 * n_tokens).astype(int))
    tokens = tokens[(tokens > 0) & (tokens < n_tokens)]
    given = jnp.asarray((tokens / n_tokens).astype(dtype))
    assert given.dtype == dtype
    np.testing.assert_array_equal(source_tokens(given, n_tokens, True), tokens - 1)


def test_laws_that_jump_at_a_token_jump_there():
    """Words 0 up to sigma = 0.3, 1 after it: of tokens 3, 6 and 7 of ten, XLA's j (1 / N) is past j / N."""
    for at in (0.3, 0.6, 0.7):
        law = jk.CodewordPrompts(
            lambda s, at=at: jnp.where(s <= at, jnp.array([1.0, 0, 0]), jnp.array([0, 1.0, 0]))
        )
        drawn = jax.jit(lambda key, law=law: law.sample(key, 10))(KEY)
        assert np.sum(np.asarray(drawn) == 0) == round(10 * at)


def test_all_sources_are_all_tokens_before_the_last():
    ensemble = prepare_profile(MODEL, 1.0, 4, 24, prompts=CODEWORDS, control_variate=False, sources="all")
    np.testing.assert_array_equal(ensemble.sources, np.arange(1, 24) / 24)
    with pytest.raises(ValueError, match="`sources` must be positions or 'all', but is 'some'"):
        prepare_profile(MODEL, 1.0, 4, 24, sources="some")


def test_joint_covariance_is_that_of_the_prompts_values():
    found = jk.estimate_profile(MODEL, 1.0, 4, 12, n_prompts=256, key=KEY, joint=True, n_steps=4)
    problem = prepare_profile(MODEL, 1.0, 4, 12).problem
    problem = dataclasses.replace(problem, n_steps=4)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(256))
    values = np.asarray(eqx.filter_jit(jax.vmap(ESTIMATORS["adjoint"], (None, 0)))(problem, keys))
    np.testing.assert_allclose(found.values, values.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(
        found.covariance, np.cov(values.T) / 256, rtol=0, atol=1e-12 * found.covariance.max()
    )
    np.testing.assert_allclose(found.standard_error, np.sqrt(np.diagonal(found.covariance)), rtol=1e-13)
    correlation = found.covariance / np.outer(found.standard_error, found.standard_error)
    assert np.abs(np.diagonal(correlation, 1)).max() > 0.2
    # The whole curve needs more than a point, and no more than independent points would, to the error of the draws.
    factor = found.simultaneous_error() / found.standard_error
    np.testing.assert_allclose(factor, factor[0], rtol=1e-12)
    assert 2.0 < factor[0] < 1.01 * simultaneous_factor(np.eye(found.sources.size), 256)


def test_the_reason_of_a_failed_solve_is_one_line():
    @eqx.filter_jit
    def fail(x):
        return eqx.error_if(x, x > 0, "Too large for this.")

    with pytest.raises(RuntimeError) as caught:
        fail(jnp.ones(()))
    assert reason(caught.value) == "Too large for this."
    assert reason(RuntimeError("First.\nSecond.")) == "First."
    assert reason(RuntimeError()) == "RuntimeError"
