import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkinetic import Circle, _types

pytestmark = pytest.mark.usefixtures("as_installed")


@pytest.mark.parametrize("value", [1, 1.0, np.int32(1), jnp.asarray(1)])
def test_numbers_become_floating_arrays(value):
    assert _types.as_float(value).dtype == np.float64


def test_precision_is_kept():
    assert _types.as_float(np.float32(1)).dtype == np.float32


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (_types.check_finite, 1.0, [np.nan, np.inf, -np.inf]),
        (_types.check_positive, 1.0, [0.0, -1.0, np.nan, np.inf]),
        (_types.check_times, 0.0, [-1.0, np.nan, np.inf]),
        (_types.check_positions, 1.0, [0.0, 1.1, -0.1, np.nan]),
        (lambda name, x: _types.check_increasing(name, x[None] + jnp.arange(2) * x), 1.0, [0.0, -1.0, np.nan]),
        (lambda name, x: Circle().check(name, x[None] + jnp.arange(2.0)), 1.0, [np.nan, np.inf]),
    ],
)
def test_a_traced_value_is_checked_when_the_program_runs(check, good, bad):
    checked = jax.jit(lambda x: check("x", x))
    assert np.all(np.isfinite(checked(good)))
    for value in bad:
        with pytest.raises((RuntimeError, ValueError), match="Argument `x` must"):
            jax.block_until_ready(checked(value))
        with pytest.raises(ValueError, match="Argument `x` must"):
            check("x", jnp.asarray(value))


def test_trusted_programs_hold_no_checks():
    @jax.jit
    def checked(x):
        return _types.check_positive("x", x)

    @jax.jit
    @_types.trusted()
    def unchecked(x):
        return _types.check_positive("x", x)

    assert "callback" in checked.lower(-1.0).as_text()
    assert "callback" not in unchecked.lower(-1.0).as_text()
    assert unchecked(-1.0) == -1


def test_messages_name_argument_and_value():
    with pytest.raises(ValueError, match=r"Argument `beta` must be positive and finite, but is -1\."):
        _types.check_positive("beta", -1)
    with pytest.raises(ValueError, match=r"but is \.\.\."):
        _types.check_positions("sources", np.linspace(0, 1, 9))


@pytest.mark.parametrize(("n", "multiple", "expected"), [(1, 4, 4), (4, 4, 4), (5, 4, 8), (4.1, 2, 6)])
def test_round_up(n, multiple, expected):
    assert _types.round_up(n, multiple) == expected
