"""Designed positional weights: the constraint, the gradient, how flat, and what particles say."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkinetic import (
    ALiBi,
    CausalAttention,
    ExpCosine,
    ExponentialSum,
    PowerLaw,
    SplineWeights,
    design_weights,
    estimate_profile,
    iterated_kernels,
    retrieval_profile,
    window_means,
)
from jaxkinetic.shape.weight_design import alibi_of_mean_distance, profile_of_member
from jaxkinetic.shape.weights_at_distance import ExponentialFamily, PowerFamily, SplineFamily, hold_mean_distance

pytestmark = pytest.mark.optimized

KERNEL = ExpCosine(1.0)
DISTANCE = float(ALiBi(1.0).mean_distance)


@pytest.fixture(scope="module")
def flat():
    return design_weights(KERNEL, 1.0, 8, mean_distance=DISTANCE)


@pytest.mark.slow
def test_ten_times_flatter_than_alibi_at_the_same_mean_distance(flat):
    assert flat.converged
    assert flat.mean_distance == pytest.approx(DISTANCE, abs=1e-12)
    assert float(flat.alibi.lam) == pytest.approx(1.0, rel=1e-12)
    assert flat.alibi_range == pytest.approx(0.3955, abs=1e-4)
    assert flat.gain > 100
    # By other means than the search's: more nodes, other sources, and the public profile.
    sources = np.linspace(0.05, 0.95, 77)
    kernels = iterated_kernels(flat.positions, 0.03, n_nodes=30)
    profile = kernels.correction(KERNEL.growth_rates(), 1.0, 8, jnp.asarray(sources))
    assert np.ptp(profile) < flat.alibi_range / 100
    public = retrieval_profile(CausalAttention(KERNEL, flat.positions), 1.0, 8, sources).values
    np.testing.assert_allclose(public, profile, rtol=1e-9)


@pytest.mark.slow
def test_particles_see_the_flat_profile(flat):
    """At N = 512, in nine windows whose errors tell a tenth of ALiBi's range apart."""
    flat_found, alibi_found = (
        window_means(
            estimate_profile(
                CausalAttention(KERNEL, positions),
                1.0,
                8,
                512,
                n_prompts=256,
                key=jax.random.key(0),
                sources="all",
                joint=True,
            ),
            np.linspace(0.05, 0.95, 10),
        )
        for positions in (flat.positions, flat.alibi)
    )
    for found, positions in ((flat_found, flat.positions), (alibi_found, flat.alibi)):
        at = np.linspace(0.05, 0.95, 901)
        limit = np.asarray(retrieval_profile(CausalAttention(KERNEL, positions), 1.0, 8, at).values)
        means = np.array([limit[(at >= a) & (at < b)].mean() for a, b in itertools.pairwise(found.edges)])
        # The profile at N tokens differs from the limit by about 1 / N of itself.
        assert np.all(np.abs(found.values - means) < 3.5 * found.standard_error + 2 / 512)
        assert found.standard_error.max() < 0.01
    assert flat_found.range < alibi_found.range / 10


@pytest.mark.slow
def test_two_exponentials_flatten_a_little_and_power_laws_do_not():
    """Measured by hand before: 0.294 and 0.404 against ALiBi's 0.3955."""
    two = design_weights(KERNEL, 1.0, 8, mean_distance=DISTANCE, family="exponentials")
    assert isinstance(two.positions, ExponentialSum)
    assert two.converged
    assert float(two.positions.mean_distance) == pytest.approx(DISTANCE, abs=1e-9)
    assert 0.2 < two.range < 0.3
    power = design_weights(KERNEL, 1.0, 8, mean_distance=DISTANCE, family="power-law")
    assert isinstance(power.positions, PowerLaw)
    assert float(power.positions.mean_distance) == pytest.approx(DISTANCE, abs=1e-9)
    assert power.gain < 1.1


@pytest.mark.parametrize(("family", "x"), [(ExponentialFamily(3), [0.3, -0.5, 0.7, 2.0]), (PowerFamily(), [-1.2])])
def test_members_hold_the_mean_distance_and_are_differentiable(family, x):
    x, d = jnp.asarray(x), jnp.asarray(0.35)

    def log_weights(x):
        positions = family.weights(x, d)
        return positions.log_weight(jnp.linspace(0, 1, 5)) - positions.log_mass(jnp.ones(()))

    assert float(family.weights(x, d).mean_distance) == pytest.approx(0.35, abs=1e-12)
    compiled, h = jax.jit(log_weights), 1e-5
    jacobian = jax.jit(jax.jacfwd(log_weights))(x)
    for i in range(x.size):
        difference = (compiled(x.at[i].add(h)) - compiled(x.at[i].add(-h))) / (2 * h)
        np.testing.assert_allclose(jacobian[:, i], difference, rtol=1e-6, atol=1e-8)


def test_a_profile_that_can_be_is_found():
    """The profile of a power law is followed, by weights that have its mean distance."""
    power = PowerLaw(0.7, 0.4)
    sources = np.linspace(0.05, 0.95, 40)
    target = np.asarray(retrieval_profile(CausalAttention(KERNEL, power), 1.0, 8, sources).values)
    distance = float(power.mean_distance)
    found = design_weights(KERNEL, 1.0, 8, mean_distance=distance, target=target + 3.0, sources=sources, n_knots=13)
    assert found.converged
    assert found.range < 1e-3 * np.ptp(target)
    assert found.gain > 100
    np.testing.assert_array_equal(found.target, target + 3.0)


VALUES = jnp.asarray(np.random.default_rng(0).normal(size=11))


def test_the_mean_distance_is_held():
    for distance in (0.05, 0.3, 0.9):
        held = SplineWeights(hold_mean_distance(VALUES, jnp.asarray(distance)))
        assert float(held.mean_distance) == pytest.approx(distance, abs=1e-12)
    assert float(alibi_of_mean_distance(0.5).lam) == pytest.approx(0.0, abs=1e-10)
    assert float(alibi_of_mean_distance(float(ALiBi(-6.0).mean_distance)).lam) == pytest.approx(-6.0, rel=1e-10)


def test_gradient_of_the_profile_in_the_values_against_differences():
    """Through the tilt as well, at whose solution the constraint stays."""
    sources, rates = jnp.asarray([0.06, 0.4, 0.93]), KERNEL.growth_rates()

    def profile(values):
        return profile_of_member(
            SplineFamily(VALUES.size), values, rates, jnp.asarray(1.0), 8, sources, jnp.asarray(0.35), 0.05
        )

    jacobian = jax.jacfwd(profile)(VALUES)
    np.testing.assert_allclose(jax.jacrev(profile)(VALUES), jacobian, rtol=1e-9, atol=1e-12)
    compiled, h = jax.jit(profile), 1e-4
    for i in range(VALUES.size):
        near, far = (
            (compiled(VALUES.at[i].add(k * h)) - compiled(VALUES.at[i].add(-k * h))) / (2 * k * h) for k in (1, 2)
        )
        np.testing.assert_allclose(jacobian[:, i], (4 * near - far) / 3, rtol=1e-7, atol=1e-9)
    # Adding a tilt changes nothing.
    knots = np.linspace(0, 1, VALUES.size)
    np.testing.assert_allclose(jacobian @ knots, 0, atol=1e-12)


@pytest.mark.usefixtures("as_installed")
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"kernel": 1.0}, "`kernel` must be a Kernel, but is float"),
        ({"time": 0.0}, "`time` must be positive"),
        ({"vocab_size": 1}, "`vocab_size` must be at least 2"),
        ({"mean_distance": 1.0}, r"`mean_distance` must lie in \(0, 1\), but is 1"),
        ({"mean_distance": -0.1}, r"`mean_distance` must lie in \(0, 1\), but is -0.1"),
        ({"mean_distance": float("nan")}, "`mean_distance` must be finite"),
        ({"mean_distance": 0.001}, r"`mean_distance` must lie in \[0.0133, 0.987\], which weights within .* 0.001"),
        ({"mean_distance": 0.999}, r"`mean_distance` must lie in \[0.0133, 0.987\], which weights within .* 0.999"),
        ({"family": "cubic"}, "`family` must be one of spline, exponentials, power-law, but is 'cubic'"),
        ({"family": "exponentials", "n_terms": 1}, "`n_terms` must be at least 2, but is 1"),
        ({"family": "power-law", "mean_distance": 0.6}, "`mean_distance` must be below 1/2 for power laws"),
        ({"n_knots": 3}, "`n_knots` must be at least 4"),
        ({"sources": [0.5]}, r"`sources` must be one-dimensional with at least 3 positions, but has shape \(1,\)"),
        ({"sources": [0.0, 0.1, 0.5]}, r"`sources` must lie in \(0, 1\]"),
        ({"sources": [0.5, 0.4, 0.6]}, "`sources` must increase strictly"),
        ({"target": [1.0, 2.0]}, "`sources` must be given with `target`"),
        ({"target": [1.0], "sources": [0.2, 0.4, 0.6]}, r"`target` must have shape \(3,\)"),
    ],
)
def test_bad_input(changed, message):
    arguments = {"kernel": KERNEL, "time": 1.0, "vocab_size": 8, "mean_distance": DISTANCE}
    with pytest.raises(ValueError, match=message):
        design_weights(**{**arguments, **changed})
