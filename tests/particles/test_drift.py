import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkinetic import (
    ALiBi,
    CausalAttention,
    ExpCosine,
    FourierKernel,
    SmoothKernel,
    pairwise_drift,
    spectral_drift,
)

KERNELS = {
    "exp-cosine": ExpCosine(1.0),
    "sharp": ExpCosine(5.0),
    "signed": FourierKernel([0.5, -0.8, 0.0, 0.3, -0.1]),
    "smooth": SmoothKernel(lambda x: jnp.exp(jnp.cos(x)) * jnp.cos(2 * x)),
}
# Around the block sizes of the prefix sum, and with one, two and three levels of blocks.
SIZES = [2, 3, 31, 32, 33, 63, 64, 65, 66, 1000, 2050]

spectral, pairwise = eqx.filter_jit(spectral_drift), eqx.filter_jit(pairwise_drift)


def angles(n_tokens, seed=0, dtype: type = np.float64):
    return jnp.asarray(np.random.default_rng(seed).uniform(-10, 10, n_tokens), dtype)


def relative(got, exact):
    return float(jnp.max(jnp.abs(got - exact)) / jnp.max(jnp.abs(exact)))


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS.keys())
@pytest.mark.parametrize("n_tokens", SIZES)
def test_spectral_against_pairwise(n_tokens, kernel):
    theta = angles(n_tokens)
    for lam in (0.0, 1.0, -2.0, 300.0, -300.0):
        model = CausalAttention(kernel, ALiBi(lam))
        assert relative(spectral(model, theta), pairwise(model, theta)) <= 1e-12


@pytest.mark.parametrize("n_tokens", [2, 64, 66, 2050])
@pytest.mark.parametrize("lam", [0.0, 300.0, -300.0])
def test_single_precision_stays_single_and_accurate(n_tokens, lam):
    model = CausalAttention(ExpCosine(jnp.float32(1.0)), ALiBi(jnp.float32(lam)))
    theta = angles(n_tokens, dtype=np.float32)
    got = spectral(model, theta)
    exact = pairwise(CausalAttention(ExpCosine(1.0), ALiBi(lam)), theta.astype(np.float64))
    assert got.dtype == pairwise(model, theta).dtype == np.float32
    assert relative(got, exact) <= 2e-5


def test_pairwise_is_the_equation_in_numpy():
    beta, lam, n = 1.3, -0.7, 7
    theta = np.asarray(angles(n))
    expected = np.zeros(n)
    for j in range(2, n + 1):
        weights = [np.exp(-lam * (j - k) / n) for k in range(1, j)]
        forces = [
            -beta * np.sin(theta[j - 1] - theta[k - 1]) * np.exp(beta * np.cos(theta[j - 1] - theta[k - 1]))
            for k in range(1, j)
        ]
        expected[j - 1] = np.dot(weights, forces) / np.sum(weights)
    got = pairwise(CausalAttention(ExpCosine(beta), ALiBi(lam)), jnp.asarray(theta))
    np.testing.assert_allclose(got, expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("n_tokens", [50, 200])
def test_causality_to_the_last_bit(n_tokens):
    model, theta, j = CausalAttention(), angles(n_tokens), n_tokens // 2
    before, after = spectral(model, theta), spectral(model, theta.at[j].add(0.7))
    np.testing.assert_array_equal(before[:j], after[:j])
    assert jnp.all(before[j:] != after[j:])
    assert before[0] == 0


def test_rotation_equivariance():
    model, theta = CausalAttention(), angles(100)
    assert relative(spectral(model, theta + 1.234), spectral(model, theta)) < 1e-13


def test_reflection_reverses_the_drift():
    model, theta = CausalAttention(), angles(100)
    np.testing.assert_allclose(spectral(model, -theta), -spectral(model, theta), rtol=0, atol=1e-14)


def test_positional_weights_stay_finite_at_extremes():
    for lam in (-5000.0, 5000.0):
        velocity = spectral(CausalAttention(ExpCosine(1.0), ALiBi(lam)), angles(100))
        assert jnp.all(jnp.isfinite(velocity))
    # all weight on the token before
    theta = angles(100)
    d = theta[1:] - theta[:-1]
    velocity = spectral(CausalAttention(ExpCosine(1.0), ALiBi(5000.0)), theta)
    np.testing.assert_allclose(velocity[1:], -jnp.sin(d) * jnp.exp(jnp.cos(d)), rtol=0, atol=1e-13)


# Derivatives ----------------------------------------------------------------------------------------


def last_velocity(parameters, theta, drift=spectral_drift):
    beta, lam = parameters
    model = CausalAttention(ExpCosine(beta, n_modes=16), ALiBi(lam))
    return jnp.sum(drift(model, theta) * jnp.cos(jnp.arange(theta.shape[0])))


def last_velocity_by_pairs(parameters, theta):
    return last_velocity(parameters, theta, pairwise_drift)


# Compiled once for all parameters.
BOTH = (0, 1)
gradients = [jax.jit(d(last_velocity, argnums=BOTH)) for d in (jax.grad, jax.jacfwd)]
exact_gradient = jax.jit(jax.grad(last_velocity_by_pairs, argnums=BOTH))
hessians = [
    jax.jit(outer(inner(last_velocity, argnums=BOTH), argnums=BOTH))
    for outer, inner in ((jax.jacfwd, jax.jacrev), (jax.jacrev, jax.jacrev))
]
exact_hessian = jax.jit(jax.hessian(last_velocity_by_pairs, argnums=BOTH))


def flat(tree):
    return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(tree)])


@pytest.mark.parametrize("lam", [1.0, 0.0, -2.0])
@pytest.mark.parametrize("n_tokens", [20, 70])
def test_derivatives_in_both_modes_against_all_pairs(n_tokens, lam):
    theta, parameters = angles(n_tokens), (jnp.asarray(0.9), jnp.asarray(lam))
    exact = flat(exact_gradient(parameters, theta))
    for gradient in gradients:
        got = flat(gradient(parameters, theta))
        np.testing.assert_allclose(got, exact, rtol=0, atol=1e-11 * float(jnp.max(jnp.abs(exact))))


@pytest.mark.parametrize("lam", [1.0, 0.0, -2.0])
def test_second_derivatives_against_all_pairs(lam):
    theta, parameters = angles(12), (jnp.asarray(0.9), jnp.asarray(lam))
    exact = flat(exact_hessian(parameters, theta))
    for hessian in hessians:
        got = flat(hessian(parameters, theta))
        np.testing.assert_allclose(got, exact, rtol=0, atol=1e-10 * float(jnp.max(jnp.abs(exact))))


def test_derivative_against_differences():
    theta, h = angles(40), 1e-6
    gradient = jax.grad(last_velocity, argnums=1)((jnp.asarray(0.9), jnp.asarray(1.0)), theta)
    function = jax.jit(lambda x: last_velocity((jnp.asarray(0.9), jnp.asarray(1.0)), x))
    for i in (0, 17, 39):
        difference = (function(theta.at[i].add(h)) - function(theta.at[i].add(-h))) / (2 * h)
        assert float(gradient[i]) == pytest.approx(float(difference), rel=1e-7, abs=1e-8)


def test_vmap_of_value_and_gradient_against_a_loop():
    theta = jnp.stack([angles(70, seed) for seed in range(3)])
    betas, lams = jnp.asarray([0.5, 0.9, 1.0]), jnp.asarray([-1.0, 0.0, 3.0])
    both = jax.jit(jax.value_and_grad(last_velocity, argnums=(0, 1)))
    batched = jax.jit(jax.vmap(jax.value_and_grad(last_velocity, argnums=(0, 1))))((betas, lams), theta)
    for i in range(3):
        single = both((betas[i], lams[i]), theta[i])
        np.testing.assert_allclose(
            flat(jax.tree.map(lambda x, i=i: x[i], batched)), flat(single), rtol=1e-11, atol=1e-13
        )
    summed = jax.jit(jax.grad(lambda p, x: jnp.sum(jax.vmap(last_velocity)(p, x)), argnums=(0, 1)))(
        (betas, lams), theta
    )
    np.testing.assert_allclose(flat(summed), flat(batched[1]), rtol=1e-11, atol=1e-13)
