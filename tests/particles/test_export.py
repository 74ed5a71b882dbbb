"""The drift is compiled for accelerators without one, and holds no host callback."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import jaxkinetic as jk

MODELS = {
    "alibi": jk.CausalAttention(jk.ExpCosine(1.0), jk.ALiBi(1.0)),
    "power law": jk.CausalAttention(jk.ExpCosine(1.0), jk.PowerLaw(1.0, 0.1)),
    "two heads": jk.Sum([jk.CausalAttention(jk.ExpCosine(1.0), jk.ALiBi(lam)) for lam in (-5.0, 80.0)]),
}


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_the_drift_and_its_gradient_are_exported(model, platform):
    theta = jnp.linspace(0.0, 6.0, 80)
    arrays, rest = eqx.partition(model, eqx.is_array)

    @jax.jit
    def program(theta, arrays):
        return jax.value_and_grad(lambda x: jnp.sum(eqx.combine(arrays, rest).velocity(x) ** 2))(theta)

    # Exporting a program with a host callback is an error.
    text = jax.export.export(program, platforms=(platform,))(theta, arrays).mlir_module()
    assert "callback" not in text
