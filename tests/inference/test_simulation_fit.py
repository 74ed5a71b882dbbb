"""Fits through the simulator: derivatives against differences, planted parameters, bits after interruptions."""

import dataclasses
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxkinetic as jk
from jaxkinetic.inference.simulated import simulation_run
from jaxkinetic.inference.simulated.simulated_shape import SPACING, Geometry, SimulatedShape
from jaxkinetic.inference.simulated.simulation_blocks import Weighted, counted, eliminate, whitening
from jaxkinetic.integrate import Solve, march
from jaxkinetic.plotting import plot_simulation_fit
from jaxkinetic.retrieval.estimators import ESTIMATORS
from jaxkinetic.retrieval.profile_ensemble import prepare_profile
from tests.limit.laws import CODEWORDS

pytestmark = pytest.mark.optimized

KEY = jax.random.key(11)
MODES = jk.required_modes(3.1)


def alibi(beta, lam):
    return jk.CausalAttention(jk.ExpCosine(beta, n_modes=MODES), jk.ALiBi(lam))


def power_law(beta, lam):
    """A kernel cos(theta) + cos(2 theta) / 4 times beta, and weights that fall as a power."""
    kernel = jk.FourierKernel(beta * jnp.array([0.5, 0.125]))
    return jk.CausalAttention(kernel, jk.PowerLaw(jnp.abs(lam), 0.3))


def theory_of(build, beta_range=(0.01, 3.0), vocab_size=4, time=1.0):
    """The theory of a model of beta and lam."""
    ranges = jk.theories.paper(beta_range=beta_range).parameters
    return jk.theories.of_model(build, ranges, time=time, vocab_size=vocab_size)


def coordinates(beta, lam):
    return np.array([np.log(beta), np.arcsinh(lam)])


def simulated(build, law, estimator, controlled, at=(1.2, 0.7), n_tokens=8, sources=(0.3, 0.6)):
    """Shape of eight tokens with two sources, four steps to t = 0.8, expanded round a point beside ``at``."""
    center = coordinates(*at) + 0.03

    def ensemble(u):
        model = build(jnp.exp(u[0]), jnp.sinh(u[1]))
        return prepare_profile(
            model, 0.8, 4, n_tokens, prompts=law, estimator=estimator, control_variate=controlled, sources=sources
        )

    stencil = None
    if controlled:
        shifts = SPACING * np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
        controls = [ensemble(jnp.asarray(center + s)).problem.control for s in shifts]
        stencil = jax.tree.map(lambda *x: jnp.stack(x), *controls)
    problem = dataclasses.replace(ensemble(jnp.asarray(center)).problem, control=None, n_steps=4)
    return SimulatedShape(problem, stencil, jnp.asarray(center), theory_of(build), ESTIMATORS[estimator])


CASES = [
    (alibi, jk.UniformPrompts(), "adjoint", True),
    (alibi, CODEWORDS, "glauber", True),
    (power_law, jk.UniformPrompts(), "adjoint", True),
    (alibi, jk.ClusterPrompts([0.5, 2.0], 0.1), "glauber", False),
]


def differences(function, u, h=1e-4):
    """Derivatives of a function of u by differences of the fourth order, stacked last."""
    found = []
    for e in np.eye(2):
        near, far = (function(u + k * h * e) - function(u - k * h * e) for k in (1, 2))
        found.append((8 * near - far) / (12 * h))
    return np.stack(found, axis=-1)


@pytest.mark.parametrize(("build", "law", "estimator", "controlled"), CASES)
def test_derivatives_against_differences_of_the_same_prompts(build, law, estimator, controlled):
    shape = simulated(build, law, estimator, controlled)
    u, keys = jnp.asarray(coordinates(1.2, 0.7)), jax.random.split(KEY, 6)
    values = eqx.filter_jit(lambda u: jax.vmap(lambda k: shape.value(u, k))(keys))
    found = eqx.filter_jit(lambda u: jax.vmap(lambda k: shape.jacobian(u, k))(keys))(u)
    expected = differences(values, u)
    for j in range(2):
        assert np.abs(found[..., j] - expected[..., j]).max() <= 1e-5 * np.abs(expected[..., j]).max()


def test_gradient_of_the_fitted_objective_against_differences_of_the_same_prompts():
    """Half of chi-squared at N = 128, lines eliminated by NumPy's polyfit, on 16 prompts that stay the same."""
    sources = np.linspace(0.06, 0.94, 12)
    shape = simulated(alibi, jk.UniformPrompts(), "adjoint", True, n_tokens=128, sources=sources)
    u, keys, rng = jnp.asarray(coordinates(1.2, 0.7)), jax.random.split(KEY, 16), np.random.default_rng(0)
    each = eqx.filter_jit(lambda u: jax.vmap(lambda k: shape.value(u, k))(keys))
    values = lambda u: np.asarray(each(u)).mean(axis=0)  # noqa: E731
    jacobians = np.asarray(eqx.filter_jit(lambda u: jax.vmap(lambda k: shape.jacobian(u, k))(keys))(u))
    expected = differences(values, u)
    np.testing.assert_allclose(jacobians.mean(axis=0), expected, rtol=0, atol=1e-5 * np.abs(expected).max())

    # Two curves, of seven and of five of the sources, the second padded; both rise where the shape does.
    token = np.array([[0, 2, 4, 6, 8, 10, 11], [1, 3, 5, 7, 9, 0, 0]])
    weight = np.array([np.full(7, 4e3), [9e3] * 5 + [0.0] * 2])
    there = np.asarray(values(u))[token]
    accuracy = 0.3 + 0.2 * there / np.ptp(there) + 0.03 * rng.standard_normal(token.shape)

    def objective(u):
        half, s = 0.0, values(u)
        for t, w, a in zip(token, weight, accuracy, strict=True):
            real = w > 0
            slope, offset = np.polyfit(s[t[real]], a[real], 1, w=np.sqrt(w[real]))
            assert slope > 0
            half += np.sum(w[real] * (a[real] - offset - slope * s[t[real]]) ** 2) / 2
        return half

    data = Weighted(accuracy, weight, token)
    halves = jacobians.reshape(2, 8, *jacobians.shape[1:]).mean(axis=1)
    # With the mean itself as the limit, the instrument is the Jacobian.
    lines = eliminate(values(u), halves, halves.mean(axis=0), data)
    gradient, wanted = -np.einsum("cpi,cp->i", lines.gain(data), lines.residual), differences(objective, u)
    np.testing.assert_allclose(gradient, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())

    # What the steps follow is that gradient in whitened coordinates, in which the offset has dropped out.
    whiten = whitening(lines.information(data)[1])
    gain = -np.einsum("cpj,jk->kcp", lines.gain(data), whiten)
    ends = np.full(2, -9.0), np.full(2, 9.0)
    geometry = Geometry(*(jnp.asarray(x) for x in (gain, lines.contrast, whiten, accuracy, token, *ends)))
    stepped = np.asarray(geometry.gradient(jnp.asarray(values(u))))
    np.testing.assert_allclose(stepped, whiten.T @ wanted, rtol=0, atol=1e-5 * np.abs(whiten.T @ wanted).max())


def test_values_with_a_control_from_afar_are_those_of_estimates():
    """The mean over prompts, half an e-fold from the control's center, within 4 errors of `estimate_profile`."""
    shape = simulated(alibi, jk.UniformPrompts(), "adjoint", True, at=(0.7, 0.2))
    u = jnp.asarray(coordinates(1.2, 0.7))
    keys = jax.random.split(KEY, 4096)
    values = np.asarray(eqx.filter_jit(lambda u: jax.lax.map(lambda k: shape.value(u, k), keys, batch_size=64))(u))
    model = alibi(1.2, 0.7)
    truth = jk.estimate_profile(
        model, 0.8, 4, 8, n_prompts=4096, key=jax.random.key(2), sources=[0.3, 0.6], n_steps=4
    )
    error = np.hypot(values.std(axis=0) / 64, truth.standard_error)
    assert np.all(error < 0.03 * np.abs(truth.values).max())
    assert np.all(np.abs(values.mean(axis=0) - truth.values) < 4 * error)


def test_marching_is_the_solve_with_constant_steps():
    model, start = alibi(1.2, 0.7), jk.UniformPrompts().sample(KEY, 12)
    ends = jk.simulate(model, start, [0.8], Solve(solver=diffrax.Tsit5(), step=0.1)).angles[0]
    marched = march(lambda theta, model: model.velocity(theta), start, jnp.asarray(0.8), 8, model)
    np.testing.assert_allclose(marched, ends, rtol=0, atol=1e-14)


# Whole fits -----------------------------------------------------------------------------------------------


def planted(
    build, n_tokens, n_questions, seed, n_positions=7, beta=1.0, lam=1.0, law=None, n_prompts=4096, end=1.0
):
    """A curve whose shape is a large ensemble's at N tokens; exact counts without a seed."""
    sources = end * (np.arange(n_positions) + 0.5) / n_positions
    shape = jk.estimate_profile(
        build(beta, lam),
        1.0,
        4,
        n_tokens,
        n_prompts=n_prompts,
        key=jax.random.key(5),
        prompts=law,
        sources=sources,
        n_steps=4,
    ).values
    accuracy = 0.3 + 0.4 * (shape - shape.min()) / np.ptp(shape)
    if seed is not None:
        accuracy = np.random.default_rng(seed).binomial(n_questions, accuracy) / n_questions
    return jk.RetrievalCurve(sources, accuracy, n_questions)


@pytest.fixture(scope="module")
def curve():
    return planted(alibi, 16, 500, 3, n_prompts=512)


PAPER = jk.theories.paper(vocab_size=4, beta_range=(0.01, 3.0))


def fit(curves, **options):
    arguments = {
        "n_tokens": 16, "key": KEY, "theory": PAPER, "start": (1.0, 1.0), "steps": 4, "batch": 8, "n_steps": 3,
        "max_blocks": 6,
    }  # fmt: skip
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The fit ended after")
        return jk.fit_by_simulation(curves, **(arguments | options))


def same_bits(one, other):
    for name in ("beta", "lam", "covariance", "monte_carlo_covariance", "chi2", "profile", "history", "n_prompts"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def test_interrupted_fits_end_with_the_same_bits(curve, tmp_path, monkeypatch):
    """Stopped after any block, or killed within one, and started again."""
    whole = fit(curve)
    assert len(whole.history) == 6
    assert np.ptp(whole.history[:, 0]) > 0
    path = tmp_path / "fit.npz"
    for blocks in (1, 3):
        assert len(fit(curve, checkpoint=path, max_blocks=max(blocks, 2)).history) == max(blocks, 2)
    saved, count = simulation_run.run_block, 0

    def killed(*args):
        nonlocal count
        count += 1
        if count == 2:
            raise KeyboardInterrupt
        return saved(*args)

    monkeypatch.setattr(simulation_run, "run_block", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(curve, checkpoint=path)
    monkeypatch.undo()
    assert path.exists()
    same_bits(fit(curve, checkpoint=path), whole)
    same_bits(fit(curve, checkpoint=path), whole)


@pytest.mark.slow
def test_prompts_that_move_at_once_change_nothing(curve):
    one, other = fit(curve), fit(curve, memory=1.0)
    np.testing.assert_allclose(one.history, other.history, rtol=1e-9)
    np.testing.assert_allclose(one.covariance, other.covariance, rtol=1e-6)


def test_a_fit_that_is_cut_short_says_so(curve):
    with pytest.warns(UserWarning, match="ended after 2 blocks"):
        found = jk.fit_by_simulation(
            curve, 16, KEY, theory=PAPER, start=(1.0, 1.0), steps=4, batch=8, n_steps=3, max_blocks=2
        )
    assert not found.converged
    # Two blocks do not tell how far their means scatter: no error, no claim.
    for name in ("beta", "lam"):
        assert not np.all(np.isfinite(found.interval(name)))
        assert "unidentified" in found.describe(name)
    plot_simulation_fit(found).canvas.draw()


@pytest.mark.slow
def test_curves_that_tell_nothing_are_unidentified():
    """Three positions of few questions on the ridge lam ~ beta: fit_curves calls them unidentified as well."""
    rng = np.random.default_rng(0)
    sources = np.array([0.15, 0.4, 0.65, 0.9])
    curve = jk.RetrievalCurve(sources, rng.binomial(40, [0.6, 0.5, 0.5, 0.55]) / 40, 40)
    found = fit(curve, start=(0.5, 0.5), max_blocks=12)
    assert found.identifiable["beta"] is False
    assert "unidentified" in found.describe("beta")
    low, high = found.interval("beta")
    assert high > np.e**2 * low
    assert not any(jk.fit_curves(curve, theory=jk.theories.paper(1.0, 4)).identifiable.values())


@pytest.mark.slow
def test_a_shape_that_noise_blurs_is_no_end():
    """Lines through it are flat, so that no step moves: two of these three fits once called that the end."""
    sources, accuracy = [0.1, 0.2, 0.3, 0.45, 0.6, 0.75, 0.9], [0.60, 0.55, 0.53, 0.54, 0.58, 0.64, 0.73]
    curve = jk.RetrievalCurve(sources, accuracy, 200)
    for seed in range(3):
        found = fit(
            curve, key=jax.random.key(seed), theory=None, start=(1.15, 1.13), steps=8, batch=16, n_steps=2,
            tolerance=0.5, max_blocks=16,
        )  # fmt: skip
        assert not found.converged


def test_predictions_are_the_best_lines_through_the_simulated_shape(curve):
    found = fit(curve)
    # Both sources and positions increase.
    slope, offset = np.polyfit(found.profile, curve.accuracy, 1, w=1 / curve.standard_error)
    assert slope > 0
    np.testing.assert_allclose(found.predict(curve), offset + slope * found.profile, rtol=1e-10)
    np.testing.assert_allclose(found.prediction_error(curve), slope * found.profile_error, rtol=1e-10)
    with pytest.raises(ValueError, match="one of the fitted curves"):
        found.predict(planted(alibi, 16, 500, 4, n_prompts=64))


def test_regions_and_intervals_are_normal_in_log_beta_and_arcsinh_lam(curve):
    """The ellipse of two parameters, of a root of -2 log(1 - level) standard deviations, and 1.96 of each alone."""
    errors = {"data_covariance": [[0.04, 0.01], [0.01, 0.09]], "monte_carlo_covariance": [[0.01, 0.0], [0.0, 0.02]]}
    known = {name: np.array(values) for name, values in errors.items()}
    found = dataclasses.replace(fit(curve), values={"beta": 1.2, "lam": 0.7}, **known)
    root = np.linalg.cholesky([[0.05, 0.01], [0.01, 0.11]])
    for level in (0.5, 0.95):
        for angle in np.linspace(0, 2 * np.pi, 7):
            away = np.sqrt(stats.chi2.ppf(level, 2)) * root @ [np.cos(angle), np.sin(angle)]
            for share in (0.999, 1.001):
                u = np.array([np.log(1.2), np.arcsinh(0.7)]) + share * away
                assert found.contains([np.exp(u[0]), np.sinh(u[1])], level) == (share < 1)
    half = stats.norm.ppf(0.975) * np.sqrt([0.05, 0.11])
    assert found.interval("beta") == pytest.approx((1.2 * np.exp(-half[0]), 1.2 * np.exp(half[0])))
    ends = np.arcsinh(0.7) - half[1], np.arcsinh(0.7) + half[1]
    assert found.interval("lam") == pytest.approx((np.sinh(ends[0]), np.sinh(ends[1])))


@pytest.mark.slow
def test_a_parameter_that_the_range_stops_is_unidentified_however_small_its_error():
    """Planted at beta = 1, with answers enough to tell it to a hundredth."""
    exact = planted(alibi, 16, 20_000, None, n_prompts=512)
    free, stopped = (
        fit(exact),
        fit(exact, theory=jk.theories.paper(vocab_size=4, beta_range=(0.01, 0.8)), start=(0.79, 1.0)),
    )
    assert free.identifiable == {"beta": True, "lam": True}
    assert stopped.beta == pytest.approx(0.8)
    assert stopped.identifiable == {"beta": False, "lam": True}
    for found in (free, stopped):
        assert np.all(np.sqrt(np.diag(found.data_covariance + found.monte_carlo_covariance)) < 0.2)


def test_blocks_that_count_are_all_but_the_first_quarter_and_never_the_first():
    """The first block runs before there is anything to step on; of a single one there is no other."""
    for n, first in ((1, 0), (2, 1), (4, 1), (7, 1), (8, 2), (64, 16)):
        assert list(range(n))[counted(n)] == list(range(first, n))


def test_the_bar_is_drawn_on_terminals_only(curve, monkeypatch, capsys):
    fit(curve, max_blocks=2)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    found = fit(curve, max_blocks=3)
    drawn = capsys.readouterr().err
    assert "3/3" in drawn
    assert f"beta = {found.beta:.4g}, lam = {found.lam:.4g}" in drawn
    fit(curve, max_blocks=2, progress=False)
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_the_example_of_the_notebooks_readme_converges(capsys):
    text = Path(__file__).parents[2].joinpath("notebooks/README.md").read_text()
    code = text.split("<!-- example: simulation -->\n```python\n")[1].split("```")[0]
    names = {"jk": jk, "jax": jax}
    exec(code, names)
    found = names["found"]
    assert isinstance(found, jk.SimulationFit)
    assert found.converged
    assert found.describe("beta") in capsys.readouterr().out


def test_checkpoints_of_other_fits_are_refused(curve, tmp_path):
    path = tmp_path / "fit.npz"
    fit(curve, checkpoint=path, max_blocks=2)
    before = path.read_bytes()
    for change in (
        {"key": jax.random.key(1)},
        {"n_tokens": 17},
        {"theory": theory_of(alibi_of_twice)},
        {"batch": 16},
    ):
        with pytest.raises(ValueError, match="another configuration"):
            fit(curve, checkpoint=path, **change)
    assert path.read_bytes() == before
    path.write_bytes(before[: len(before) // 2])
    with pytest.raises(ValueError, match="must be a checkpoint of a fit"):
        fit(curve, checkpoint=path)
    with pytest.raises(ValueError, match="folder that exists"):
        fit(curve, checkpoint=tmp_path / "none" / "fit.npz")


def theory_of_one():
    parameter = jk.theories.Parameter("lam", -5.0, 5.0)
    return jk.theories.of_model(lambda lam: alibi(1.0, lam), [parameter])


def alibi_of_twice(beta, lam):
    return alibi(beta, 2 * lam)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"curves": []}, "at least one curve"),
        ({"curves": [jk.RetrievalCurve(np.arange(1, 8) / 8, np.full(7, 0.5), 100)]}, "every curve is constant"),
        ({"curves": [jk.RetrievalCurve([0.2, 0.5], [0.4, 0.6], 100)]}, "as many positions as parameters"),
        ({"curves": [jk.RetrievalCurve([0.2, 0.4, 0.7, 1.0], [0.4, 0.6, 0.5, 0.4], 9)]}, "positions below 1"),
        (
            {"curves": [jk.RetrievalCurve([0.2, 0.21, 0.5, 0.7], [0.4, 0.6, 0.5, 0.4], 9)]},
            "0.2 and 0.21 both name token 4 of",
        ),
        ({"prompts": CODEWORDS, "estimator": "adjoint"}, "must not be 'adjoint' for CodewordPrompts"),
        ({"estimator": "naive"}, "must not be 'naive'"),
        ({"start": (5.0, 1.0)}, "`beta` must lie in the theory's range, 0.01 to 3, but is 5"),
        ({"start": (1.0, np.nan)}, "`lam` must lie in the theory's range"),
        ({"start": 1.0}, "`start` must hold each of beta, lam"),
        ({"start": {"beta": 1.0}}, "`start` must name beta, lam, but names beta"),
        ({"theory": jk.theories.paper(vocab_size=4.5)}, "`theory` must have a whole vocab_size, but has 4.5"),
        ({"theory": theory_of_one()}, "`theory` must have two parameters for a fit through the simulator, but"),
        ({"theory": theory_of(power_law), "start": None}, "`start` must be given: .* has no closed form"),
        ({"tolerance": 0.0}, "`tolerance` must be positive"),
        ({"learning_rate": 2.0}, "`learning_rate` must lie in"),
        ({"batch": 1}, "`batch` must be at least 2"),
        ({"max_blocks": 1}, "`max_blocks` must be at least 2"),
        ({"n_steps": 0}, "`n_steps` must be at least 1"),
        ({"n_tokens": 1}, "`n_tokens` must be at least 2"),
    ],
)
@pytest.mark.usefixtures("as_installed")
def test_bad_input_is_refused(change, message):
    plain = [jk.RetrievalCurve([0.1, 0.3, 0.5, 0.7, 0.9], [0.7, 0.6, 0.5, 0.5, 0.6], 100)]
    with pytest.raises(ValueError, match=message):
        fit(**({"curves": plain} | change))


def test_a_beta_that_the_modes_do_not_resolve_is_an_error(curve):
    def coarse(beta, lam):
        kernel = jk.FourierKernel(beta * jnp.array([0.5, 0.125]))
        return jk.CausalAttention(Strict(kernel.values, beta), jk.ALiBi(lam))

    with pytest.raises(RuntimeError, match="do not resolve"):
        fit(curve, theory=theory_of(coarse))


class Strict(jk.FourierKernel):
    """A kernel that is resolved below beta = 0.5 only."""

    beta: jax.Array

    def is_resolved(self):
        return self.beta < 0.5


N, POSITIONS, QUESTIONS, TRUTH = 128, 120, 500, (0.7, -2.0)


@pytest.mark.slow
def test_intervals_cover_what_was_planted_at_finite_n():
    """Twenty curves at N = 128, each of 120 positions; regions and intervals of 95 per cent, 19 each at least."""
    sources = (np.arange(POSITIONS) + 0.5) / POSITIONS * 0.97
    key = jax.random.key(99)
    shape = jk.estimate_profile(
        alibi(*TRUTH), 1.0, 8, N, n_prompts=4096, key=key, sources=sources, n_steps=2
    ).values
    accuracy = 0.2 + 0.6 * (shape - shape.min()) / np.ptp(shape)

    def one(seed):
        drawn = np.random.default_rng(seed).binomial(QUESTIONS, accuracy) / QUESTIONS
        return jk.fit_by_simulation(
            jk.RetrievalCurve(sources, drawn, QUESTIONS), N, jax.random.key(1000 + seed), start=(0.9, -1.0),
            tolerance=0.3, steps=16, batch=16, n_steps=2,
        )  # fmt: skip

    with ThreadPoolExecutor(2) as pool:
        fits = list(pool.map(one, range(20)))
    assert all(f.converged and f.identifiable["beta"] and f.identifiable["lam"] for f in fits)
    assert sum(f.contains(TRUTH) for f in fits) >= 19
    for name, truth in zip(("beta", "lam"), TRUTH, strict=True):
        assert sum(f.interval(name)[0] <= truth <= f.interval(name)[1] for f in fits) >= 19
    # Regions that cover everything would pass: these are of the size that the data allow.
    assert np.median([f.standard_errors["beta"] for f in fits]) < 0.1
    assert np.median([f.standard_errors["lam"] for f in fits]) < 0.5
    assert 0.01 < np.median([f.p_value for f in fits]) < 0.99
