"""The mean field (1.10): both representations, an independent discretization, invariants, gradients, refusals."""

import dataclasses

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from jaxkinetic import (
    ALiBi,
    CausalAttention,
    ClusterPrompts,
    CodewordPrompts,
    DensityPrompts,
    ExpCosine,
    Solve,
    UniformPrompts,
)
from jaxkinetic.limit import Resolution, chebyshev, mean_field, solve_correlations, solve_mean_field
from jaxkinetic.limit.averaging import averaging_matrix
from tests.limit.laws import CODEWORDS, SMOOTH, codeword_probabilities, smooth_modes

MODEL = CausalAttention(ExpCosine(1.0), ALiBi(1.0))
SIGMA = jnp.linspace(0.02, 1.0, 30)
# Constant steps of a cheap method: derivatives are those of the discrete solution, and compile fast.
STEPS = Solve(solver=diffrax.Tsit5(), step=0.1)


@pytest.fixture(scope="module")
def smooth():
    return solve_mean_field(MODEL, SMOOTH, [0.0, 0.5, 1.0])


@pytest.fixture(scope="module")
def codewords():
    return solve_mean_field(MODEL, CODEWORDS, [0.0, 0.5, 1.0])


# Against what is known or found independently --------------------------------------------------------


@pytest.mark.parametrize("method", ["fourier", "characteristics"])
def test_uniform_prompts_stay_uniform(method):
    field = solve_mean_field(MODEL, UniformPrompts(), [0.5, 2.0], method=method)
    for t in (0.5, 2.0):
        np.testing.assert_allclose(field.modes(t, SIGMA), 0, rtol=0, atol=1e-12)
        density = field.density(t, SIGMA, jnp.linspace(0, 6, 7))
        np.testing.assert_allclose(density, 1, rtol=0, atol=1e-12)


def test_starts_at_the_law(smooth, codewords):
    for field, law in ((smooth, SMOOTH), (codewords, CODEWORDS)):
        exact = jax.vmap(law.fourier, (0, None))(SIGMA, field.n_modes)
        # Mode n has n times the rounding of an angle.
        order = jnp.arange(1, field.n_modes + 1)[None, :]
        np.testing.assert_allclose((field.modes(0.0, SIGMA) - exact) / order, 0, rtol=0, atol=2e-14)


def test_law_that_ignores_position_obeys_the_classical_equation():
    """Averages of constants are constants: M atoms attract each other, dX_m/dt = sum_l p_l w'(X_m - X_l)."""
    p, beta = np.array([0.5, 0.2, 0.3]), 1.7

    def velocity(_, x):
        d = x[:, None] - x[None, :]
        return (-beta * np.sin(d) * np.exp(beta * np.cos(d))) @ p

    start = 2 * np.pi * np.arange(3) / 3
    exact = solve_ivp(velocity, (0, 1.2), start, method="DOP853", rtol=1e-13, atol=1e-13).y[:, -1]
    model = CausalAttention(ExpCosine(beta), ALiBi(3.0))
    field = solve_mean_field(model, CodewordPrompts(p), [1.2])
    np.testing.assert_allclose(field.characteristics(1.2, 0.37), exact, rtol=0, atol=1e-10)
    np.testing.assert_allclose(field.weights(0.37), p, rtol=0, atol=1e-14)


def independent_codewords(n_cells, lam, times):
    """Atoms on a uniform grid in sigma, cumulative trapezoidal rule, no Fourier series: error O(h^2)."""
    sigma = np.linspace(0, 1, n_cells + 1)
    p = np.asarray(jax.vmap(codeword_probabilities)(sigma))
    growth = np.exp(lam * sigma)

    def average(values):
        weighted = growth[:, None] * values
        sums = np.cumsum((weighted[1:] + weighted[:-1]) / 2, axis=0)
        total = np.cumsum((growth[1:] + growth[:-1]) / 2)[:, None]
        return np.concatenate([values[:1], sums / total])

    n = np.arange(1, 15)
    force = n * np.array([float(x) for x in ExpCosine(1.0, n_modes=14).coefficients()])

    def velocity(_, flat):
        x = flat.reshape(p.shape)
        waves = np.exp(1j * x[..., None] * n)
        mean = average(np.einsum("sm,smn->sn", p, waves.conj()))
        return -2 * np.einsum("sn,smn->sm", force * mean, waves).imag.reshape(-1)

    start = np.broadcast_to(np.pi / 2 * np.arange(4), p.shape).reshape(-1)
    solution = solve_ivp(velocity, (0, times[-1]), start, t_eval=times, method="DOP853", rtol=1e-11, atol=1e-11)
    return solution.y.T.reshape(len(times), n_cells + 1, 4)[:, :: n_cells // 20]


def test_characteristics_match_a_second_order_discretization(codewords):
    coarse, middle, fine = (independent_codewords(n, 1.0, [0.5, 1.0]) for n in (40, 80, 160))
    first, second = (4 * middle - coarse) / 3, (4 * fine - middle) / 3
    extrapolated = (16 * second - first) / 15
    for i, t in enumerate((0.5, 1.0)):
        ours = codewords.characteristics(t, jnp.linspace(0, 1, 21)[1:])
        np.testing.assert_allclose(ours, extrapolated[i, 1:], rtol=0, atol=1e-6)
        # The remaining difference falls as the independent discretization is refined.
        errors = [np.abs(ours - other[i, 1:]).max() for other in (coarse, middle, fine)]
        assert errors[0] > 3.5 * errors[1] > 12 * errors[2]


def test_fourier_modes_and_characteristics_agree(smooth):
    other = solve_mean_field(MODEL, SMOOTH, [0.0, 0.5, 1.0], method="characteristics")
    assert smooth.states.shape[1] <= 33
    for t in (0.5, 1.0):
        np.testing.assert_allclose(other.modes(t, SIGMA), smooth.modes(t, SIGMA), rtol=0, atol=1e-10)
    theta = jnp.linspace(0, 2 * jnp.pi, 50)
    np.testing.assert_allclose(
        other.density(1.0, SIGMA, theta), smooth.density(1.0, SIGMA, theta), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("law", [SMOOTH, CODEWORDS])
def test_converged_to_ten_digits(law):
    tight = Solve(rtol=1e-13, atol=1e-13)
    coarse = solve_mean_field(MODEL, law, [1.0], resolution=Resolution(33, modes=64))
    fine = solve_mean_field(MODEL, law, [1.0], resolution=Resolution(49, modes=96), options=tight)
    np.testing.assert_allclose(coarse.modes(1.0, SIGMA), fine.modes(1.0, SIGMA)[:, :64], rtol=0, atol=1e-10)


def rate(errors, sizes):
    return np.polyfit(sizes, np.log10(errors), 1)[0]


@pytest.mark.slow
def test_errors_fall_spectrally_in_nodes_and_modes(smooth):
    exact = smooth.modes(1.0, SIGMA)

    def error(nodes, modes):
        size = Resolution(nodes, modes=modes, tolerance=np.inf)
        found = solve_mean_field(MODEL, SMOOTH, [1.0], resolution=size).modes(1.0, SIGMA)
        return np.abs(found[:, :5] - exact[:, :5]).max()

    in_nodes = [error(n, 64) for n in (7, 11, 15)]
    in_modes = [error(33, k) for k in (6, 10, 14)]
    assert rate(in_nodes, (7, 11, 15)) < -0.5, in_nodes
    assert rate(in_modes, (6, 10, 14)) < -0.4, in_modes


# Invariants -------------------------------------------------------------------------------------------


def distribution(modes, theta):
    """Mass between 0 and theta of 1 + 2 Re sum_n f_n e^{i n theta}, as a share of the circle's."""
    n = jnp.arange(1, modes.shape[-1] + 1)
    waves = modes * (jnp.exp(1j * theta[:, None] * n) - 1) / (1j * n)
    return (theta + 2 * jnp.sum(waves.real, axis=1)) / (2 * np.pi)


def test_mass_between_characteristics_is_carried(smooth):
    """What lies between two characteristics at t lay between their labels at 0: one solver against the other.

    To the tolerance of the steps in t.
    """
    other = solve_mean_field(MODEL, SMOOTH, [0.0, 0.5, 1.0], method="characteristics")
    with jax.numpy_rank_promotion("allow"):
        for sigma in (0.05, 0.4, 1.0):
            start = distribution(SMOOTH.fourier(jnp.asarray(sigma), 64), other.labels)
            end = distribution(smooth.modes(1.0, sigma), other.characteristics(1.0, sigma))
            np.testing.assert_allclose(end - end[0], start - start[0], rtol=0, atol=1e-12)


def test_mode_zero_and_reality_are_conserved():
    """All modes -K..K of f and of A, as complex numbers and with the sum written out: no mode is held by hand.

    The solvers carry n = 1..K only; here the others are seen to stay 1, 0 and conjugate.
    """
    size, reach = 25, 28
    n = np.arange(-reach, reach + 1)
    average = np.asarray(averaging_matrix(MODEL.positions, size))
    force = np.zeros(n.size)
    kernel = np.asarray(ExpCosine(1.0, n_modes=14).coefficients())
    force[reach - 14 : reach], force[reach + 1 : reach + 15] = kernel[::-1], kernel
    at = 9
    difference = n[:, None] - n[None, :]
    inside = np.abs(difference) <= reach

    def drift(_, flat):
        f, a = np.split(flat.reshape(size + 1, n.size), [size])
        velocity = average @ (1j * n * force * f)
        of_f = np.where(inside, velocity[:, np.where(inside, difference + reach, 0)], 0)
        flux = np.einsum("snk,sk->sn", of_f, f)
        carried = of_f[at] @ a[0]
        return (-1j * n * np.concatenate([flux, carried[None]])).ravel()

    sigma = chebyshev.nodes(size)
    modes = np.zeros((size, n.size), complex)
    for row, s in zip(modes, sigma, strict=True):
        row[reach + 1 : reach + 3] = np.asarray(smooth_modes(s))
        row[reach - 2 : reach], row[reach] = row[reach + 1 : reach + 3][::-1].conj(), 1
    # phi = cos(theta) turns mode n into halves of n - 1 and n + 1.
    phi = (np.roll(modes[at], 1) + np.roll(modes[at], -1)) / 2
    start = np.concatenate([modes, (phi - phi[reach] * modes[at])[None]])
    found = solve_ivp(drift, (0, 0.5), start.ravel(), method="DOP853", rtol=1e-12, atol=1e-13).y[:, -1]
    found = found.reshape(size + 1, n.size)
    np.testing.assert_allclose(found[:-1, reach], 1, rtol=0, atol=1e-13)
    assert abs(found[-1, reach]) < 1e-13
    np.testing.assert_allclose(found, found[:, ::-1].conj(), rtol=0, atol=1e-13)
    ours = solve_correlations(MODEL, SMOOTH, [0.5], sigma[at], observable_mode=(1, -1))
    field = ours.field.modes(0.5, sigma[1:])[:, :12]
    np.testing.assert_allclose(field, found[1:-1, reach + 1 : reach + 13], rtol=0, atol=1e-10)
    auto = jnp.mean(ours.auto(0.5), axis=0)[:12]
    np.testing.assert_allclose(auto, found[-1, reach + 1 : reach + 13], rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", ["fourier", "characteristics"])
def test_density_stays_positive_where_it_concentrates(method):
    field = solve_mean_field(MODEL, SMOOTH, [1.0], method=method)
    density = field.density(1.0, SIGMA, 2 * np.pi * np.arange(256) / 256)
    assert density.dtype == jnp.float64
    assert density.min() > 0
    assert density.max() > 2


def test_probabilities_are_carried(codewords):
    np.testing.assert_allclose(jnp.sum(codewords.weights(SIGMA), axis=1), 1, rtol=0, atol=1e-13)
    np.testing.assert_allclose(
        codewords.weights(SIGMA), jax.vmap(codeword_probabilities)(SIGMA), rtol=0, atol=1e-13
    )


def test_rotating_the_prompts_rotates_the_field(smooth):
    angle = 0.7
    turned = DensityPrompts(lambda s: smooth_modes(s) * jnp.exp(-1j * angle * jnp.arange(1, 3)))
    modes = solve_mean_field(MODEL, turned, [1.0]).modes(1.0, SIGMA)
    n = jnp.arange(1, modes.shape[1] + 1)
    np.testing.assert_allclose(modes, smooth.modes(1.0, SIGMA) * jnp.exp(-1j * angle * n)[None], rtol=0, atol=1e-10)


def test_the_first_tokens_do_not_see_the_rest():
    """The equation is causal: f at sigma depends on the law up to sigma only."""
    inner = DensityPrompts(lambda s: smooth_modes(0.5 * s))
    # With lam halved, (0, 1/2] of the one prompt is (0, 1] of the other.
    half = CausalAttention(ExpCosine(1.0), ALiBi(0.5))
    whole = solve_mean_field(MODEL, SMOOTH, [1.0]).modes(1.0, SIGMA / 2)
    np.testing.assert_allclose(solve_mean_field(half, inner, [1.0]).modes(1.0, SIGMA), whole, rtol=0, atol=1e-10)


# Derivatives -------------------------------------------------------------------------------------------

SMALL = Resolution(17, modes=32, tolerance=1e-6)


def observed(parameters, law, options):
    beta, lam, shape = parameters
    model = CausalAttention(ExpCosine(beta, n_modes=16), ALiBi(lam))
    prompts = {
        "smooth": lambda: DensityPrompts(lambda s: smooth_modes(s, shape)),
        "codewords": lambda: CodewordPrompts(lambda s: codeword_probabilities(s, shape)),
    }[law]()
    field = solve_mean_field(model, prompts, [0.7], resolution=SMALL, options=options)
    return field.modes(0.7, 0.8)[1].real


@pytest.mark.parametrize(
    ("law", "options"),
    [pytest.param("smooth", Solve(), marks=pytest.mark.slow), ("codewords", STEPS)],
    ids=["smooth-adaptive", "codewords-constant"],
)
def test_gradients_in_beta_lam_and_the_law(law, options):
    at, step = jnp.array([1.1, 0.6, 0.9]), 1e-4
    forward_mode = dataclasses.replace(options, adjoint=diffrax.ForwardMode())
    forward = jax.jit(jax.jacfwd(lambda p: observed(p, law, forward_mode)))(at)
    reverse = jax.jit(jax.grad(lambda p: observed(p, law, options)))(at)
    value = jax.jit(lambda p: observed(p, law, options))
    shifts = step * jnp.eye(3)
    differences = [(value(at + d) - value(at - d)) / (2 * step) for d in shifts]
    np.testing.assert_allclose(forward, differences, rtol=1e-6)
    np.testing.assert_allclose(reverse, forward, rtol=1e-8)
    assert jnp.all(jnp.abs(forward) > 1e-4)


def test_vmap_equals_loop():
    def last_mode(beta):
        model = CausalAttention(ExpCosine(beta, n_modes=20), ALiBi(1.0))
        return solve_mean_field(model, SMOOTH, [0.5], resolution=SMALL, options=STEPS).modes(0.5, 1.0)[0]

    betas = jnp.array([0.5, 1.5])
    np.testing.assert_allclose(jax.vmap(last_mode)(betas), [last_mode(b) for b in betas], rtol=0, atol=1e-11)


def test_new_values_do_not_compile_anew(monkeypatch):
    calls = []
    build = mean_field.build_equation
    monkeypatch.setattr(mean_field, "build_equation", lambda *args: calls.append(1) or build(*args))
    for beta, lam, shape in ((1.0, 0.5, 1.0), (1.01, -2.0, 0.9), (1.02, 0.0, 0.8)):
        model = CausalAttention(ExpCosine(beta), ALiBi(lam))
        law = DensityPrompts(lambda s, shape=shape: smooth_modes(s, shape))
        solve_mean_field(model, law, [0.4, 0.6], resolution=Resolution(17, modes=32, tolerance=1e-5))
    assert len(calls) <= 1


# Refusals ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"times": [0.5, 0.2]}, "`times` must increase"),
        ({"times": [-1.0, 0.2]}, "`times` must be non-negative"),
        ({"times": []}, "`times` must be a non-empty"),
        ({"prompts": ClusterPrompts([0.0, 1.0], 0.1)}, "smooth in sigma"),
        ({"prompts": CODEWORDS, "method": "fourier"}, "characteristics"),
        ({"method": "spectral"}, "`method` must be"),
        ({"prompts": "uniform"}, "`prompts` must be a PromptLaw"),
        ({"model": 3}, "`model` must be a CausalAttention"),
        ({"options": 3}, "`options` must be a Solve, but is int"),
        ({"resolution": 33}, "`resolution` must be a Resolution, but is int"),
        ({"tolerance": "1e-6"}, "`tolerance` must be positive and finite, but is '1e-6'"),
    ],
)
@pytest.mark.usefixtures("as_installed")
def test_bad_arguments_are_refused(change, message):
    arguments = {"model": MODEL, "prompts": SMOOTH, "times": [1.0]} | change
    with pytest.raises(ValueError, match=message):
        solve_mean_field(**arguments)


@pytest.mark.usefixtures("as_installed")
def test_bad_laws_are_refused_where_they_are_made():
    with pytest.raises(ValueError, match="sum to one"):
        CodewordPrompts([0.5, 0.6])
    with pytest.raises(ValueError, match="negative"):
        CodewordPrompts([1.5, -0.5])
    with pytest.raises(ValueError, match="goes negative"):
        DensityPrompts([0.8 + 0j])
    # On 256 angles mode 256 looks like a constant, and on 65 positions this wave like none.
    with pytest.raises(ValueError, match=r"goes negative: -0\.8"):
        DensityPrompts(np.concatenate([np.zeros(255), [0.9]]))
    with pytest.raises(ValueError, match="negative"):
        CodewordPrompts(lambda s: [0.5 + 0.9 * jnp.sin(64 * np.pi * s), 0.5 - 0.9 * jnp.sin(64 * np.pi * s)])
    with pytest.raises(ValueError, match=r"sums to 1\.000009"):
        CodewordPrompts([0.5, 0.500009])
    for law in (CodewordPrompts, DensityPrompts):
        with pytest.raises(ValueError, match="None"):
            law(None)  # pyright: ignore[reportArgumentType]


def test_what_was_not_saved_or_does_not_exist_is_refused(smooth, codewords):
    with pytest.raises(ValueError, match="one of the saved times"):
        smooth.modes(0.3, 0.5)
    with pytest.raises(ValueError, match="one of the saved times"):
        smooth.modes(0.5 + 1e-12, 0.5)
    with pytest.raises(ValueError, match=r"one of the saved times.*but is nan"):
        smooth.modes(float("nan"), 0.5)
    with pytest.raises(ValueError, match=r"`sigma` must lie in \(0, 1\]"):
        smooth.modes(0.5, 1.5)
    with pytest.raises(ValueError, match="`n_modes` must be at least 1, but is 0"):
        smooth.modes(0.5, 0.5, 0)
    with pytest.raises(ValueError, match="`theta` must be one-dimensional"):
        smooth.density(0.5, 0.5, 1.0)
    with pytest.raises(ValueError, match='method="characteristics"'):
        smooth.characteristics(0.5, 0.5)
    with pytest.raises(ValueError, match="no density"):
        codewords.density(0.5, 0.5, jnp.zeros(1))
    with pytest.raises(eqx.EquinoxRuntimeError, match="one of the saved times"):
        eqx.filter_jit(lambda t: smooth.modes(t, 0.5))(jnp.asarray(0.3))


@pytest.mark.parametrize("method", ["fourier", "characteristics"])
def test_content_of_the_law_beyond_the_kept_modes_is_an_error(method):
    """Mode 40 is beyond twice the 16 modes that are kept; left out it would change the density by a half."""
    law = DensityPrompts(jnp.zeros(40, complex).at[0].set(0.2).at[39].set(0.25))
    with pytest.raises(RuntimeError, match=r"the last of 16 Fourier modes in theta are 2\.5e-01.*more `modes`"):
        solve_mean_field(MODEL, law, [0.2], method=method, resolution=Resolution(17, modes=16))
    assert solve_mean_field(MODEL, law, [0.2], method=method).n_modes >= 80


@pytest.mark.parametrize(
    ("size", "name"), [(Resolution(5, modes=64), "`nodes`"), (Resolution(33, modes=6), "`modes`")]
)
def test_unresolved_solutions_are_errors_that_say_what_to_raise(size, name):
    with pytest.raises(RuntimeError, match=f"Pass a `resolution` with more {name}"):
        solve_mean_field(MODEL, SMOOTH, [1.0], resolution=size)
    with pytest.raises(eqx.EquinoxRuntimeError, match=f"Pass a `resolution` with more {name}"):
        eqx.filter_jit(lambda t: solve_mean_field(MODEL, SMOOTH, t, resolution=size).states)(jnp.array([1.0]))


def test_resolution_is_found_where_the_first_does_not_serve():
    """A density that turns quickly with sigma needs more nodes than the first guess has."""
    law = DensityPrompts(lambda s: 0.45 * jnp.exp(-6j * s)[None])
    field = solve_mean_field(MODEL, law, [0.6])
    assert field.states.shape[1] > 33
    # From 96 modes on rounding leaves up to 1e-11 in the last ones, which is the tolerance.
    fine = solve_mean_field(MODEL, law, [0.6], resolution=Resolution(97, modes=80))
    np.testing.assert_allclose(field.modes(0.6, SIGMA)[:, :16], fine.modes(0.6, SIGMA)[:, :16], rtol=0, atol=1e-10)


def test_a_looser_tolerance_stops_the_search_earlier():
    assert solve_mean_field(MODEL, SMOOTH, [1.0], tolerance=1e-4).n_modes == 64
    with pytest.raises(ValueError, match="`tolerance` must be positive"):
        solve_mean_field(MODEL, SMOOTH, [1.0], tolerance=-1.0)
    with pytest.raises(ValueError, match="`tolerance` must be None where a `Resolution` is given"):
        solve_mean_field(MODEL, SMOOTH, [1.0], resolution=SMALL, tolerance=1e-6)


def test_steps_in_time_leave_no_noise_in_the_highest_modes():
    """These modes limit the stable step; in a root-mean-square norm of errors they keep 2e-11."""
    model = CausalAttention(ExpCosine(1.7), ALiBi(2.0))
    field = solve_mean_field(model, SMOOTH, [0.7], resolution=Resolution(57, modes=144))
    assert field.error < 1e-13


def test_probabilities_may_be_a_list():
    as_list = CodewordPrompts(lambda s: [0.4 - 0.2 * s, 0.6 + 0.2 * s])
    as_array = CodewordPrompts(lambda s: jnp.stack([0.4 - 0.2 * s, 0.6 + 0.2 * s]))
    found, expected = (solve_mean_field(MODEL, law, [1.0]).modes(1.0, 0.7) for law in (as_list, as_array))
    np.testing.assert_array_equal(found, expected)
