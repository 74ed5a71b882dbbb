"""Bad input is refused at the door with a message that names the argument, before anything is compiled."""

# Wrong types are the point here.
# pyright: reportArgumentType=false, reportCallIssue=false

import importlib

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
    "beta zero": (lambda: jk.ExpCosine(0.0), "`beta` must be positive and finite, but is 0"),
    "beta negative": (lambda: jk.ExpCosine(-1), "`beta` must be positive and finite, but is -1"),
    "beta nan": (lambda: jk.ExpCosine(NAN), "`beta` .* nan"),
    "beta infinite": (lambda: jk.ExpCosine(INF), "`beta` .* inf"),
    "beta array": (lambda: jk.ExpCosine(jnp.ones(2)), r"`beta` must be a scalar, but has shape \(2,\)"),
    "lam nan": (lambda: jk.ALiBi(NAN), "`lam` must be finite, but is nan"),
    "lam infinite": (lambda: jk.ALiBi(-INF), "`lam` must be finite, but is -inf"),
    "lam array": (lambda: jk.ALiBi(jnp.ones(2)), "`lam` must be a scalar"),
    "lam complex": (lambda: jk.ALiBi(jnp.asarray(1j)), "real number was expected, but the dtype is complex"),
    "no items": (lambda: jk.RetrievalCurve([0.5], [0.5], n_items=0), "`n_items` must be at least 1, but is 0"),
    "too few modes": (lambda: jk.ExpCosine(5.0, n_modes=8), r"`n_modes` must be at least \d+ .* is 8"),
    "beta overflowing": (lambda: jk.ExpCosine(710.0), "`beta` must be at most 700 in float64, .* but is 710"),
    "beta overflowing in single": (
        lambda: jk.ExpCosine(jnp.float32(88)),
        "`beta` must be at most 79 in float32, .* but is 88",
    ),
    "lam beyond the scan": (lambda: jk.u_shape(model(lam=1e308), 1.0, 8), "`lam` must be at most 1000000, but is"),
    "modes fractional": (lambda: jk.SmoothKernel(jnp.cos, n_modes=1.5), "`n_modes` must be an integer"),
    "kernel odd": (lambda: jk.SmoothKernel(jnp.sin), "`function` must be even"),
    "kernel kinked": (lambda: jk.SmoothKernel(lambda x: jnp.abs(jnp.sin(x))), "`function` must be smooth"),
    "kernel not periodic": (lambda: jk.SmoothKernel(lambda x: x**2), "`function` must be smooth"),
    "kernel not finite": (lambda: jk.SmoothKernel(lambda x: 1 / (1 - jnp.cos(x))), "`function` must be finite"),
    "kernel unresolved": (
        lambda: jk.SmoothKernel(lambda x: jnp.exp(jnp.cos(x)), n_modes=4),
        r"`n_modes` must be at least 1\d .* is 4",
    ),
    "coefficients nan": (lambda: jk.FourierKernel([1.0, NAN]), "`values` must be finite"),
    "coefficients empty": (lambda: jk.FourierKernel([]), "`values` must be a non-empty"),
    "kernel of another kind": (lambda: jk.CausalAttention(jnp.cos, jk.ALiBi(1.0)), "`kernel` must be a Kernel"),
    "positions of another kind": (
        lambda: jk.CausalAttention(jk.ExpCosine(1.0), 1.0),
        "`positions` must be PositionalWeights, such as ALiBi, but is float",
    ),
    "amplitude negative": (lambda: jk.ExponentialSum([1.0, -1.0], [0.0, 1.0]), "`amplitudes` must be positive"),
    "amplitude without rate": (lambda: jk.ExponentialSum([1.0, 1.0], [0.0]), r"`rates` must have shape \(2,\)"),
    "amplitudes none": (lambda: jk.ExponentialSum([], []), "`amplitudes` must be a non-empty"),
    "rate infinite": (lambda: jk.ExponentialSum([1.0], [INF]), "`rates` must be finite, but is"),
    "exponent negative": (lambda: jk.PowerLaw(-1.0, 0.1), "`exponent` must be at least 0, but is -1"),
    "exponent nan": (lambda: jk.PowerLaw(NAN, 0.1), "`exponent` must be finite, but is nan"),
    "exponent large": (lambda: jk.PowerLaw(40.0, 0.1), r"`exponent` must keep the largest weight below e\^80"),
    "scale zero": (lambda: jk.PowerLaw(1.0, 0.0), "`scale` must be positive and finite, but is 0"),
    "knots few": (lambda: jk.SplineWeights(np.zeros(3)), r"at least 4 values, but has shape \(3,\)"),
    "knot nan": (lambda: jk.SplineWeights([0.0, NAN, 0.0, 0.0]), "`log_values` must be finite"),
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
    "cluster width": (lambda: jk.ClusterPrompts([0.0], 0.0), "`width` must be positive"),
    "cluster centres": (lambda: jk.ClusterPrompts([], 0.1), "`centers` must be a non-empty"),
    "angles two-dimensional": (lambda: jk.simulate(model(), np.zeros((2, 3)), [1.0]), r"`theta0` .* \(2, 3\)"),
    "angles integer": (lambda: jk.simulate(model(), np.arange(3), [1.0]), "`theta0` must be real .* int64"),
    "angles complex": (lambda: jk.spectral_drift(model(), THETA + 0j), "`theta` must be real .* complex128"),
    "angles nan": (lambda: jk.spectral_drift(model(), np.array([0.0, NAN])), "`theta` must be finite"),
    "one angle": (lambda: jk.simulate(model(), THETA[:1], [1.0]), "at least 2 tokens, but holds 1"),
    "times unsorted": (lambda: jk.simulate(model(), THETA, [1.0, 0.5]), "`times` must increase strictly"),
    "times repeated": (lambda: jk.simulate(model(), THETA, [1.0, 1.0]), "`times` must increase strictly"),
    "times negative": (lambda: jk.simulate(model(), THETA, [-1.0, 1.0]), "`times` must be non-negative"),
    "times infinite": (lambda: jk.simulate(model(), THETA, [1.0, INF]), "`times` must be non-negative and finite"),
    "times empty": (lambda: jk.simulate(model(), THETA, []), "`times` must be a non-empty"),
    "step negative": (lambda: jk.Solve(step=-0.1), "`step` must be positive and finite, but is -0.1"),
    "steps none": (lambda: jk.Solve(max_steps=0), "`max_steps` must be at least 1, but is 0"),
    "step and tolerance": (lambda: jk.Solve(step=0.1, rtol=1e-3), "`step` must be None"),
    "profile one word": (lambda: jk.retrieval_profile(model(), 1.0, 1, [0.5]), "`vocab_size` must be at least 2"),
    "profile at zero": (
        lambda: jk.retrieval_profile(model(), 1.0, 8, [0.0, 0.5]),
        r"`sources` must lie in \(0, 1\]",
    ),
    "profile beyond one": (lambda: jk.retrieval_profile(model(), 1.0, 8, [0.5, 1.1]), r"`sources` must lie in"),
    "profile nan": (lambda: jk.retrieval_profile(model(), 1.0, 8, [NAN]), r"`sources` must lie in"),
    "profile scalar": (lambda: jk.retrieval_profile(model(), 1.0, 8, 0.5), "`sources` must be a non-empty"),
    "profile before zero": (lambda: jk.retrieval_profile(model(), -1.0, 8, [0.5]), "`time` .* is -1"),
    "shape before zero": (
        lambda: jk.u_shape(model(), -0.5, 8),
        "`time` must be non-negative and finite, but is -0.5",
    ),
    "shape at many times": (lambda: jk.u_shape(model(), jnp.ones(2), 8), "`time` must be a scalar"),
    "shape one word": (lambda: jk.u_shape(model(), 1.0, 1), "`vocab_size` must be at least 2, but is 1"),
    "decoder one word": (lambda: jk.decode(jnp.zeros(1), 1), "`vocab_size` must be at least 2"),
    "hard one word": (lambda: jk.hard_accuracy(jnp.zeros(1), jnp.zeros(1), 1), "`vocab_size`"),
    "soft one word": (lambda: jk.soft_accuracy(jnp.zeros(1), jnp.zeros(1), 1), "`vocab_size`"),
    "modes one word": (lambda: jk.soft_accuracy_fourier(jnp.zeros(1), jnp.zeros(1), 1), "`vocab_size`"),
    "profile one token": (
        lambda: jk.retrieval_profile(model(), 1.0, 8, [0.5]).soft_accuracy(1),
        "`n_tokens` must be at least 2",
    ),
}


@pytest.mark.parametrize(("call", "message"), CASES.values(), ids=CASES.keys())
def test_refused_with_a_message(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("door", ["simulate", "spectral_drift", "retrieval_profile", "u_shape"])
def test_refused_before_compilation(door, monkeypatch):
    def compiled(*_, **__):
        pytest.fail("reached the compiled part")

    for module, name in [
        ("particles.simulate", "_simulate"),
        ("retrieval.profile", "_retrieval_profile"),
        ("retrieval.u_shape", "shape_of_modes"),
    ]:
        monkeypatch.setattr(importlib.import_module(f"jaxkinetic.{module}"), name, compiled)
    monkeypatch.setattr(jk.CausalAttention, "velocity", compiled)
    bad = {
        "simulate": lambda: jk.simulate(model(), THETA, [2.0, 1.0]),
        "spectral_drift": lambda: jk.spectral_drift(model(), THETA[None]),
        "retrieval_profile": lambda: jk.retrieval_profile(model(), 1.0, 8, [2.0]),
        "u_shape": lambda: jk.u_shape(model(), NAN, 8),
    }
    with pytest.raises(ValueError, match="Argument"):
        bad[door]()


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


@given(st.floats(max_value=0) | st.sampled_from([NAN, INF, -INF]))
def test_no_bad_beta_passes(beta):
    with pytest.raises(ValueError, match="`beta`"):
        jk.ExpCosine(beta)


@given(st.lists(st.floats(allow_nan=True), max_size=5))
def test_only_increasing_finite_times_pass(times):
    good = bool(times) and np.all(np.isfinite(times)) and times[0] >= 0 and bool(np.all(np.diff(times) > 0))
    if not good:
        with pytest.raises(ValueError, match="`times`"):
            jk.simulate(model(), THETA, times)
