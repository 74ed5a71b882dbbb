import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from jaxkinetic import ALiBi, CausalAttention, ExpCosine, FourierKernel, Solve, pairwise_drift, simulate
from tests.problems import ANGLE_PROBLEMS


def angles(n_tokens, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(0, 2 * np.pi, n_tokens))


def pairs_velocity(force, lam, n_tokens):
    """(1.1) over all pairs, in NumPy."""
    j = np.arange(1, n_tokens + 1)
    logits = np.where(j[None, :] < j[:, None], -lam * (j[:, None] - j[None, :]) / n_tokens, -np.inf)
    weights = np.zeros((n_tokens, n_tokens))
    weights[1:] = np.exp(logits[1:] - logits[1:].max(axis=1, keepdims=True))
    weights[1:] /= weights[1:].sum(axis=1, keepdims=True)
    return lambda _, theta: (weights * force(theta[:, None] - theta[None, :])).sum(axis=1)


@pytest.mark.parametrize("problem", ANGLE_PROBLEMS, ids=lambda p: p.name)
def test_exact_angles_and_slopes(problem):
    model = CausalAttention(FourierKernel([problem.coefficient]), ALiBi(problem.lam))
    trajectory = simulate(model, jnp.asarray(problem.start), [0.0, 0.7, 1.3])
    for time, got in zip((0.0, 0.7, 1.3), trajectory.angles, strict=True):
        np.testing.assert_allclose(got, problem.angles(time), rtol=0, atol=1e-10)
    gradient = jax.grad(lambda x: simulate(model, x, [1.3]).angles[0, -1])(jnp.asarray(problem.start))
    assert float(gradient[-1]) == pytest.approx(problem.slope(1.3), rel=1e-9)


@pytest.mark.parametrize(("beta", "lam"), [(1.0, 1.0), (2.0, 0.0), (5.0, -2.0), (5.0, 12.0)])
def test_against_scipy_on_all_pairs(beta, lam):
    theta, times = angles(48), [0.3, 1.0]
    velocity = pairs_velocity(lambda x: -beta * np.sin(x) * np.exp(beta * np.cos(x)), lam, 48)
    exact = solve_ivp(velocity, (0, 1), theta, method="DOP853", rtol=1e-13, atol=1e-13, t_eval=times).y.T
    model = CausalAttention(ExpCosine(beta, n_modes=28), ALiBi(lam))
    np.testing.assert_allclose(simulate(model, theta, times).angles, exact, rtol=0, atol=1e-9)


def test_any_drift_may_be_simulated():
    model, theta = CausalAttention(), angles(10)
    by_pairs = simulate(model, theta, [1.0], drift=pairwise_drift)
    np.testing.assert_allclose(by_pairs.angles, simulate(model, theta, [1.0]).angles, rtol=0, atol=1e-10)


def test_the_negated_kernel_runs_time_backwards():
    coefficients = ExpCosine(1.0).coefficients()
    forth, back = (CausalAttention(FourierKernel(sign * coefficients), ALiBi(1.0)) for sign in (1, -1))
    theta = angles(30)
    there = simulate(forth, theta, [0.5]).angles[-1]
    assert float(jnp.max(jnp.abs(there - theta))) > 0.2
    np.testing.assert_allclose(simulate(back, there, [0.5]).angles[-1], theta, rtol=0, atol=1e-8)


def test_causality_and_rotation_through_time():
    # Constant steps: adaptive ones would see the changed token through their error norm.
    model, theta, options = CausalAttention(), angles(40), Solve(step=0.1)

    def run(x):
        return simulate(model, x, [1.0], options).angles[-1]

    np.testing.assert_array_equal(run(theta)[:20], run(theta.at[20].add(0.5))[:20])
    np.testing.assert_allclose(run(theta + 0.7), run(theta) + 0.7, rtol=0, atol=1e-12)


PARAMETERS = jnp.asarray(0.9), jnp.asarray(-1.5)


def last_angle(parameters, theta, adjoint):
    beta, lam = parameters
    model = CausalAttention(ExpCosine(beta, n_modes=16), ALiBi(lam))
    return simulate(model, theta, [1.0], Solve(step=0.05, adjoint=adjoint)).angles[-1, -1]


def test_gradient_in_both_modes_against_differences():
    theta, h = angles(12), 1e-5
    checkpoint, forward = diffrax.RecursiveCheckpointAdjoint(), diffrax.ForwardMode()
    reverse = jax.jit(jax.grad(lambda p, x: last_angle(p, x, checkpoint), argnums=(0, 1)))(PARAMETERS, theta)
    ahead = jax.jit(jax.jacfwd(lambda p, x: last_angle(p, x, forward), argnums=(0, 1)))(PARAMETERS, theta)
    value = jax.jit(lambda p, x: last_angle(p, x, checkpoint))
    parts = jnp.concatenate([jnp.stack(reverse[0]), reverse[1]])
    np.testing.assert_allclose(parts, jnp.concatenate([jnp.stack(ahead[0]), ahead[1]]), rtol=1e-10, atol=1e-13)
    flat = jnp.concatenate([jnp.stack(PARAMETERS), theta])

    def at(v):
        return value((v[0], v[1]), v[2:])

    for i in range(flat.size):
        difference = (at(flat.at[i].add(h)) - at(flat.at[i].add(-h))) / (2 * h)
        assert float(parts[i]) == pytest.approx(float(difference), rel=1e-7, abs=1e-9)


def ends(parameters, theta=None):
    beta, lam, time = parameters
    model = CausalAttention(ExpCosine(beta, n_modes=16), ALiBi(lam))
    return simulate(model, angles(5) if theta is None else theta, time[None]).angles[-1]


@pytest.mark.parametrize("compiled", [False, True])
def test_derivatives_of_both_modes_need_no_adjoint(compiled):
    at, wrap = jnp.asarray([0.7, 0.5, 0.8]), jax.jit if compiled else lambda f: f
    last = wrap(lambda p: ends(p)[-1])
    h = 1e-5 * jnp.eye(3)
    difference = jnp.stack([(last(at + e) - last(at - e)) / 2e-5 for e in h])
    for derivative in (jax.grad, jax.jacfwd):
        np.testing.assert_allclose(derivative(last)(at), difference, rtol=1e-7, atol=1e-9)
    hessian = jax.hessian(last)(at)
    slopes = jnp.stack([(jax.grad(last)(at + e) - jax.grad(last)(at - e)) / 2e-5 for e in h])
    np.testing.assert_allclose(hessian, slopes, rtol=1e-6, atol=1e-8)


def test_gradient_in_the_time_is_the_velocity():
    model, theta = CausalAttention(), angles(5)
    slope = jax.jacfwd(lambda t: simulate(model, theta, t[None]).angles[0])(jnp.asarray(0.8))
    there = simulate(model, theta, [0.8]).angles[0]
    np.testing.assert_allclose(slope, pairwise_drift(model, there), rtol=0, atol=1e-8)


def test_vmap_over_prompts_and_parameters_against_a_loop():
    prompts = jnp.stack([angles(10, seed) for seed in range(3)])
    betas, options = jnp.asarray([0.3, 0.6, 1.0]), Solve(step=0.1)

    def run(beta, theta):
        return simulate(CausalAttention(ExpCosine(beta, n_modes=16), ALiBi(1.0)), theta, [0.5, 1.0], options).angles

    batched = jax.vmap(run)(betas, prompts)
    for i in range(3):
        np.testing.assert_allclose(batched[i], run(betas[i], prompts[i]), rtol=0, atol=1e-13)


def test_one_trace_per_shape():
    model = CausalAttention(ExpCosine(1.0, n_modes=16), ALiBi(1.0))
    traces = 0

    def counting(model, theta):
        nonlocal traces
        traces += 1
        return pairwise_drift(model, theta)

    simulate(model, angles(5), [1.0], drift=counting)
    first = traces
    other = CausalAttention(ExpCosine(0.5, n_modes=16), ALiBi(-2.0))
    simulate(other, angles(5, seed=1), [2.0], drift=counting)
    assert traces == first > 0
    simulate(other, angles(6), [2.0], drift=counting)
    assert traces > first


def test_single_precision_stays_single():
    model = CausalAttention(ExpCosine(jnp.float32(1.0)), ALiBi(jnp.float32(1.0)))
    theta = angles(10).astype(jnp.float32)
    trajectory = simulate(model, theta, [0.5, 1.0])
    assert trajectory.angles.dtype == trajectory.ts.dtype == np.float32
    exact = simulate(CausalAttention(), theta.astype(jnp.float64), [0.5, 1.0]).angles
    np.testing.assert_allclose(trajectory.angles, exact, rtol=0, atol=1e-4)


def test_time_zero_alone_and_the_summary():
    theta = angles(4)
    trajectory = simulate(CausalAttention(), theta, [0.0])
    np.testing.assert_array_equal(trajectory.angles, theta[None])
    trajectory = simulate(CausalAttention(), theta, [0.0, 1.5], Solve(step=0.5))
    assert str(trajectory) == "Trajectory(4 tokens, 2 times, t = 0 to 1.5, float64, 3 steps)"


def test_a_failed_solve_raises_or_says_so():
    theta = angles(10)
    with pytest.raises(eqx.EquinoxRuntimeError, match="max_steps"):
        simulate(CausalAttention(), theta, [5.0], Solve(max_steps=2))
    assert (
        simulate(CausalAttention(), theta, [5.0], Solve(max_steps=2, throw=False)).result
        != diffrax.RESULTS.successful
    )
    assert simulate(CausalAttention(), theta, [5.0], Solve(throw=False)).result == diffrax.RESULTS.successful
