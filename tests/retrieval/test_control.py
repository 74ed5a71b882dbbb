"""Means of the control variates, against the closed form of uniform prompts."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from jaxkinetic import ALiBi, CausalAttention, ExpCosine, UniformPrompts
from jaxkinetic.limit.closed_form import mode_weights, volterra_hardy
from jaxkinetic.retrieval import control as control_variates
from jaxkinetic.retrieval.control import law_control
from jaxkinetic.retrieval.source_law import SourceLaw


def test_the_quadrature_resolves_narrow_windows():
    """sum_m w_m g_m over the ten modes that the control keeps; 256 angles are too few for 200 codewords."""
    vocab_size, model = 200, CausalAttention(ExpCosine(1.0), ALiBi(1.0))
    sigma, one = jnp.asarray([0.2, 0.5]), jnp.ones(())
    control = law_control(model, UniformPrompts(), one, sigma, vocab_size)
    source = SourceLaw(None, None, None, None, None, vocab_size, "soft")
    profiles = jax.vmap(
        lambda s: jax.vmap(lambda a: volterra_hardy(a, one, one, s, model.positions))(model.kernel.growth_rates())
    )(sigma)
    # One over the density is tapered where that is small.
    exact = profiles[:, :10] @ mode_weights(vocab_size, 10) / (1 + control_variates._FLOOR**2)
    np.testing.assert_allclose(eqx.filter_jit(control.mean_of_redraw)(source), exact, rtol=1e-6)
