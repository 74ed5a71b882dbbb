"""Every argument of every public function refuses values of the wrong type, shape, dtype or size, and names itself.

A row gives one good call, with a kind for each argument; the kind knows a good value and bad ones. Arguments with
defaults keep them where another argument is tried.
"""

# Wrong types are the point here.
# pyright: reportArgumentType=false, reportCallIssue=false

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxkinetic as jk
from jaxkinetic import theories
from jaxkinetic.retrieval.profile_ensemble import ProfileEnsemble

pytestmark = pytest.mark.usefixtures("as_installed")

NAN, INF = float("nan"), float("inf")
WORD = {"word": "one"}
COMPLEX, PAIR = {"complex": 1j}, {"pair": [0.5, 0.75]}
NOT_FINITE = {"nan": NAN, "inf": INF}


class Kind(NamedTuple):
    """A good value, bad ones by what is wrong with them, and those among them that a traced argument may take."""

    good: Any
    bad: Mapping[str, Any]
    traced: Mapping[str, Any] = {}

    def but(self, *accepted: str, **more: Any) -> "Kind":
        """The kind without what an argument accepts, and with what it alone refuses."""
        keep = lambda values: {k: v for k, v in values.items() if k not in accepted}  # noqa: E731
        return Kind(self.good, keep(self.bad) | more, keep(self.traced))

    def fixed(self) -> "Kind":
        """The kind of an argument that is never traced."""
        return self._replace(traced={})


def number(good: float, **out_of_range: float) -> Kind:
    bad = NOT_FINITE | out_of_range
    return Kind(good, WORD | PAIR | COMPLEX | bad, bad)


def positive(good: float) -> Kind:
    return number(good, zero=0.0, negative=-1.0)


def not_negative(good: float) -> Kind:
    return number(good, negative=-1.0)


def share(good: float) -> Kind:
    return number(good, zero=0.0, negative=-0.1, above=1.5)


def array(good: Any, **out_of_range: float) -> Kind:
    """An array of any shape; each bad value stands in its first place."""
    good = np.asarray(good, float)

    def with_first(value):
        return np.concatenate([[value], good.ravel()[1:]]).reshape(good.shape)

    bad = {name: with_first(value) for name, value in (NOT_FINITE | out_of_range).items()}
    return Kind(good, WORD | {"complex": with_first(1j)} | bad, bad)


def vector(good: Any, **out_of_range: float) -> Kind:
    kind = array(good, **out_of_range)
    return kind.but(scalar=float(kind.good[0]), matrix=kind.good[None])


def positions(*good: float) -> Kind:
    return vector(good, zero=0.0, negative=-0.1, above=1.5)


def count(good: int) -> Kind:
    return Kind(good, WORD | PAIR | {"zero": 0, "fraction": 1.5, "nan": NAN, "bool": True})


def instance(good: Any, **more: Any) -> Kind:
    return Kind(good, WORD | {"number": 1.5} | more)


def several(good: Any) -> Kind:
    """A sequence of objects."""
    return instance(good, empty=[], of_numbers=[1.5])


def choice(good: str) -> Kind:
    return Kind(good, {"unknown": "unheard-of", "number": 1.5})


FLAG = Kind(False, WORD | {"number": 1.5})
TEXT = Kind("name", {"number": 1.5})
DEVICES = Kind(None, {"empty": [], "number": 1.5, "of_numbers": [1.5]})
MISSING = Path("/nowhere/at-all")
FILE = Kind(MISSING, {"number": 1.5, "missing": MISSING})
# A place where something may be written.
PLACE = Kind(MISSING, {"number": 1.5, "empty": ""})

MODEL = instance(jk.CausalAttention())
WEIGHTS, KERNEL, LAW = instance(jk.ALiBi(1.0)), instance(jk.ExpCosine(1.0)), instance(jk.UniformPrompts())
CURVE = jk.RetrievalCurve([0.1, 0.3, 0.5, 0.7, 0.9], [0.5, 0.3, 0.25, 0.4, 0.6], n_questions=100)
CURVES, KEY = several(CURVE), instance(jax.random.key(0))
TIME, SOURCES, TOLERANCE = not_negative(0.5), positions(0.25, 0.5), positive(1e-3).fixed()
# For `Resolution` infinity accepts whatever error there is.
ANY_TOLERANCE = TOLERANCE.but("inf")
DEPTH = positive(0.5).fixed()
TIMES = vector([0.25, 0.5], negative=-1.0).but("scalar", falling=[0.5, 0.25], equal=[0.5, 0.5], empty=[])
VOCAB = count(8).but(one=1)
THETA = vector([0.0, 1.0, 2.0]).but(integers=[0, 1, 2], single=[0.5])
LEVEL = share(0.9).fixed()
MEMORY = positive(2.0**20).fixed()
OPTIONS, RESOLUTION = instance(jk.Solve(step=0.1)), instance(jk.Resolution(5, 5, 16, INF))
RANGE = Kind((0.1, 2.0), WORD | COMPLEX | {"number": 1.5, "nan": (0.1, NAN), "inf": (0.1, INF), "turned": (2, -1)})
VALUES = Kind([1.0, 1.0], WORD | {"number": 1.5, "nan": [NAN, 1.0], "three": [1.0, 1.0, 1.0], "name": {"b": 1.0}})
GOALS = {"n_prompts": count(32), "standard_error": TOLERANCE, "max_prompts": count(64)}


def without_init(kind: type, **fields: Any) -> Any:
    """A result that holds what checks look at."""
    made = object.__new__(kind)
    for name, value in fields.items():
        object.__setattr__(made, name, value)
    return made


POSTERIOR = without_init(jk.Posterior, curves=[CURVE])
ESTIMATE = without_init(jk.ProfileEstimate, sources=np.array([0.25, 0.75]), n_tokens=4)
RATE = theories.Parameter("rate", 0.1, 1.0)

# The name in a message, where it is not the argument's.
TOLD = {"values": "`beta`", "low": "`rate_range`", "high": "`rate_range`"}

ROWS: dict[str, dict[str, Kind]] = {
    "ALiBi": {"lam": number(1.0)},
    "CausalAttention": {"kernel": KERNEL, "positions": WEIGHTS},
    "ClusterPrompts": {"centers": vector([0.0, 1.0]), "width": positive(0.1)},
    "CodewordPrompts": {"probabilities": vector([0.5, 0.5])},
    "DensityPrompts": {"modes": vector([0.1, 0.1]).but("complex")},
    "ExpCosine": {"beta": positive(1.0), "n_modes": count(24)},
    "ExponentialSum": {"amplitudes": vector([1.0, 2.0], negative=-1.0), "rates": vector([0.5, 1.5])},
    "FourierKernel": {"values": vector([1.0, 0.5])},
    "PowerLaw": {"exponent": not_negative(1.0), "scale": positive(0.5)},
    "Priors": {"mean": number(0.5).fixed(), "mean_spread": DEPTH, "contrast_spread": DEPTH},
    "Resolution": {
        "nodes": count(33), "source_nodes": count(33), "modes": count(64), "tolerance": ANY_TOLERANCE,
    },
    "RetrievalCurve": {
        "sources": positions(0.25, 0.5).fixed(), "accuracy": vector([0.2, 0.6], negative=-0.1).fixed(),
        "n_questions": positive(100).fixed().but("pair", matrix=np.ones((2, 2)), three=[9, 9, 9]),
        "n_items": count(10), "name": TEXT, "task": TEXT, "origin": TEXT,
    },
    "SmoothKernel": {"function": instance(jnp.cos), "n_modes": count(4)},
    "Sphere": {"dimension": count(3)},
    "Solve": {
        "solver": instance(diffrax.Dopri8()), "rtol": TOLERANCE, "atol": TOLERANCE, "step": positive(0.1),
        "controller": instance(diffrax.ConstantStepSize()), "adjoint": instance(diffrax.DirectAdjoint()),
        "max_steps": count(10), "progress": FLAG, "throw": FLAG,
    },
    "SplineWeights": {"log_values": vector([0.0, 1.0, 2.0, 3.0])},
    "Sum": {"layers": several([jk.CausalAttention()]), "shares": vector([1.0])},
    "SweepConfig": {
        "beta": positive(1.0).fixed().but("pair"), "lam": number(1.0).fixed().but("pair"),
        "time": positive(1.0).fixed().but("pair"), "n_tokens": count(64), "vocab_size": VOCAB,
        "law": choice("uniform"), "estimator": choice("auto"), "laws": instance({}),
        "sources": positions(0.25, 0.5).fixed().but("scalar"), "accuracy": choice("soft"),
        "control_variate": FLAG, "joint": FLAG, "seed": count(1).but("zero"), "n_steps": count(8),
        "chunk": count(32), **GOALS,
    },
    "curve_posterior": {
        "curves": CURVES, "theory": several(theories.paper()), "priors": instance(jk.Priors()), "level": LEVEL,
        "grid": Kind((20, 20), WORD | {"number": 20, "fraction": (20.5, 20), "few": (2, 20)}),
    },
    "decode": {"theta": array([0.0, 1.0]), "vocab_size": VOCAB},
    "design_weights": {
        "kernel": KERNEL, "time": DEPTH, "vocab_size": VOCAB, "mean_distance": share(0.3).fixed(),
        "target": vector([1.0, 0.5, 1.0]).fixed(), "sources": positions(0.25, 0.5, 0.75).fixed(),
        "n_knots": count(8), "family": choice("spline"), "n_terms": count(2),
    },
    "estimate_profile": {
        "model": MODEL, "time": DEPTH, "vocab_size": VOCAB, "n_tokens": count(8), "n_prompts": count(32),
        "key": KEY, "prompts": LAW, "estimator": choice("auto"), "control_variate": FLAG,
        "sources": positions(0.25, 0.5).fixed(), "accuracy": choice("soft"), "joint": FLAG, "n_steps": count(8),
        "first": count(0).but("zero"), "onto": instance(None), "memory": MEMORY, "devices": DEVICES,
        "progress": FLAG,
    },
    "extend_sweep": {
        "store": FILE, **GOALS, "chunk": count(32), "memory": MEMORY, "devices": DEVICES, "progress": FLAG,
    },
    "fit_by_simulation": {
        "curves": CURVES, "n_tokens": count(16), "key": KEY, "theory": instance(theories.paper()), "prompts": LAW,
        "estimator": choice("auto"),
        "start": Kind((1.0, 1.0), WORD | {"number": 1.5, "three": (1.0, 1.0, 1.0), "names": {"b": 1.0}}),
        "tolerance": TOLERANCE, "max_blocks": count(4), "steps": count(4),
        "batch": count(32), "learning_rate": share(0.2).fixed().but("above", above=2.5), "n_steps": count(8),
        "checkpoint": PLACE, "memory": MEMORY, "progress": FLAG,
    },
    "fit_curves": {"curves": CURVES, "theory": instance(theories.paper()), "level": LEVEL},
    "hard_accuracy": {"last": array([0.0, 1.0]), "source": array([0.0, 1.0]), "vocab_size": VOCAB},
    "iterated_kernels": {
        "positions": WEIGHTS, "smallest_source": share(0.1).fixed(), "n_terms": count(8), "n_nodes": count(8),
        "tolerance": TOLERANCE,
    },
    "law_profile": {
        "model": MODEL, "prompts": LAW, "time": TIME, "vocab_size": VOCAB, "sources": SOURCES,
        "resolution": RESOLUTION, "options": OPTIONS, "tolerance": ANY_TOLERANCE,
    },
    "list_models": {"dataset": choice("liu2024"), "task": choice("multi-document-qa")},
    "load": {"path": FILE},
    "load_baselines": {"model": choice("Claude-1.3"), "dataset": choice("liu2024")},
    "load_curves": {
        "dataset": choice("liu2024"), "model": choice("Claude-1.3"), "task": choice("multi-document-qa"),
    },
    "next_measurement": {
        "posterior": instance(POSTERIOR), "n_questions": positive(100).fixed().but("pair"),
        "sources": positions(0.25, 0.5).fixed(),
    },
    "open_sweep": {"store": FILE},
    "pairwise_drift": {"model": MODEL, "theta": THETA},
    "phase_diagram": {
        "beta": array([1.0, 2.0], zero=0.0, negative=-1.0).fixed(), "lam": array([1.0, 2.0]).fixed(),
        "time": array([1.0, 2.0], negative=-1.0).fixed(), "vocab_size": array([8.0, 9.0], one=1.0).fixed(),
        "model": instance(None),
    },
    "plan_experiment": {
        "sources": positions(0.25, 0.5).fixed(), "n_questions": positive(100).fixed(), "values": VALUES,
        "c0": number(0.4).fixed(), "c1": not_negative(0.1).fixed(), "theory": instance(theories.paper()),
    },
    "plan_extension": {"store": FILE, **GOALS, "memory": MEMORY, "devices": DEVICES},
    "plan_sweep": {"config": instance(jk.SweepConfig()), "store": PLACE, "memory": MEMORY, "devices": DEVICES},
    "read_config": {"path": FILE},
    "read_curves": {"path": FILE, "n_items": count(10)},
    "required_modes": {"beta": positive(1.0).fixed(), "dtype": instance(np.float64, integer=np.int32)},
    "retrieval_profile": {
        "model": MODEL, "time": TIME, "vocab_size": VOCAB, "sources": SOURCES, "prompts": LAW,
        "resolution": RESOLUTION, "options": OPTIONS, "tolerance": TOLERANCE, "n_terms": count(8),
        "n_nodes": count(8),
    },
    "run_sweep": {
        "config": instance(jk.SweepConfig()), "store": PLACE, "memory": MEMORY, "devices": DEVICES,
        "progress": FLAG,
    },
    "simulate": {
        "model": MODEL, "x0": THETA, "times": TIMES, "options": OPTIONS, "drift": instance(jk.pairwise_drift),
    },
    "soft_accuracy": {"last": array([0.0, 1.0]), "source": array([0.0, 1.0]), "vocab_size": VOCAB},
    "soft_accuracy_fourier": {"last": array([0.0, 1.0]), "source": array([0.0, 1.0]), "vocab_size": VOCAB},
    "solve_correlations": {
        "model": MODEL, "prompts": LAW, "times": TIMES,
        "source": share(0.3).but("pair", matrix=np.full((1, 1), 0.5)),
        "observable_mode": count(1).but("pair", "bool"), "method": choice("auto"), "resolution": RESOLUTION,
        "options": OPTIONS, "tolerance": ANY_TOLERANCE,
    },
    "solve_mean_field": {
        "model": MODEL, "prompts": LAW, "times": TIMES, "method": choice("auto"), "resolution": RESOLUTION,
        "options": OPTIONS, "tolerance": ANY_TOLERANCE,
    },
    "spectral_drift": {"model": MODEL, "theta": THETA},
    "u_sensitivity": {
        "values": VALUES, "theory": instance(theories.paper()), "edge": share(0.05).fixed().but("above", above=0.6),
    },
    "u_shape": {"model": MODEL, "time": TIME, "vocab_size": VOCAB},
    "uniform_codeword_correction": {
        "model": MODEL, "time": TIME, "vocab_size": VOCAB, "source": share(0.5),
    },
    "window_means": {"estimate": instance(ESTIMATE), "edges": vector([0.0, 0.5, 1.0]).fixed()},
    "theories.Parameter": {
        "name": Kind("rate", {"number": 1.5, "spaces": "a rate"}), "low": number(0.1).fixed(),
        "high": number(1.0).fixed(), "scale": choice("linear"), "width": positive(1.0).fixed(), "symbol": TEXT,
        "meaning": TEXT,
    },
    "theories.of_function": {
        "function": instance(lambda s, rate: jnp.exp(-rate * s)), "parameters": several([RATE]).but("empty"),
        "name": TEXT,
    },
    "theories.of_model": {
        "build": instance(lambda rate: jk.CausalAttention(jk.ExpCosine(rate, n_modes=24))),
        "parameters": several([RATE]).but("empty"), "time": DEPTH, "vocab_size": VOCAB, "name": TEXT,
    },
    "theories.paper": {
        "time": DEPTH, "vocab_size": VOCAB, "beta_range": RANGE, "lam_range": RANGE,
    },
}  # fmt: skip
# What the package makes: results, and the classes of theories.
MADE = {
    "Correlations", "CurveFit", "DesignedWeights", "Interval", "IteratedKernels", "MeanField", "NextMeasurement",
    "PhaseDiagram", "PlannedExperiment", "Posterior", "ProfileEstimate", "RetrievalProfile", "Sensitivity",
    "SimulationFit", "SweepPlan", "Trajectory", "UShape", "WindowMeans", "theories.ModelTheory", "theories.OneHead",
    "theories.Paper",
}  # fmt: skip


def public() -> dict[str, Callable[..., Any]]:
    """All that a user calls with arguments: neither abstract classes nor results."""
    named = {name: getattr(jk, name) for name in jk.__all__}
    named |= {f"theories.{name}": getattr(theories, name) for name in theories.__all__}
    return {
        name: found
        for name, found in named.items()
        if callable(found)
        and not inspect.isabstract(found)
        and name not in MADE
        and inspect.signature(found).parameters
    }


PUBLIC = public()


def test_every_public_function_has_its_row_and_every_argument_its_kind():
    assert set(ROWS) == set(PUBLIC)
    assert {n: set(row) for n, row in ROWS.items()} == {
        n: set(inspect.signature(f).parameters) for n, f in PUBLIC.items()
    }


def test_functions_take_at_most_four_arguments_by_position():
    for name, function in PUBLIC.items():
        kinds = [p.kind for p in inspect.signature(function).parameters.values()]
        by_position = len(kinds) - kinds.count(inspect.Parameter.KEYWORD_ONLY)
        assert inspect.isclass(function) or by_position <= 4, name


def good_call(name: str) -> dict[str, Any]:
    parameters = inspect.signature(PUBLIC[name]).parameters
    return {a: ROWS[name][a].good for a, p in parameters.items() if p.default is p.empty}


CASES = {
    f"{name}-{argument}-{what}": (name, argument, value)
    for name, row in ROWS.items()
    for argument, kind in row.items()
    for what, value in kind.bad.items()
}


@pytest.fixture
def without_computing(monkeypatch):
    """Fail where a loop of the package is traced, or an ensemble run: the refusal comes too late."""

    def reached(*_, **__):
        pytest.fail("reached the computation")

    for owner, name in (
        (jax.lax, "scan"),
        (jax.lax, "while_loop"),
        (ProfileEnsemble, "run"),
        (ProfileEnsemble, "pilot"),
    ):
        monkeypatch.setattr(owner, name, reached)


@pytest.mark.parametrize(("name", "argument", "value"), CASES.values(), ids=CASES)
@pytest.mark.usefixtures("without_computing")
def test_refused_with_its_name(name, argument, value):
    with pytest.raises((ValueError, TypeError, OSError)) as error:
        PUBLIC[name](**good_call(name) | {argument: value})
    told = str(error.value)
    assert "\n" not in told
    assert f"`{argument}`" in told or TOLD.get(argument, "?") in told or (value is MISSING and str(MISSING) in told)


TRACED = {name: {a: k for a, k in row.items() if k.traced} for name, row in ROWS.items()}


@pytest.mark.parametrize("name", [name for name, row in TRACED.items() if row])
def test_refused_with_its_name_under_jit(name):
    row = TRACED[name]
    sizes = {a: ROWS[name][a].good for a in ("resolution", "options") if a in ROWS[name]}
    known = {a: v for a, v in good_call(name).items() if a not in row} | sizes
    compiled = jax.jit(lambda traced: jax.tree.leaves(PUBLIC[name](**known, **traced)))
    good = {argument: jnp.asarray(kind.good, float) for argument, kind in row.items()}
    jax.block_until_ready(compiled(good))
    for argument, kind in row.items():
        for what, value in kind.traced.items():
            with pytest.raises((ValueError, RuntimeError)) as error:
                jax.block_until_ready(compiled(good | {argument: jnp.asarray(value, float)}))
            assert f"`{argument}`" in str(error.value), what
