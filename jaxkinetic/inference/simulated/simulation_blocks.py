"""Blocks of a fit by simulation: what they add up to, and the file from which a fit goes on."""

import hashlib
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxkinetic.inference.lines import best_line

_LONGEST = 0.5
_FIRST_SHARE = 4


def counted(n_blocks: int) -> slice:
    """Blocks that count: all but the first, which does not move, and but the first quarter."""
    return slice(min(max(1, n_blocks // _FIRST_SHARE), n_blocks - 1), n_blocks)


class Weighted(NamedTuple):
    """Measured curves as rectangles (C, P): fractions, inverse variances, the place of each position's token."""

    accuracy: Float[np.ndarray, "curve position"]
    weight: Float[np.ndarray, "curve position"]
    token: Int[np.ndarray, "curve position"]


class Blocks(NamedTuple):
    """All blocks so far, in order, and where the next one begins.

    Attributes:
        means: mean coordinates of each block, (B, 2).
        shapes: mean values of the shape, (B, S).
        jacobians: Jacobians at the blocks' starts over two halves of the prompts, (B, 2, S, 2).
        limits: the limit's Jacobian at the center, zero where there is no control, (B, S, 2).
        cut: whether steps were cut at an end of the range, (B, 2).
        end: coordinates after the last step, (2,).
        center: coordinates round which the control is expanded, (2,).
        optimizer: leaves of the optimizer's state.
    """

    means: Float[np.ndarray, "block 2"]
    shapes: Float[np.ndarray, "block source"]
    jacobians: Float[np.ndarray, "block 2 source 2"]
    limits: Float[np.ndarray, "block source 2"]
    cut: np.ndarray
    end: Float[np.ndarray, "2"]
    center: Float[np.ndarray, "2"]
    optimizer: list[np.ndarray]

    @property
    def tail(self) -> slice:
        """Blocks that count; see `counted`."""
        return counted(len(self.means))

    def add(self, found: dict[str, Any], end: Any, optimizer: list[np.ndarray]) -> "Blocks":
        """These blocks and one more."""
        longer = {k: np.concatenate([getattr(self, k), np.asarray(new)[None]]) for k, new in found.items()}
        return self._replace(**longer, end=np.asarray(end), optimizer=optimizer)


class Elimination(NamedTuple):
    """Best lines c0 + c1 S through the curves, and what the shape's Jacobian leaves beside them.

    Attributes:
        offset: c0 of each curve, (C,).
        contrast: c1 >= 0 of each curve, (C,).
        residual: accuracy less the line, (C, P).
        beside: c1 times the Jacobian in u, less its part along constants and the shape, over two halves of the
            prompts, (2, C, P, 2).
        instrument: the same, shrunk towards the limit's by as much as noise makes up their distance, (2, C, P, 2).
    """

    offset: Float[np.ndarray, " curve"]
    contrast: Float[np.ndarray, " curve"]
    residual: Float[np.ndarray, "curve position"]
    beside: Float[np.ndarray, "2 curve position 2"]
    instrument: Float[np.ndarray, "2 curve position 2"]

    def gain(self, data: Weighted) -> Float[np.ndarray, "curve position 2"]:
        """Matrix from residuals to the descent direction of half of chi-squared."""
        return data.weight[:, :, None] * self.instrument.mean(axis=0)

    def information(self, data: Weighted) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """M, B and the noise of M, (2, 2) each: gain^T (residual) = 0 has the root's covariance M^{-1} B M^{-T}.

        M is the derivative of the equation in u, without bias: each half of the instrument with the other half of
        the Jacobian. B is the covariance of the equation's left side. Both are the Fisher information if the
        instrument is the Jacobian.
        """
        one, other = (
            np.einsum("cp,cpi,cpj->ij", data.weight, a, b)
            for a, b in zip(self.instrument, self.beside[::-1], strict=True)
        )
        mean = self.instrument.mean(axis=0)
        return (one + other) / 2, np.einsum("cp,cpi,cpj->ij", data.weight, mean, mean), np.abs(one - other) / 2

    def step(self, shape: np.ndarray, data: Weighted, whiten: np.ndarray) -> Float[np.ndarray, "2"]:
        """One Gauss-Newton step in u from values of the shape that are independent of the Jacobian."""
        rest = data.accuracy - self.contrast[:, None] * shape[data.token]
        return whiten @ whiten.T @ np.einsum("cpi,cp->i", self.gain(data), rest)


def eliminate(shape: np.ndarray, jacobians: np.ndarray, limit: np.ndarray, data: Weighted) -> Elimination:
    """Fit a line to every curve and project the Jacobian, and the limit's, beside it (variable projection)."""
    values = shape[data.token]
    line = best_line(values, data.accuracy, data.weight)
    slopes = np.moveaxis(np.stack([*jacobians, limit])[:, data.token], -1, 1)
    contrast = line.slope
    found = np.moveaxis(contrast[:, None] * line.beside(values, slopes, data.weight), 1, -1)
    beside, ideal = found[:2], found[2]
    noise = np.einsum("cp,cpi->i", data.weight, ((beside[0] - beside[1]) / 2) ** 2)
    away = np.einsum("cp,cpi->i", data.weight, ((beside[0] + beside[1]) / 2 - ideal) ** 2)
    trust = np.clip(1 - noise / np.maximum(away, np.finfo(float).tiny ** 0.5), 0, 1)
    return Elimination(
        line.offset, contrast, data.accuracy - line.at(values), beside, ideal + trust * (beside - ideal)
    )


def whitening(information: Float[np.ndarray, "2 2"]) -> Float[np.ndarray, "2 2"]:
    """Matrix L with L L^T the inverse of the information, where the data say too little of bounded length."""
    bounded = information + np.eye(2) / _LONGEST**2
    return np.linalg.inv(np.linalg.cholesky(bounded)).T


class Progress(NamedTuple):
    """Where the Polyak average stands.

    Attributes:
        mean: average over the tail, (2,).
        noise: its Monte Carlo covariance by batch means, (2, 2); infinite for fewer than two blocks.
        error: Monte Carlo error over the data's own standard error, at worst over directions.
        drift: distance between the averages of the tail's halves, in its Monte Carlo errors.
        shift: the same in the data's standard errors.
        step: how far the average is from where prompts were run, likewise.
    """

    mean: Float[np.ndarray, "2"]
    noise: Float[np.ndarray, "2 2"]
    error: float
    drift: float
    shift: float
    step: float


def progress(
    means: Float[np.ndarray, "block 2"], estimates: Float[np.ndarray, "block 2"], whiten: Float[np.ndarray, "2 2"]
) -> Progress:
    """Average the estimates of the tail's blocks and ask how far the average may be off."""
    count, mean = len(estimates), estimates.mean(axis=0)

    def errors(u):
        return float(np.linalg.norm(np.linalg.solve(whiten, u)))

    step = errors(mean - means.mean(axis=0))
    if count < 4:
        return Progress(mean, np.full((2, 2), np.inf), np.inf, np.inf, np.inf, step)
    noise = np.cov(estimates.T) / count
    white = np.linalg.solve(whiten, np.linalg.solve(whiten, noise).T)
    error = float(np.sqrt(np.linalg.eigvalsh(white).max()))
    apart = estimates[count // 2 :].mean(axis=0) - estimates[: count // 2].mean(axis=0)
    drift = float(np.sqrt(apart @ np.linalg.pinv(4 * noise) @ apart))
    return Progress(mean, noise, error, drift, errors(apart), step)


# The file ------------------------------------------------------------------------------------------------


def digest(*parts: Any) -> str:
    """Fingerprint of a configuration: names, numbers, arrays to ten digits."""
    found = hashlib.sha256()
    for part in parts:
        array = np.asarray(part)
        text = str(part) if array.dtype.kind in "OUS" else " ".join(f"{x:.10e}" for x in array.ravel())
        found.update(f"{array.shape} {text};".encode())
    return found.hexdigest()


def save(path: Path, blocks: Blocks, configuration: str) -> None:
    """Write the file aside and put it in place at once, so that a kill leaves the old one or the new one."""
    arrays = {name: value for name, value in blocks._asdict().items() if name != "optimizer"}
    arrays |= {f"optimizer_{i}": leaf for i, leaf in enumerate(blocks.optimizer)}
    aside = path.with_name(path.name + ".part")
    with aside.open("wb") as file:
        np.savez(file, configuration=np.array(configuration), **arrays)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def load(path: Path, configuration: str) -> Blocks:
    """Read the file back.

    Raises:
        ValueError: if it is no such file, or one of another configuration.
    """
    try:
        with path.open("rb") as opened, np.load(opened) as file:
            stored = {name: file[name] for name in file.files}
        found = str(stored.pop("configuration"))
        leaves = [stored.pop(f"optimizer_{i}") for i in range(sum(n.startswith("optimizer_") for n in stored))]
        blocks = Blocks(**stored, optimizer=leaves)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"Argument `checkpoint` must be a checkpoint of a fit, but {path} is none.") from error
    if found != configuration:
        raise ValueError(
            f"Argument `checkpoint` must belong to this fit, but {path} is of another configuration: other curves, "
            "model, law, key or settings. Name another file."
        )
    return blocks
