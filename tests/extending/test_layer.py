"""A layer of one's own: a perceptron on the circle, alone and beside attention."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxkinetic as jk

# Wrong types are the point of the last test.
# pyright: reportArgumentType=false


class Pull(jk.Layer):
    """Every token is pulled to the angle 0, d theta_j / dt = -strength sin(theta_j)."""

    strength: jax.Array = eqx.field(converter=jnp.asarray)

    def velocity(self, theta):
        return -self.strength * jnp.sin(theta)


def test_it_is_simulated_alone_and_in_a_sum():
    theta = jnp.asarray([0.3, 1.0, 2.0])
    found = jk.simulate(Pull(0.7), theta, [1.5]).angles[0]
    np.testing.assert_allclose(jnp.tan(found / 2), jnp.tan(theta / 2) * np.exp(-0.7 * 1.5), rtol=1e-9)
    both = jk.Sum([jk.CausalAttention(), Pull(0.7)], shares=[0.5, 2.0])
    expected = 0.5 * jk.spectral_drift(jk.CausalAttention(), theta) - 1.4 * jnp.sin(theta)
    np.testing.assert_allclose(jk.spectral_drift(both, theta), expected, rtol=1e-14)
    np.testing.assert_allclose(both.pairwise_velocity(theta), expected, rtol=1e-12)


def test_it_is_estimated_and_remembers_nothing_of_other_tokens():
    found = jk.estimate_profile(
        Pull(0.7),
        1.0,
        4,
        8,
        n_prompts=256,
        key=jax.random.key(0),
        estimator="glauber",
        sources=[0.3, 0.6],
        n_steps=8,
    )
    np.testing.assert_allclose(found.values, 0, atol=1e-12)
    assert not found.control_variate
    with pytest.raises(ValueError, match="`control_variate` must be False here: the limit of Pull is not known"):
        jk.estimate_profile(Pull(0.7), 1.0, 4, 8, n_prompts=32, key=jax.random.key(0), control_variate=True)


def test_two_equal_heads_of_half_a_share_are_one():
    head = jk.CausalAttention(jk.ExpCosine(1.0), jk.ALiBi(2.0))
    how = {"n_prompts": 64, "key": jax.random.key(1), "control_variate": False, "n_steps": 4}
    one, two = (jk.estimate_profile(m, 1.0, 4, 12, **how) for m in (head, jk.Sum([head, head], shares=[0.5, 0.5])))
    np.testing.assert_allclose(two.values, one.values, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: jk.Sum([]), "`layers` must hold at least one layer"),
        (lambda: jk.Sum([jnp.sin]), "`layers` must be a Layer"),
        (lambda: jk.Sum([jk.CausalAttention()], shares=[1.0, 2.0]), r"`shares` must have shape \(1,\)"),
        (lambda: jk.Sum([jk.CausalAttention()], shares=[jnp.nan]), "`shares` must be finite, but is"),
    ],
)
@pytest.mark.usefixtures("as_installed")
def test_sums_refuse_what_is_none(build, message):
    with pytest.raises(ValueError, match=message):
        build()
