"""The search for a resolution: what it raises, when it stops, what it returns or refuses."""

import jax.numpy as jnp
import pytest

from jaxkinetic.limit.resolution import Resolution, ResolutionWarning, Tails, solve_resolved


class Modelled:
    """A solver whose tails are functions of the resolution; the solution is the resolution itself."""

    def __init__(self, **tails):
        self.tails, self.tried = tails, []

    def __call__(self, size):
        self.tried.append(size)
        found = (self.tails.get(name, lambda _: 0.0)(size) for name in ("nodes", "source_nodes", "modes"))
        return size, Tails(*(jnp.asarray(tail) for tail in found))


def floor_at(smallest):
    """Spectral decay in the modes down to a floor."""
    return lambda size: max(10.0 ** -(size.modes / 8), smallest)


def test_what_falls_short_is_raised_until_it_resolves():
    solve = Modelled(modes=floor_at(1e-16), nodes=lambda size: 10.0 ** -(size.nodes / 4))
    found = solve_resolved(solve, None, Resolution())
    assert (found.nodes, found.source_nodes, found.modes) == (57, 33, 96)
    assert [(size.nodes, size.modes) for size in solve.tried] == [(33, 64), (57, 96)]


def test_rounding_is_not_chased_but_stated():
    """The best solution is returned once finer sizes no longer help, long before the largest are tried."""
    solve = Modelled(modes=lambda size: floor_at(3e-11)(size) * (1 + size.modes / 1e4))
    with pytest.warns(ResolutionWarning, match=r"to 3\.0e-11 relative .*, not to the default tolerance 1e-11"):
        found = solve_resolved(solve, None, Resolution())
    assert [size.modes for size in solve.tried] == [64, 96, 144]
    assert found.modes == 96


@pytest.mark.parametrize("tolerance", [1e-11, 2e-11])
def test_a_tolerance_that_was_asked_for_is_kept_to(tolerance):
    solve = Modelled(modes=floor_at(4e-11))
    with pytest.raises(RuntimeError, match=r"144 Fourier modes .* are 4\.0e-11, above the tolerance [12]e-11"):
        solve_resolved(solve, None, Resolution(tolerance=tolerance))
    assert solve_resolved(solve, None, Resolution(tolerance=5e-11)).modes == 96


def test_a_size_that_falls_short_late_is_raised_too():
    """Nodes fall short only once there are more modes; that is no sign that more nodes do not help."""
    solve = Modelled(
        modes=floor_at(1e-16), nodes=lambda size: 9e-12 if size.modes < 96 else 2e-11 * (size.nodes < 40)
    )
    assert solve_resolved(solve, None, Resolution()).nodes == 57


def test_a_stalled_size_does_not_stop_the_others():
    """Nodes leave 2e-11 whatever their number; the error of the modes goes down to that, not only to 2e-9."""
    solve = Modelled(nodes=lambda _: 2e-11, modes=lambda size: 10.0 ** -(size.modes / 32))
    with pytest.warns(ResolutionWarning, match=r"to 2\.0e-11"):
        found = solve_resolved(solve, None, Resolution())
    assert found.modes > 350
    assert found.nodes < 257


def test_a_slow_decay_is_followed_to_the_tolerance():
    """Tails that fall threefold with every step are no rounding: 640 modes are needed."""
    solve = Modelled(modes=lambda size: 1e-8 * (64 / size.modes) ** 3)
    assert solve_resolved(solve, None, Resolution()).modes >= 640


@pytest.mark.parametrize("tail", [2e-8, 1e-3, float("nan"), float("inf")])
def test_a_large_error_is_refused(tail):
    """From the square root of rounding on, 1.5e-8."""
    with pytest.raises(RuntimeError, match=r"257 polynomials in sigma .* more `nodes`, a larger `tolerance`"):
        solve_resolved(Modelled(nodes=lambda _: tail), None, Resolution())


def test_given_sizes_are_kept_and_checked():
    solve = Modelled(modes=floor_at(1e-16))
    assert solve_resolved(solve, Resolution(modes=96), Resolution()).modes == 96
    with pytest.raises(RuntimeError, match=r"88 Fourier modes .* 1\.0e-11, above .* with more `modes`"):
        solve_resolved(solve, Resolution(modes=88, tolerance=0.99e-11), Resolution())
    assert len(solve.tried) == 2


def test_single_precision_has_its_own_tolerance():
    single = Modelled(modes=lambda size: jnp.float32(10.0 ** -(size.modes / 20)))
    single.tails |= {name: lambda _: jnp.float32(0) for name in ("nodes", "source_nodes")}
    assert solve_resolved(single, None, Resolution(modes=64)).modes == 96


def test_the_error_is_the_largest_tail():
    assert Tails(jnp.asarray(1.0), jnp.asarray(3.0), jnp.asarray(2.0)).largest == 3
