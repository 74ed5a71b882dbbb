"""Many prompts: keyed by index, batched by a memory budget, shared among devices and processes.

Prompt p draws from ``fold_in(key, p)``, and statistics are reduced in blocks of fixed size in the order of p. So
results do not depend on batches, devices or restarts, and ensembles of disjoint prompts merge.
"""

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Float
from tqdm import tqdm

from jaxkinetic._show import Shown
from jaxkinetic._types import PRNGKeyArray, check_at_least, check_positive, check_type

BLOCK = 32
# Default memory budget in bytes on each device.
MEMORY = 2.0**30
_ROUND = 32
_DEVICES = 8
_LARGEST = 8192
# A key is folded with 32 bits of a prompt's index.
_INDICES = 2**32
Statistic = Callable[[Any, PRNGKeyArray], Float[Array, " statistic"]]


@dataclasses.dataclass(frozen=True, repr=False)
class Moments(Shown):
    """Count, mean and sum of squared deviations of an ensemble.

    Attributes:
        count: number of prompts.
        mean: mean of each statistic, (S,).
        m2: sum of squared deviations from the mean, (S,), or of their products, (S, S).
    """

    count: int
    mean: Float[np.ndarray, " statistic"]
    m2: Float[np.ndarray, "statistic ..."]

    # Squares that overflow are infinite, for whoever asked for the moments to refuse.
    @classmethod
    @np.errstate(over="ignore", invalid="ignore")
    def of(cls, values: Float[np.ndarray, "prompt statistic"], joint: bool = False) -> "Moments":
        """Moments of given values, in double precision; what overflows is not finite."""
        values = np.asarray(values, np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            mean = values.mean(axis=0)
            rest = values - mean
            return cls(len(values), mean, rest.T @ rest if joint else np.sum(rest**2, axis=0))

    @np.errstate(over="ignore", invalid="ignore")
    def merge(self, other: "Moments") -> "Moments":
        """Moments of the union of two ensembles (Chan, Golub and LeVeque 1979)."""
        count = self.count + other.count
        if not self.count or not other.count:
            return other if other.count else self
        if self.m2.shape != other.m2.shape:
            shapes = f"{self.m2.shape} and {other.m2.shape}"
            raise ValueError(f"Moments must be of the same statistics to merge, but m2 has shapes {shapes}.")
        with np.errstate(over="ignore", invalid="ignore"):
            step = other.mean - self.mean
            square = np.multiply.outer(step, step) if self.m2.ndim == 2 else step**2
            mean = self.mean + step * (other.count / count)
            return Moments(count, mean, self.m2 + other.m2 + square * (self.count * other.count / count))

    @property
    def standard_error(self) -> Float[np.ndarray, " statistic"]:
        """Standard error of each mean, (S,); infinite for a single prompt."""
        variance = np.diagonal(self.m2) if self.m2.ndim == 2 else self.m2
        if self.count < 2:
            return np.full(variance.shape, np.inf)
        return np.sqrt(variance / (self.count - 1) / self.count)

    @property
    def covariance(self) -> Float[np.ndarray, "statistic statistic"]:
        """Covariance matrix of the means, (S, S), of a joint ensemble."""
        if self.m2.ndim != 2:
            raise ValueError("The joint covariance was not asked for: run with `joint=True`.")
        if self.count < 2:
            return np.full(self.m2.shape, np.inf)
        return self.m2 / (self.count - 1) / self.count


def run_ensemble(
    statistic: Statistic,
    args: Any,
    key: PRNGKeyArray,
    n_prompts: int,
    *,
    first: int = 0,
    bytes_per_prompt: float = 2.0**20,
    memory: float = MEMORY,
    devices: Sequence[Any] | None = None,
    joint: bool = False,
    onto: Moments | None = None,
    progress: bool = False,
) -> Moments:
    """Mean and spread of a statistic over prompts ``first``, ..., ``first + n_prompts - 1``.

    Args:
        statistic: (args, key of the prompt) -> (S,), traceable; the same function compiles once.
        args: what it needs, a pytree.
        key: random key of the ensemble.
        n_prompts: number of prompts.
        first: index of the first prompt, a multiple of `BLOCK`.
        bytes_per_prompt: working memory of one prompt.
        memory: memory budget in bytes on each device, which sets how many prompts move at once.
        devices: local devices to share prompts among; all of this process if None. Of P processes
            (`jax.distributed`) each takes every P-th block, and all return the same moments.
        joint: whether to keep the covariance between statistics, (S, S).
        onto: moments of the prompts before ``first``, to be continued: the result includes them, and has the bits
            of one run over all prompts.
        progress: whether to show progress, rate and time left on a terminal.

    Returns:
        The moments, with the same bits for any number of devices and processes.

    Raises:
        ValueError: on fewer than one prompt, a first prompt within a block, prompts beyond 2^32, or no devices.
    """
    check_at_least("n_prompts", n_prompts, 1)
    check_positive("memory", memory)
    check_first(first)
    if first + n_prompts > _INDICES:
        raise ValueError(
            f"Arguments `first` and `n_prompts` must end at prompt 2^32 at most, but end at {first + n_prompts}."
        )
    chosen = local_devices(devices)
    begin, end = first // BLOCK, -(-(first + n_prompts) // BLOCK)
    most = min(largest_batch(chosen), (end - begin) * BLOCK)
    n_processes, cut = jax.process_count(), batch_size(bytes_per_prompt, memory, most)
    # Blocks per process in a round: whole batches for each device of a node.
    a_round = max(_ROUND, _DEVICES * cut // BLOCK)
    total = onto
    with tqdm(total=n_prompts, unit="prompt", disable=None if progress else True) as meter:
        # Round by round, so that memory does not grow with the number of prompts.
        for start in range(begin, end, a_round * n_processes):
            stop = min(end, start + a_round * n_processes)
            # A process without a block computes the first one, since all must exchange arrays of one shape.
            mine = list(range(start + jax.process_index(), stop, n_processes)) or [start]
            found = (
                Moments.of(values[: first + n_prompts - block * BLOCK], joint)
                for block, values in zip(mine, run_blocks(statistic, args, key, mine, chosen, cut), strict=True)
            )
            for block in found if n_processes == 1 else _exchange(list(found), stop - start):
                total = block if total is None else total.merge(block)
                meter.update(block.count)
    assert total is not None
    return total


def check_first(first: int) -> None:
    """Raise ValueError unless ``first`` begins a block."""
    check_at_least("first", first, 0)
    if first % BLOCK:
        raise ValueError(f"Argument `first` must be a multiple of {BLOCK}, but is {first}.")


def local_devices(devices: Sequence[Any] | None) -> tuple[Any, ...]:
    """The given devices, or all of this process."""
    given = jax.local_devices() if devices is None else devices
    chosen = tuple(given) if isinstance(given, Iterable) else (given,)
    for device in chosen:
        check_type("devices", device, jax.Device)
    if not chosen:
        raise ValueError("Argument `devices` must hold at least one device, but is empty.")
    return chosen


def largest_batch(devices: Sequence[Any]) -> int:
    """Most prompts to solve at once: a block on CPUs, where more only slow down, and many on accelerators."""
    return BLOCK if all(device.platform == "cpu" for device in devices) else _LARGEST


def batch_size(bytes_per_prompt: float, memory: float, most: int = BLOCK) -> int:
    """Prompts that a device solves at once: a power of two, at most ``most``, within the memory budget."""
    return 2 ** int(math.log2(min(max(memory / bytes_per_prompt, 1), most)))


def run_blocks(
    statistic: Statistic,
    args: Any,
    key: PRNGKeyArray,
    blocks: Sequence[int],
    devices: Sequence[Any],
    batch: int,
) -> Iterator[Float[np.ndarray, "prompt statistic"]]:
    """Yield the values of the statistic block by block; each device computes a batch at a time."""
    placed = [jax.device_put(eqx.filter((args, key), eqx.is_array), device) for device in devices]
    rest = eqx.filter((args, key), eqx.is_array, inverse=True)
    several = max(batch // BLOCK, 1)
    groups = [list(blocks[i : i + several]) for i in range(0, len(blocks), several)]

    def run(place: int, group: list[int]) -> np.ndarray:
        # Pad the last group, so that one program serves all.
        full = np.asarray(group + group[-1:] * (several - len(group)))
        indices = (full[:, None] * BLOCK + np.arange(BLOCK)[None, :]).reshape(-1)
        here = jnp.asarray(indices, jnp.uint32, device=devices[place])
        return np.asarray(_run(statistic, placed[place], rest, here, batch))

    # Threads, not one sharded call: the solvers' reverse passes do not run under `jax.shard_map` (equinox #1261).
    with ThreadPoolExecutor(len(devices)) as pool:
        for start in range(0, len(groups), len(devices)):
            some = groups[start : start + len(devices)]
            for group, values in zip(some, pool.map(run, range(len(devices)), some), strict=True):
                yield from values.reshape(several, BLOCK, -1)[: len(group)]


@eqx.filter_jit
def _run(statistic, arrays, rest, indices, batch):
    args, key = eqx.combine(arrays, rest)
    return jax.lax.map(lambda p: statistic(args, jax.random.fold_in(key, p)), indices, batch_size=batch)


def _exchange(found: list[Moments], n_blocks: int) -> list[Moments]:
    """Exchange blocks: process b mod P has computed block b, as its block b // P."""
    n_processes = jax.process_count()
    padded = found + found[:1] * (-(-n_blocks // n_processes) - len(found))
    # As bytes: doubles would be rounded to JAX's default precision on the way.
    columns = [
        np.stack([np.asarray(getattr(m, f.name), np.float64) for m in padded]) for f in dataclasses.fields(Moments)
    ]
    gathered = [multihost_utils.process_allgather(c.reshape(len(padded), -1).view(np.uint8)) for c in columns]
    counts, means, squares = (
        np.asarray(g).view(np.float64).reshape(n_processes, *c.shape)
        for g, c in zip(gathered, columns, strict=True)
    )
    places = [(b % n_processes, b // n_processes) for b in range(n_blocks)]
    return [Moments(int(counts[p]), means[p], squares[p]) for p in places]
