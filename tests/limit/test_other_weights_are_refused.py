"""What holds for ALiBi alone refuses other weights by name, and says what serves instead."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxkinetic as jk
from jaxkinetic.limit import averaging, closed_form
from jaxkinetic.retrieval.law_profile import uniform_codeword_correction

SPLINE = jk.SplineWeights(np.zeros(5))
MODEL = jk.CausalAttention(jk.ExpCosine(1.0), SPLINE)
WORDS = jk.CodewordPrompts([0.5, 0.5])
ONE, HALF = jnp.ones(()), jnp.asarray(0.5)
RATES = jnp.ones(3)

CASES = {
    "mean field": (lambda: jk.solve_mean_field(MODEL, WORDS, [1.0]), "use `retrieval_profile`"),
    "correlations": (lambda: jk.solve_correlations(MODEL, WORDS, [1.0], 0.5), "use `retrieval_profile`"),
    "profile of a law": (lambda: jk.retrieval_profile(MODEL, 1.0, 2, [0.5], prompts=WORDS), "estimate_profile"),
    "shape": (lambda: jk.u_shape(MODEL, 1.0, 8), "Use `retrieval_profile`"),
    "profile in closed form": (
        lambda: closed_form.profile(RATES, RATES, ONE, HALF, SPLINE),
        "Use `iterated_kernels`",
    ),
    "scaled profile": (
        lambda: closed_form.scaled_profile(RATES, RATES, ONE, HALF, SPLINE),
        "Use `iterated_kernels`",
    ),
    "solution in closed form": (
        lambda: closed_form.volterra_hardy(ONE, ONE, ONE, HALF, SPLINE),
        "Use `iterated_kernels`",
    ),
    "averages": (lambda: averaging.averaging_matrix(SPLINE, 9), "Use `iterated_kernels`"),
    "averages from a source": (lambda: averaging.SourceNodes(SPLINE, HALF, 9), "Use `iterated_kernels`"),
    "codewords in closed form": (lambda: uniform_codeword_correction(MODEL, ONE, 2, HALF), "`estimate_profile`"),
}


@pytest.mark.parametrize(("call", "instead"), CASES.values(), ids=CASES.keys())
def test_refused_by_name(call, instead):
    with pytest.raises(ValueError, match=rf"`positions` must be ALiBi for .*, but is SplineWeights\. .*{instead}"):
        call()


def test_control_variates_of_other_laws_are_refused_and_left_out_unless_asked_for():
    more = {"n_prompts": 32, "key": jax.random.key(0), "prompts": WORDS}
    with pytest.raises(ValueError, match="solved for ALiBi weights, not for SplineWeights"):
        jk.estimate_profile(MODEL, 0.3, 2, 8, control_variate=True, **more)
    assert not jk.estimate_profile(MODEL, 0.3, 2, 8, **more).control_variate
