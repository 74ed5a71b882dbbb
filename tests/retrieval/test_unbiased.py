"""Every estimator has the same mean as every other, with and without the control: a bias of 3 per cent would show.

An estimate with its control and one without it come from the same prompts, so that their difference, of which the
mean must vanish, is seen sharply; those of different estimators come from different seeds.
"""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxkinetic as jk
from jaxkinetic.particles import ensemble
from jaxkinetic.particles.ensemble import run_ensemble
from jaxkinetic.retrieval.estimators import ESTIMATORS
from jaxkinetic.retrieval.profile_ensemble import prepare_profile
from tests.limit.laws import CODEWORDS, SMOOTH

MODEL = jk.CausalAttention(jk.ExpCosine(1.2), jk.ALiBi(0.7))
# One step: estimators agree on what that step does, exactly.
TIME, STEPS = 0.8, 1
UNIFORM, FEW = jk.UniformPrompts(), "all"
# What one source may differ by, of the hundreds that are looked at, and what all sources together may.
ONE, POOLED, BIAS = 4.5, 3.0, 1.03


class Found:
    """Estimates of one estimator, without and with its control, and their joint covariance."""

    def __init__(self, law, accuracy, words, estimator, n_tokens, sources, n_prompts, seed):
        self.controlled = not (estimator == "glauber" and accuracy == "hard")
        prepared = prepare_profile(
            MODEL,
            TIME,
            words,
            n_tokens,
            prompts=law,
            estimator=estimator,
            control_variate=self.controlled,
            sources=sources,
            accuracy=accuracy,
        )
        assert (prepared.problem.control is not None) == self.controlled
        self.moments = run_ensemble(
            BOTH[estimator] if self.controlled else ESTIMATORS[estimator],
            dataclasses.replace(prepared.problem, n_steps=STEPS), jax.random.key(seed), n_prompts, joint=True,
        )  # fmt: skip
        self.n_sources = prepared.sources.size
        assert self.n_sources >= 8

    def variants(self):
        """(name, values, covariance) of the estimate without the control and of that with it."""
        s = self.n_sources
        names = ("plain", "controlled") if self.controlled else ("plain",)
        for k, name in enumerate(names):
            part = slice(k * s, (k + 1) * s)
            yield name, self.moments.mean[part], self.moments.covariance[part, part]

    def control(self):
        """Mean of what the control takes, and its covariance."""
        take = np.concatenate([np.eye(self.n_sources), -np.eye(self.n_sources)], axis=1)
        return take @ self.moments.mean, take @ self.moments.covariance @ take.T


def both(estimator):
    def values(problem, key):
        sharp = ESTIMATORS[estimator](problem, key)
        return jnp.concatenate([sharp + ESTIMATORS[estimator].control(problem, key), sharp])

    return values


BOTH = {name: both(name) for name in ESTIMATORS}


def worst(mean, covariance):
    return np.max(np.abs(mean) / np.sqrt(np.diagonal(covariance)))


def pooled(mean, covariance):
    return mean.sum() / np.sqrt(covariance.sum())


NAIVE, REDRAW, SLOPES = ("naive", 262144), ("glauber", 16384), ("adjoint", 32768)


@pytest.fixture(autouse=True)
def _large_batches(monkeypatch):
    """Prompts this short leave most of a core idle."""
    monkeypatch.setattr(ensemble, "largest_batch", lambda devices: 1024)  # noqa: ARG005


@pytest.mark.slow
@pytest.mark.parametrize(
    # The decoder's vocabulary is one that sees much of the law.
    ("law", "accuracy", "words", "n_tokens", "sources", "budgets"),
    [
        (UNIFORM, "soft", 4, 9, FEW, (NAIVE, REDRAW, SLOPES)),
        (SMOOTH, "soft", 4, 9, FEW, (NAIVE, REDRAW, SLOPES)),
        (CODEWORDS, "soft", 3, 9, FEW, (("naive", 524288), ("glauber", 32768))),
    ],
    ids=lambda x: x if isinstance(x, str | int) else type(x).__name__,
)
def test_estimators_agree_at_every_source_and_a_bias_of_three_per_cent_would_show(
    law, accuracy, words, n_tokens, sources, budgets
):
    found = [
        Found(law, accuracy, words, name, n_tokens, sources, n, seed) for seed, (name, n) in enumerate(budgets)
    ]
    for one in found:
        if one.controlled:
            assert worst(*one.control()) < ONE
            assert abs(pooled(*one.control())) < POOLED
    for a, b in itertools.combinations(found, 2):
        for (_, x, c), (_, y, d) in itertools.product(a.variants(), b.variants()):
            assert worst(x - y, c + d) < ONE, (x, y)
            assert abs(pooled(x - y, c + d)) < POOLED, (x, y)
            # The same test refuses the same numbers with a bias in one of them, and would for other seeds.
            biased = pooled(BIAS * x - y, BIAS**2 * c + d), pooled(x - BIAS * y, c + BIAS**2 * d)
            assert max(np.abs(biased)) > POOLED
            assert (BIAS - 1) * x.sum() / np.sqrt((c + d).sum()) > POOLED + 1
