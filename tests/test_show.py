"""Results print in a few lines: numbers by value, arrays by shape, however many tokens there were."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxkinetic as jk
from jaxkinetic.particles.ensemble import Moments
from jaxkinetic.retrieval import ProfileEstimate

MODEL = jk.CausalAttention(jk.ExpCosine(1.0), jk.ALiBi(1.0))


def test_numbers_are_shown_by_value():
    shown = str(jk.u_shape(MODEL, 1.0, 8))
    assert shown.startswith("UShape(\n  argmin=0.259276,\n")
    assert "n_minima=1,\n" in shown
    assert "is_u_shaped=True,\n" in shown
    assert "recency_threshold=2.45749,\n)" in shown


def test_models_show_their_parameters():
    heads = jk.Sum([MODEL, jk.CausalAttention(jk.ExpCosine(2.5), jk.PowerLaw(1.5, 0.1))], shares=[0.3, 0.7])
    shown = " ".join(repr(heads).split())
    assert "kernel=ExpCosine(beta=1.0, _n_modes=16), positions=ALiBi(lam=1.0)" in shown
    assert "kernel=ExpCosine(beta=2.5, _n_modes=" in shown
    assert "positions=PowerLaw(exponent=1.5, scale=0.1)" in shown
    assert "shares=f64[2]" in shown
    assert repr(jk.ClusterPrompts([0.5, 2.0], 0.12)) == "ClusterPrompts(centers=f64[2], width=0.12)"
    # What is traced has no value.
    seen = []
    jax.jit(lambda lam: seen.append(repr(jk.ALiBi(lam))))(0.3)
    assert seen == ["ALiBi(lam=weak_f64[])"]


def test_what_is_traced_or_batched_is_shown_by_shape():
    seen = []
    jax.vmap(lambda time: seen.append(repr(jk.u_shape(MODEL, time, 8))))(jnp.array([0.5, 1.0]))
    assert "argmin=f64[]," in seen[0]
    assert "argmin=f64[2]," in repr(jax.vmap(lambda time: jk.u_shape(MODEL, time, 8))(jnp.array([0.5, 1.0])))


def test_long_arrays_do_not_fill_the_screen():
    n = 999
    moments = Moments(64, np.zeros(n), np.ones((n, n)))
    found = ProfileEstimate(
        np.arange(1, n + 1) / (n + 1), moments.mean, moments.standard_error, 64, n + 1, 8, "soft", "adjoint", True,
        8, 1e-4, moments,
    )  # fmt: skip
    lines = repr(found).splitlines()
    assert lines[:2] == ["ProfileEstimate(", "  sources=f64[999](numpy),"]
    assert "  n_tokens=1000," in lines
    # What is kept for merging is not shown.
    assert not any("moments" in line for line in lines)
    assert len(lines) == 14
    assert repr(moments) == "Moments(\n  count=64,\n  mean=f64[999](numpy),\n  m2=f64[999,999](numpy),\n)"
