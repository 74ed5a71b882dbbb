"""Configuration of a sweep: a grid of ensembles, and the goals at which each point is done.

beta = [0.5, 1, 2]          # the grid: beta, lam, time, n_tokens, vocab_size, law, estimator; one value or a list
n_tokens = [64, 128]
n_prompts = 1024            # prompts at each point, and/or
standard_error = 0.01       # the standard error to reach at the worst source

[laws.mine]                 # your own prompt laws, by name
waves = [{ n = 1, cos = [0.6], turn = 2 }]
"""

import dataclasses
import functools
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxkinetic._types import check_at_least, check_finite, check_positive, check_positive_number, check_seed
from jaxkinetic.law_table import LAWS, build_law, check_keys, number, read_toml
from jaxkinetic.model import ALiBi, CausalAttention, ExpCosine, PromptLaw
from jaxkinetic.particles.ensemble import BLOCK, Moments
from jaxkinetic.retrieval.estimators import Estimator
from jaxkinetic.retrieval.profile_ensemble import (
    ProfileEnsemble,
    bytes_per_prompt,
    choose_control,
    choose_estimator,
    prepare_profile,
    source_tokens,
)
from jaxkinetic.retrieval.steps import CONSTANT_STEPS, check_steps
from jaxkinetic.retrieval.window import Accuracy

DIMS = ("beta", "lam", "time", "n_tokens", "vocab_size", "law", "estimator")
GOALS = ("n_prompts", "standard_error", "max_prompts")
_INTEGERS = ("n_tokens", "vocab_size")
_CUSTOM = "custom"
_MOST = 2**20
# Prompts are numbered, and tokens counted, in 32 bits.
_MOST_PROMPTS = 2**32
_MOST_TOKENS = 2**31 - 1
# 8 GiB in double precision.
_MOST_RESULTS = 2**30
# Beyond, e^{-lam / N} is 0 for any N that fits into memory: each token attends to one other alone.
_LARGEST_LAM = 10**6
# Velocities are of the size of beta; no solve resolves steps over many of its inverses.
_LONGEST_STEP = 100


@dataclasses.dataclass(frozen=True)
class Point:
    """One point of the grid: its index in the arrays of the store, and its parameters."""

    index: tuple[int, ...]
    beta: float
    lam: float
    time: float
    n_tokens: int
    vocab_size: int
    law: str
    estimator: str

    def __str__(self) -> str:
        return ", ".join(f"{name} = {getattr(self, name)}" for name in DIMS)


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """A grid of retrieval profiles from particles.

    Each of the first seven attributes is a value or a list of values; the grid is their product.

    Prompt p draws from ``fold_in(key(seed), p)`` at every point, as in `estimate_profile`. All points share these
    random numbers, so that their errors are correlated.

    Attributes:
        beta: sharpness of attention.
        lam: positional bias lambda, at most 1e6 in size.
        time: depth t > 0.
        n_tokens: number of tokens N.
        vocab_size: vocabulary size M of the decoder.
        law: names of prompt laws, "uniform", "smooth", "codewords" or keys of ``laws``; or a table, named "custom".
        estimator: "auto", "naive", "glauber" or "adjoint".
        laws: tables of prompt laws by name, as `jaxkinetic.law_table` reads them.
        sources: positions sigma_0 in (0, 1); "all" for every token before the last.
        accuracy: the decoder, "soft" (1.5) or "hard" (1.4).
        control_variate: whether to subtract the limit's prediction where there is one.
        seed: seed of the prompts, in [0, 2^63).
        joint: whether to keep the covariance between sources, which makes the store S times as large.
        n_steps: constant steps to depth t. If None, the first prompts of each point choose them such that their
            error is far below the standard error of 65536 prompts.
        n_prompts: prompts at each point, a multiple of 32; with a target error, the fewest. By default 1024, or
            one chunk with a target error.
        standard_error: target for the largest standard error over the sources, checked after each chunk.
        max_prompts: most prompts to spend on the target, a multiple of 32; 2^20 if None.
        chunk: prompts per commit, a multiple of 32. It affects only where a target stops.

    Raises:
        ValueError: on values for which there is no estimate, and on unknown names.
    """

    beta: Any = 1.0
    lam: Any = 1.0
    time: Any = 1.0
    n_tokens: Any = 256
    vocab_size: Any = 8
    law: Any = "uniform"
    estimator: Any = "auto"
    laws: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    sources: Any = tuple(i / 10 for i in range(1, 10))
    accuracy: str = "soft"
    control_variate: bool = True
    joint: bool = False
    seed: int = 0
    n_steps: int | None = None
    n_prompts: int | None = None
    standard_error: float | None = None
    max_prompts: int | None = None
    chunk: int = 1024

    def __post_init__(self):
        self._take_laws()
        for name in DIMS:
            self._set(name, _values(name, getattr(self, name)))
        self._take_sources()
        self._check_numbers()
        self._check_goals()
        if self.accuracy not in ("soft", "hard"):
            raise ValueError(f"Argument `accuracy` must be 'soft' or 'hard', but is {self.accuracy!r}.")
        for name in ("control_variate", "joint"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"Argument `{name}` must be true or false, but is {getattr(self, name)!r}.")
        for name in ("seed", "n_steps", "n_prompts", "max_prompts", "chunk"):
            value = getattr(self, name)
            self._set(name, None if value is None else int(value))
        for law, estimator in itertools.product(self.law, self.estimator):
            self.chosen_estimator(law, estimator)
        for n_tokens in self.n_tokens:
            self.positions(n_tokens)

    def _take_laws(self) -> None:
        if not isinstance(self.laws, Mapping):
            raise ValueError(f"Argument `laws` must be a table of laws by name, but is {self.laws!r}.")
        laws = dict(self.laws)
        if isinstance(self.law, Mapping):
            laws[_CUSTOM] = self.law
            self._set("law", _CUSTOM)
        for name, table in laws.items():
            if not name.isprintable():
                raise ValueError(f"Argument `laws` must have names that can be printed, but has {name!r}.")
            if name in LAWS:
                raise ValueError(f"Argument `laws` must leave {', '.join(LAWS)} as they are, but gives {name}.")
            build_law(table)
        # With lists for tuples, as they will be read from a store.
        self._set("laws", json.loads(json.dumps(laws)))

    def _take_sources(self) -> None:
        if isinstance(self.sources, str):
            if self.sources != "all":
                raise ValueError(f"Argument `sources` must be 'all' or positions, but is {self.sources!r}.")
        else:
            given = np.atleast_1d(np.asarray(self.sources, dtype=object)).tolist()
            self._set("sources", tuple(number(s, "sources") for s in given))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _check_numbers(self) -> None:
        for name in ("beta", "time"):
            check_positive(name, np.asarray(getattr(self, name)))
        check_finite("lam", np.asarray(self.lam))
        if (largest := max(self.lam, key=abs)) and abs(largest) > _LARGEST_LAM:
            raise ValueError(f"Argument `lam` must lie in [-1e6, 1e6], but is {largest}.")
        if max(self.beta) * max(self.time) > (most := _LONGEST_STEP * CONSTANT_STEPS // 2):
            raise ValueError(
                f"Arguments `beta` and `time` must have a product of at most {most}, which {CONSTANT_STEPS // 2} "
                f"steps do not resolve, but have {max(self.beta)} * {max(self.time)}."
            )
        for name in _INTEGERS:
            for value in getattr(self, name):
                check_at_least(name, value, 2)
                _check_most(name, value, _MOST_TOKENS)
            self._set(name, tuple(int(value) for value in getattr(self, name)))
        n_results = math.prod(self.shape) * self.n_sources ** (2 if self.joint else 1)
        if n_results > _MOST_RESULTS:
            raise ValueError(
                f"A sweep must have at most {_MOST_RESULTS} results, points times sources{' squared' * self.joint}"
                f", but this one has {n_results}."
            )
        check_seed(self.seed)
        if self.n_steps is not None:
            check_steps(self.n_steps)
        _check_blocks("chunk", self.chunk)

    def _check_goals(self) -> None:
        if self.standard_error is None:
            if self.max_prompts is not None:
                raise ValueError("Argument `max_prompts` must come with `standard_error`, but none is asked for.")
            self._set("n_prompts", 1024 if self.n_prompts is None else self.n_prompts)
            _check_blocks("n_prompts", self.n_prompts)
            return
        self._set("standard_error", number(self.standard_error, "standard_error"))
        check_positive("standard_error", self.standard_error)
        fewest = self.chunk if self.n_prompts is None else self.n_prompts
        _check_blocks("n_prompts", fewest)
        most = max(_MOST, fewest) if self.max_prompts is None else self.max_prompts
        _check_blocks("max_prompts", most)
        check_at_least("max_prompts", most, fewest)
        self._set("n_prompts", fewest)
        self._set("max_prompts", most)

    def _asked_sources(self, n_tokens: int) -> Any:
        return np.arange(1, n_tokens) / n_tokens if self.sources == "all" else np.asarray(self.sources)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of values along each dimension of the grid."""
        return tuple(len(getattr(self, name)) for name in DIMS)

    @property
    def n_sources(self) -> int:
        """Largest number of sources at any point."""
        return max(self.n_tokens) - 1 if self.sources == "all" else len(self.sources)

    def points(self) -> Iterator[Point]:
        """The points in the order of computation; the last dimension varies fastest."""
        for index in np.ndindex(*self.shape):
            yield Point(index, *(getattr(self, name)[i] for name, i in zip(DIMS, index, strict=True)))

    def positions(self, n_tokens: int) -> np.ndarray:
        """Positions i / N of the source tokens, (S,)."""
        return (source_tokens(self._asked_sources(n_tokens), n_tokens, True) + 1) / n_tokens

    def law_table(self, name: str) -> Any:
        """The table of a prompt law, by name."""
        known = {**LAWS, **self.laws}
        if name not in known:
            check_keys({name: None}, tuple(known), "`law`")
        return known[name]

    def build_law(self, name: str) -> PromptLaw:
        """A prompt law, by name."""
        return build_law(self.law_table(name))

    def build_model(self, point: Point) -> CausalAttention:
        """The model at a point."""
        return CausalAttention(ExpCosine(point.beta), ALiBi(point.lam))

    def describe_model(self) -> dict[str, Any]:
        """Names of kernel and positional weights, and the values of their parameters."""
        model = self.build_model(next(self.points()))
        return {
            "kernel": {"name": type(model.kernel).__name__, "parameters": {"beta": list(self.beta)}},
            "positions": {"name": type(model.positions).__name__, "parameters": {"lam": list(self.lam)}},
        }

    def chosen_estimator(self, law: str, estimator: str) -> Estimator:
        """The estimator that is used for a law.

        Raises:
            ValueError: if the one asked for is not valid for the law.
        """
        return _chosen_estimator(json.dumps(self.law_table(law)), estimator, self.accuracy)  # pyright: ignore

    def prepare(self, point: Point) -> ProfileEnsemble:
        """The ensemble of a point, ready to run.

        Raises:
            ValueError: if the point cannot be computed; it names the point.
        """
        try:
            return prepare_profile(
                self.build_model(point), point.time, point.vocab_size, point.n_tokens,
                prompts=self.build_law(point.law),
                estimator=point.estimator,
                control_variate=None if self.control_variate else False,
                sources=self._asked_sources(point.n_tokens),
                accuracy=self.accuracy,  # pyright: ignore[reportArgumentType]
            )  # fmt: skip
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"The point {point} cannot be computed: {one_line(error)}") from error

    def bytes_per_prompt(self, point: Point) -> float:
        """Working memory of one prompt at a point."""
        chosen = self.chosen_estimator(point.law, point.estimator)
        n_sources = self.positions(point.n_tokens).size
        return bytes_per_prompt(self.build_model(point), point.n_tokens, n_sources, chosen)

    def is_done(self, moments: Moments | None) -> bool:
        """Whether a point with these moments has reached its goals."""
        if moments is None or moments.count < (self.n_prompts or 0):
            return False
        if self.standard_error is None or moments.count >= (self.max_prompts or 0):
            return True
        return bool(np.all(moments.standard_error <= self.standard_error))

    def next_chunk(self, count: int) -> int:
        """Size of the chunk after ``count`` prompts; it ends at a multiple of ``chunk`` or at a goal."""
        goal = (self.n_prompts or 0) if count < (self.n_prompts or 0) else (self.max_prompts or 0)
        return min(goal, (count // self.chunk + 1) * self.chunk) - count

    def replace(self, **changes: Any) -> "SweepConfig":
        """The same sweep with some attributes changed."""
        return dataclasses.replace(self, **changes)

    def record(self) -> dict[str, Any]:
        """All attributes as JSON holds them, such that ``SweepConfig(**record)`` is equal."""
        return {
            field.name: list(value) if isinstance(value := getattr(self, field.name), tuple) else value
            for field in dataclasses.fields(self)
        }


def read_config(path: Path) -> SweepConfig:
    """Read the configuration of a sweep from a TOML file.

    Raises:
        ValueError: as `read_toml` and `SweepConfig`.
    """
    return SweepConfig(**read_toml(path, [field.name for field in dataclasses.fields(SweepConfig)]))


@functools.lru_cache(maxsize=256)
def _chosen_estimator(table: str, estimator: str, accuracy: Accuracy) -> Estimator:
    prompts = build_law(json.loads(table))
    chosen = choose_estimator(prompts, estimator, accuracy)
    choose_control(None, prompts, chosen, accuracy)
    return chosen


def _values(name: str, given: Any) -> tuple[Any, ...]:
    """The values along a dimension; they must differ."""
    several = isinstance(given, Sequence | np.ndarray) and not isinstance(given, str)
    values = np.asarray(given, dtype=object).tolist() if several else [given]
    if not values:
        raise ValueError(f"Argument `{name}` must be a value or a list of values, but is {given!r}.")
    if name in ("law", "estimator"):
        for value in values:
            if not isinstance(value, str):
                raise ValueError(f"Argument `{name}` must be a name or a list of names, but holds {value!r}.")
    elif name not in _INTEGERS:
        values = [number(value, name) for value in values]
    if len(set(values)) < len(values):
        raise ValueError(f"Argument `{name}` must hold different values, but is {values}.")
    return tuple(values)


def check_goals(*, standard_error: float | None = None, **prompts: int | None) -> None:
    """Raise unless every goal that is given is one: an error above zero, or blocks of prompts."""
    if standard_error is not None:
        check_positive_number("standard_error", standard_error)
    for name, value in prompts.items():
        if value is not None:
            _check_blocks(name, value)


def _check_blocks(name: str, value: Any) -> None:
    """Raise unless a number of prompts is a positive multiple of the block size."""
    check_at_least(name, value, BLOCK)
    _check_most(name, value, _MOST_PROMPTS)
    if value % BLOCK:
        raise ValueError(f"Argument `{name}` must be a multiple of {BLOCK}, but is {value}.")


def _check_most(name: str, value: int, most: int) -> None:
    if value > most:
        raise ValueError(f"Argument `{name}` must be at most {most}, but is {value}.")


def one_line(error: BaseException) -> str:
    """The first line of an error's message."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
