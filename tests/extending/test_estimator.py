"""An estimator of one's own: the antithetic one, which runs a prompt and its mirror image."""

import jax
import numpy as np

import jaxkinetic as jk
from jaxkinetic.retrieval.estimators import Naive


class Mirrored(Naive):
    """Mean of the naive values of a prompt and of its mirror image, of the same law where tokens are uniform."""

    name = "mirrored"

    def value(self, problem, drawn):
        return (super().value(problem, drawn) + super().value(problem, -drawn)) / 2

    def prediction(self, problem, control, drawn):
        return (super().prediction(problem, control, drawn) + super().prediction(problem, control, -drawn)) / 2

    def runs(self, n_sources):
        return 2 * super().runs(n_sources)


def test_it_estimates_the_profile():
    model = jk.CausalAttention(jk.ExpCosine(1.0), jk.ALiBi(1.0))
    how = {"key": jax.random.key(0), "sources": [0.3, 0.7], "n_steps": 4}
    found = jk.estimate_profile(model, 1.0, 4, 8, n_prompts=4096, estimator=Mirrored(), **how)
    sharp = jk.estimate_profile(model, 1.0, 4, 8, n_prompts=4096, estimator="adjoint", **how)
    assert found.estimator == "mirrored"
    assert found.control_variate
    error = np.hypot(found.standard_error, sharp.standard_error)
    assert np.all(np.abs(found.values - sharp.values) < 4 * error)
    assert np.all(error < 0.2 * np.abs(sharp.values))
