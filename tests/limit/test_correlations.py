"""Correlations (1.17), (1.18): closed form, both representations, the variation of the mean field, particles."""

import dataclasses
from functools import partial

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxkinetic import ALiBi, CausalAttention, CodewordPrompts, DensityPrompts, ExpCosine, Solve, UniformPrompts
from jaxkinetic.limit import Resolution, solve_correlations, solve_mean_field
from jaxkinetic.limit.closed_form import volterra_hardy
from tests.limit.laws import CODEWORDS, SMOOTH, codeword_probabilities, smooth_modes
from tests.limit.redraw import redraw

MODEL = CausalAttention(ExpCosine(1.0), ALiBi(1.0))
SOURCES = jnp.array([0.01, 0.3, 0.9])
SIGMA = jnp.linspace(0.05, 1.0, 20)
# Constant steps of a cheap method: derivatives are those of the discrete solution, and compile fast.
STEPS = Solve(solver=diffrax.Tsit5(), step=0.1)
TIGHT = Solve(rtol=1e-13, atol=1e-13)


# Uniform prompts: the closed form -----------------------------------------------------------------------


@pytest.mark.parametrize("lam", [-2.0, 0.0, 1.0, 6.0])
def test_uniform_prompts_give_the_closed_form(lam):
    """hat C_phi(n) = hat phi(n) g_{a_n} for modes 1 to 8, relative, and nothing in the other modes."""
    model = CausalAttention(ExpCosine(1.0), ALiBi(lam))
    modes = tuple(range(1, 9))
    size = Resolution(17, source_nodes=41, modes=32)
    found = solve_correlations(model, UniformPrompts(), [1.0], SOURCES, observable_mode=modes, resolution=size)
    cross = found.cross(1.0, SIGMA)
    g = jax.vmap(
        jax.vmap(jax.vmap(volterra_hardy, (None, None, 0, None, None)), (None, None, None, 0, None)),
        (0, None, None, None, None),
    )
    exact = g(model.kernel.growth_rates()[:8], jnp.asarray(1.0), SIGMA, SOURCES, model.positions)
    after = SIGMA[None, :] > SOURCES[:, None]
    for i, m in enumerate(modes):
        np.testing.assert_allclose(cross[i, :, :, m - 1][after], exact[i][after], rtol=1e-9)
        others = cross[i].at[..., m - 1].set(0)
        assert jnp.max(jnp.abs(others)) < 1e-12
    assert jnp.all(cross[..., ~after, :] == 0)
    np.testing.assert_allclose(found.auto(1.0)[:, 0, :8], np.eye(8), rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", ["fourier", "characteristics"])
def test_both_representations_give_the_closed_form(method):
    found = solve_correlations(MODEL, UniformPrompts(), [0.5, 1.0], 0.3, observable_mode=2, method=method)
    rate = MODEL.kernel.growth_rates()[1]
    for t in (0.5, 1.0):
        exact = volterra_hardy(rate, jnp.asarray(t), jnp.asarray(0.9), jnp.asarray(0.3), MODEL.positions)
        assert found.cross(t, 0.9)[1] == pytest.approx(float(exact), rel=1e-10)


def test_an_observable_of_the_other_sign_is_the_conjugate_problem():
    """For f = 1 the mode n >= 1 of the correlation with e^{-i m theta} vanishes; reality alone gives the rest."""
    found = solve_correlations(MODEL, UniformPrompts(), [1.0], 0.3, observable_mode=-2)
    np.testing.assert_allclose(found.cross(1.0, 0.9), 0, rtol=0, atol=1e-12)


# Any law ------------------------------------------------------------------------------------------------


def both(law, **options):
    found = solve_correlations(MODEL, law, [1.0], jnp.array([0.1, 0.3, 0.9]), **options)
    return found.field.modes(1.0, SIGMA), found.auto(1.0), found.cross(1.0, SIGMA)


def test_fourier_modes_and_characteristics_agree():
    """With at most 33 nodes in sigma, and as many from each source."""
    size = Resolution(33, source_nodes=33, modes=64)
    ours = both(SMOOTH, resolution=size, options=TIGHT)
    others = both(SMOOTH, resolution=size, method="characteristics", options=TIGHT)
    for found, other in zip(ours, others, strict=True):
        np.testing.assert_allclose(found, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize("law", [SMOOTH, CODEWORDS])
def test_converged_to_ten_digits(law):
    coarse = both(law)
    fine = both(law, resolution=Resolution(49, source_nodes=57, modes=96), options=TIGHT)
    for found, other in zip(coarse, fine, strict=True):
        other = other[..., :64]
        np.testing.assert_allclose(found, other, rtol=0, atol=1e-10 * max(1, np.abs(other).max()))


@pytest.mark.slow
def test_errors_fall_spectrally_in_the_nodes_from_the_source():
    exact = both(SMOOTH)[2]

    def error(nodes):
        size = Resolution(33, source_nodes=nodes, modes=64, tolerance=np.inf)
        return np.abs(both(SMOOTH, resolution=size)[2] - exact)[..., :8].max()

    errors = [error(n) for n in (7, 11, 15)]
    assert np.polyfit((7, 11, 15), np.log10(errors), 1)[0] < -0.3, errors


@pytest.mark.parametrize("law", [pytest.param("smooth", marks=pytest.mark.slow), "codewords"])
def test_correlations_are_the_variation_of_the_mean_field(law):
    """Tilting the law at sigma_0 by 1 + e b(sigma_0) (phi - E phi) moves f by e (b A + int b C dsigma_0).

    The left side differentiates the non-linear solver and knows nothing of (1.17) and (1.18).
    """
    bump = lambda s: s**3 * (2 - s)  # noqa: E731

    def smooth(tilt):
        def modes(sigma):
            theta = 2 * jnp.pi * jnp.arange(32) / 32
            f = DensityPrompts(smooth_modes).density(sigma, theta)
            phi = jnp.cos(theta)
            f = f * (1 + tilt * bump(sigma) * (phi - jnp.mean(phi * f)))
            return jnp.fft.rfft(f, norm="forward")[1:8]

        return DensityPrompts(modes)

    def codewords(tilt):
        def probabilities(sigma):
            p, phi = codeword_probabilities(sigma), jnp.cos(jnp.pi / 2 * jnp.arange(4))
            return p * (1 + tilt * bump(sigma) * (phi - p @ phi))

        return CodewordPrompts(probabilities)

    tilted, base = (smooth, SMOOTH) if law == "smooth" else (codewords, CODEWORDS)
    size = Resolution(33, source_nodes=49, modes=48, tolerance=1e-8)
    options = Solve(rtol=1e-12, atol=1e-12, adjoint=diffrax.ForwardMode())
    reader = 0.85
    field = lambda e: solve_mean_field(MODEL, tilted(e), [1.0], resolution=size, options=options)  # noqa: E731
    _, moved = jax.jvp(lambda e: field(e).modes(1.0, reader)[:6], (0.0,), (1.0,))

    # The integrand is smooth but for powers of log(sigma_0) against sigma_0^3.
    x, w = np.polynomial.legendre.leggauss(24)
    sources = reader * (x + 1) / 2
    found = solve_correlations(
        MODEL, base, [1.0], jnp.append(sources, reader), observable_mode=(1, -1), resolution=size, options=options
    )
    cross = jnp.mean(found.cross(1.0, reader)[..., :6], axis=0)[:-1]
    auto = jnp.mean(found.auto(1.0)[..., :6], axis=0)[-1]
    sum_of_sources = (w * reader / 2 * np.array([bump(s) for s in sources])) @ cross
    np.testing.assert_allclose(moved, bump(reader) * auto + sum_of_sources, rtol=0, atol=2e-9)
    assert jnp.max(jnp.abs(sum_of_sources)) > 0.02


def test_several_sources_equal_each_alone_and_vmap():
    size = Resolution(17, source_nodes=25, modes=32, tolerance=1e-6)
    solve = partial(solve_correlations, MODEL, CODEWORDS, [0.5], resolution=size, options=TIGHT)
    sources = jnp.array([0.2, 0.7])
    together = solve(source=sources).cross(0.5, 1.0)
    alone = jnp.stack([solve(source=s).cross(0.5, 1.0) for s in (0.2, 0.7)])
    mapped = jax.vmap(lambda s: solve(source=s).cross(0.5, 1.0))(sources)
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-11)
    np.testing.assert_allclose(mapped, alone, rtol=0, atol=1e-11)


def test_axes_follow_what_was_given():
    size = Resolution(17, source_nodes=17, modes=32, tolerance=1e-4)
    solve = partial(solve_correlations, MODEL, CODEWORDS, [0.5], resolution=size)
    assert solve(source=0.4).cross(0.5, 1.0).shape == (32,)
    assert solve(source=[0.4, 0.6], observable_mode=(1, 2)).cross(0.5, SIGMA).shape == (2, 2, 20, 32)
    several = solve(source=[0.4, 0.6], observable_mode=(1, 2)).auto(0.5)
    assert several.shape == (2, 2, 32)
    np.testing.assert_array_equal(solve(source=[0.4, 0.6], observable_mode=np.arange(1, 3)).auto(0.5), several)
    assert solve(source=0.4, observable_mode=np.int64(2)).auto(0.5).shape == (32,)


def test_nothing_reaches_back():
    found = solve_correlations(MODEL, CODEWORDS, [0.0, 1.0], 0.4)
    assert jnp.all(found.cross(1.0, jnp.array([0.1, 0.39, 0.4])) == 0)
    assert jnp.all(jnp.abs(found.cross(1.0, jnp.array([0.41, 1.0]))[:, 0]) > 0.1)
    np.testing.assert_allclose(found.cross(0.0, 0.9), 0, rtol=0, atol=1e-15)


@pytest.mark.parametrize("law", [SMOOTH, CODEWORDS], ids=["smooth", "codewords"])
def test_single_precision(law):
    """Everything stays single, and agrees with double precision to its rounding."""
    one = jnp.float32(1.0)
    single = CausalAttention(ExpCosine(one), ALiBi(one))
    double = CausalAttention(ExpCosine(1.0), ALiBi(1.0))
    found, exact = (solve_correlations(m, law, [1.0], 0.3) for m in (single, double))
    for name, arguments in (("cross", (1.0, 0.9, 8)), ("auto", (1.0, 8))):
        value, reference = (getattr(x, name)(*arguments) for x in (found, exact))
        assert value.dtype == jnp.complex64
        assert np.abs(value - reference).max() < 1e-5 * np.abs(reference).max()
    # Errors of steps in the last modes do not send the search for a resolution to the largest.
    assert found.field.n_modes == 64
    assert found.field.modes(1.0, 0.9).dtype == jnp.complex64


# Derivatives ----------------------------------------------------------------------------------------------


def observed(parameters, law, options):
    beta, lam, shape, source = parameters
    model = CausalAttention(ExpCosine(beta, n_modes=16), ALiBi(lam))
    prompts = {
        "smooth": lambda: DensityPrompts(lambda s: smooth_modes(s, shape)),
        "codewords": lambda: CodewordPrompts(lambda s: codeword_probabilities(s, shape)),
    }[law]()
    size = Resolution(17, source_nodes=17, modes=24, tolerance=1e-4)
    found = solve_correlations(model, prompts, [0.7], source, resolution=size, options=options)
    return found.cross(0.7, 0.8)[0].real + found.auto(0.7)[0].imag


@pytest.mark.parametrize(
    ("law", "options"),
    [pytest.param("smooth", Solve(), marks=pytest.mark.slow), ("codewords", STEPS)],
    ids=["smooth-adaptive", "codewords-constant"],
)
def test_gradients_in_beta_lam_the_law_and_the_source(law, options):
    at, step = jnp.array([1.1, 0.6, 0.9, 0.35]), 1e-4
    forward_mode = dataclasses.replace(options, adjoint=diffrax.ForwardMode())
    forward = jax.jit(jax.jacfwd(lambda p: observed(p, law, forward_mode)))(at)
    reverse = jax.jit(jax.grad(lambda p: observed(p, law, options)))(at)
    value = jax.jit(lambda p: observed(p, law, options))
    differences = [(value(at + d) - value(at - d)) / (2 * step) for d in step * jnp.eye(4)]
    np.testing.assert_allclose(forward, differences, rtol=1e-6)
    np.testing.assert_allclose(reverse, forward, rtol=1e-7)


# Refusals -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"source": 0.0}, r"`source` must lie in \(0, 1\), but is 0"),
        ({"source": [0.3, 1.0]}, r"`source` must lie in \(0, 1\)"),
        ({"source": float("nan")}, r"`source` must lie in \(0, 1\)"),
        ({"source": [[0.3]]}, "`source` must be a scalar or one-dimensional"),
        ({"observable_mode": 0}, "`observable_mode` must be a non-zero integer"),
        ({"observable_mode": 1.5}, "`observable_mode` must be a non-zero integer"),
        ({"observable_mode": ()}, "`observable_mode` must be a non-zero integer or several"),
        ({"observable_mode": True}, "`observable_mode` must be a non-zero integer"),
        ({"source": "early"}, "`source` must be a real number or several, but is 'early'"),
        ({"options": 3}, "`options` must be a Solve"),
        ({"times": [1.0, 1.0]}, "`times` must increase"),
    ],
)
@pytest.mark.usefixtures("as_installed")
def test_bad_arguments_are_refused(change, message):
    arguments = {"model": MODEL, "prompts": SMOOTH, "times": [1.0]} | change
    with pytest.raises(ValueError, match=message):
        solve_correlations(**arguments)


def test_unresolved_solutions_are_errors_that_say_what_to_raise():
    with pytest.raises(RuntimeError, match="more `source_nodes`"):
        solve_correlations(MODEL, SMOOTH, [1.0], 0.05, resolution=Resolution(33, source_nodes=9, modes=64))


@pytest.mark.slow
@pytest.mark.parametrize(("law", "n_modes"), [(SMOOTH, 2), (CODEWORDS, 4)], ids=["smooth", "codewords"])
def test_particles_approach_the_cross_correlation(law, n_modes):
    """N times the covariance of prompts, within 10 per cent at N = 64 and 3 per cent at N = 256 (Theorem 1.2).

    Modes of theta_N(1) against e^{i theta} at 0.3, in units of the largest of eight. Four modes say all that four
    codewords have to say. Modes 3 and 4 of the smooth law are farther off, by the correction of order 1 / N
    that the next test resolves: 8.8 +- 0.4 and 10.1 +- 0.7 per cent of the limit at the token's own position in
    256000 prompts of N = 64, 2.6 +- 0.4 and 3.6 +- 0.7 in 84000 of N = 256.
    """
    exact = solve_correlations(MODEL, law, [1.0], 0.3).cross(1.0, 1.0)
    scale = np.abs(exact[:8]).max()
    for n_tokens, n_prompts, within in ((64, 6000, 0.1), (256, 2000, 0.03)):
        found, error, _ = redraw(MODEL, law, n_tokens, 0.3, n_modes, n_prompts, jax.random.key(n_tokens))
        assert np.all(error < 0.015 * scale), error / scale
        assert np.all(np.abs(found - exact[:n_modes]) < within * scale), (found, exact[:n_modes])


@pytest.mark.slow
@pytest.mark.parametrize("law", [SMOOTH, CODEWORDS], ids=["smooth", "codewords"])
def test_the_distance_of_particles_to_the_cross_correlation_falls_as_one_over_n(law):
    """What is left of C_N = C + a / N after (64 C_64 - 16 C_16) / 48 is C, in modes 1 to 4.

    Both sizes have a token at 0.3125. At N = 16 the correction is far above the noise, so that another rate
    shows: N^{-1/2} would leave a third of it.
    """
    exact = np.asarray(solve_correlations(MODEL, law, [1.0], 0.3125).cross(1.0, 1.0)[:4])
    small, small_error, _ = redraw(MODEL, law, 16, 0.3125, 4, 16000, jax.random.key(16))
    large, large_error, _ = redraw(MODEL, law, 64, 0.3125, 4, 16000, jax.random.key(64))
    error = np.hypot(64 * large_error, 16 * small_error) / 48
    left = (64 * large - 16 * small) / 48 - exact
    # A sum of four squares in units of their noise; another rate would make it far larger.
    assert np.sum(np.abs(left / error) ** 2) < 16
    assert np.sum(np.abs((small - exact) / 3 / error) ** 2) > 32
