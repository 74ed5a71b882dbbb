"""Bad input is refused at the door with a message that names the argument, before anything is compiled."""

# Wrong types are the point here.
# pyright: reportArgumentType=false, reportCallIssue=false

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import jaxkinetic as jk

pytestmark = pytest.mark.usefixtures("as_installed")

THETA = np.array([0.0, 1.0, 2.0])
NAN, INF = float("nan"), float("inf")


def model(beta=1.0, lam=1.0):
    return jk.CausalAttention(jk.ExpCosine(beta), jk.ALiBi(lam))


CASES = {
    "too few modes": (lambda: jk.ExpCosine(5.0, n_modes=8), r"`n_modes` must be at least \d+ .* is 8"),
    "beta overflowing": (lambda: jk.ExpCosine(710.0), "`beta` must be at most 700 in float64, .* but is 710"),
    "beta overflowing in single": (
        lambda: jk.ExpCosine(jnp.float32(88)),
        "`beta` must be at most 79 in float32, .* but is 88",
    ),
    "lam beyond the scan": (lambda: jk.u_shape(model(lam=1e308), 1.0, 8), "`lam` must be at most 1000000, but is"),
    "kernel odd": (lambda: jk.SmoothKernel(jnp.sin), "`function` must be even"),
    "kernel kinked": (lambda: jk.SmoothKernel(lambda x: jnp.abs(jnp.sin(x))), "`function` must be smooth"),
    "kernel not periodic": (lambda: jk.SmoothKernel(lambda x: x**2), "`function` must be smooth"),
    "kernel not finite": (lambda: jk.SmoothKernel(lambda x: 1 / (1 - jnp.cos(x))), "`function` must be finite"),
    "kernel unresolved": (
        lambda: jk.SmoothKernel(lambda x: jnp.exp(jnp.cos(x)), n_modes=4),
        r"`n_modes` must be at least 1\d .* is 4",
    ),
    "coefficients empty": (lambda: jk.FourierKernel([]), "`values` must be a non-empty"),
    "amplitude without rate": (lambda: jk.ExponentialSum([1.0, 1.0], [0.0]), r"`rates` must have shape \(2,\)"),
    "amplitudes none": (lambda: jk.ExponentialSum([], []), "`amplitudes` must be a non-empty"),
    "exponent large": (lambda: jk.PowerLaw(40.0, 0.1), r"`exponent` must keep the largest weight below e\^80"),
    "knots few": (lambda: jk.SplineWeights(np.zeros(3)), r"at least 4 values, but has shape \(3,\)"),
    "knots far apart": (lambda: jk.SplineWeights([0.0, 90.0, 0.0, 0.0]), "but gives e\\^90"),
    "one token sampled": (
        lambda: jk.UniformPrompts().sample(jax.random.key(0), 1),
        "`n_tokens` must be at least 2",
    ),
    "one token weighed": (lambda: jk.ALiBi(1.0).weights(1), "`n_tokens` must be at least 2, but is 1"),
    "one word": (lambda: jk.CodewordPrompts([1.0]), "at least 2 probabilities"),
    "probabilities off": (lambda: jk.CodewordPrompts([0.5, 0.6]), "must sum to one, but sums to 1.1"),
    "probabilities off somewhere": (
        lambda: jk.CodewordPrompts(lambda s: jnp.stack([1 - s, s**2])),
        "must sum to one",
    ),
    "probability negative": (lambda: jk.CodewordPrompts([1.5, -0.5]), "must not be negative"),
    "density negative": (lambda: jk.DensityPrompts([0.9]), "goes negative"),
    "cluster centres": (lambda: jk.ClusterPrompts([], 0.1), "`centers` must be a non-empty"),
    "step and tolerance": (lambda: jk.Solve(step=0.1, rtol=1e-3), "`step` must be None"),
    "profile one token": (
        lambda: jk.retrieval_profile(model(), 1.0, 8, [0.5]).soft_accuracy(1),
        "`n_tokens` must be at least 2",
    ),
}


@pytest.mark.parametrize(("call", "message"), CASES.values(), ids=CASES.keys())
def test_refused_with_a_message(call, message):
    with pytest.raises(ValueError, match=message):
        call()


FEW = 12  # modes: enough for beta = 0.05, far too few for 5


def few(beta):
    return jk.CausalAttention(jk.ExpCosine(beta, n_modes=FEW), jk.ALiBi(1.0))


DOORS = {
    "spectral_drift": lambda beta: jk.spectral_drift(few(beta), jnp.asarray(THETA))[-1],
    "simulate": lambda beta: jk.simulate(few(beta), jnp.asarray(THETA), [0.1], jk.Solve(step=0.1)).angles[-1, -1],
    "retrieval_profile": lambda beta: jk.retrieval_profile(few(beta), 1.0, 8, [0.5]).values[0],
    "u_shape": lambda beta: jk.u_shape(few(beta), 1.0, 8).minimum,
}


@pytest.mark.parametrize("door", DOORS.values(), ids=DOORS.keys())
def test_a_traced_beta_beyond_its_modes_fails_at_run_time(door):
    compiled = jax.jit(door)
    assert jnp.isfinite(compiled(0.05))
    with pytest.raises((RuntimeError, ValueError), match="12 Fourier modes do not resolve the kernel"):
        jax.block_until_ready(compiled(5.0))
    with pytest.raises((RuntimeError, ValueError), match="12 Fourier modes do not resolve the kernel"):
        jax.block_until_ready(jax.jit(jax.vmap(door))(jnp.asarray([0.05, 5.0])))


@given(st.lists(st.floats(allow_nan=True), max_size=5))
def test_only_increasing_finite_times_pass(times):
    good = bool(times) and np.all(np.isfinite(times)) and times[0] >= 0 and bool(np.all(np.diff(times) > 0))
    if not good:
        with pytest.raises(ValueError, match="`times`"):
            jk.simulate(model(), THETA, times)
