"""Means of the control variates, against the closed form of uniform prompts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkinetic import ALiBi, CausalAttention, ExpCosine, UniformPrompts
from jaxkinetic.limit.closed_form import mode_weights, volterra_hardy
from jaxkinetic.retrieval.control import law_control
from jaxkinetic.retrieval.source_law import SourceLaw


@pytest.mark.parametrize("vocab_size", [8, 200])
def test_the_quadrature_resolves_narrow_windows(vocab_size):
    """sum_m w_m g_m over the ten modes that the control keeps; 256 angles are too few for 200 codewords."""
    model = CausalAttention(ExpCosine(1.0), ALiBi(1.0))
    sigma, one = jnp.asarray([0.2, 0.5]), jnp.ones(())
    control = law_control(model, UniformPrompts(), one, sigma, vocab_size)
    source = SourceLaw(None, None, None, None, None, vocab_size, "soft")
    profiles = jax.vmap(
        lambda s: jax.vmap(lambda a: volterra_hardy(a, one, one, s, model.positions))(model.kernel.growth_rates())
    )(sigma)
    exact = profiles[:, :10] @ mode_weights(vocab_size, 10)
    np.testing.assert_allclose(jax.jit(control.mean_of_redraw)(source), exact, rtol=1e-6)
