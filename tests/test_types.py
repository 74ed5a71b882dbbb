import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkinetic import _types

pytestmark = pytest.mark.usefixtures("as_installed")


@pytest.mark.parametrize("value", [1, 1.0, np.int32(1), jnp.asarray(1)])
def test_numbers_become_floating_arrays(value):
    assert _types.as_float(value).dtype == np.float64


def test_precision_is_kept():
    assert _types.as_float(np.float32(1)).dtype == np.float32


def test_traced_values_are_not_looked_at():
    jax.jit(lambda x: (_types.check_positive("x", x), x)[1])(-1.0)


def test_messages_name_argument_and_value():
    with pytest.raises(ValueError, match=r"Argument `beta` must be positive and finite, but is -1\."):
        _types.check_positive("beta", -1)
    with pytest.raises(ValueError, match=r"but is \.\.\."):
        _types.check_positions("sources", np.linspace(0, 1, 9))


@pytest.mark.parametrize(("n", "multiple", "expected"), [(1, 4, 4), (4, 4, 4), (5, 4, 8), (4.1, 2, 6)])
def test_round_up(n, multiple, expected):
    assert _types.round_up(n, multiple) == expected
