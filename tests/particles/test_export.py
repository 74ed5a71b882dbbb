"""Drift and ensembles are compiled for accelerators without one, and hold no host callback."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

import jaxkinetic as jk
from jaxkinetic.particles import ensemble
from jaxkinetic.retrieval.profile_ensemble import prepare_profile

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


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
@pytest.mark.parametrize("estimator", ["naive", "glauber", "adjoint"])
def test_ensembles_are_exported(estimator, platform):
    prepared = prepare_profile(MODELS["alibi"], 1.0, 8, 80, estimator=estimator, sources=[0.3, 0.7])
    problem = dataclasses.replace(prepared.problem, n_steps=4)
    arrays, rest = eqx.partition((problem, jax.random.key(0)), eqx.is_array)

    @jax.jit
    def program(arrays, indices):
        return ensemble._run(prepared.estimator, arrays, rest, indices, 4)

    text = jax.export.export(program, platforms=(platform,))(arrays, jnp.arange(8, dtype=jnp.uint32)).mlir_module()
    assert "callback" not in text
