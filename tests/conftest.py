"""Configuration of the suite; it must run before jaxkinetic is imported."""

import os
from collections.abc import Iterator

os.environ.setdefault("MPLBACKEND", "Agg")

import hypothesis
import jax
import jaxtyping
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

# Shapes and dtypes of every annotated function and field are checked while the tests run; an int is a float.
jaxtyping.install_import_hook("jaxkinetic", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")


# The first example of a property may compile; how long that takes says nothing about the property.
hypothesis.settings.register_profile("compiled", deadline=None)
hypothesis.settings.load_profile("compiled")


@pytest.fixture(autouse=True, scope="module")
def _executables_of_one_file() -> Iterator[None]:
    """Drop compiled programs after each file: a worker that keeps them all maps gigabytes of code."""
    yield
    jax.clear_caches()


@pytest.fixture
def as_installed() -> Iterator[None]:
    """Run without the shape checker, as users do: errors must come from the package itself."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
