"""The arrays of a store: coordinates and results over the grid, as an xarray Dataset and in zarr."""

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxkinetic.sweep.config import DIMS, SweepConfig
from jaxkinetic.sweep.location import require

if TYPE_CHECKING:
    import xarray

_LABELS = {
    "beta": "sharpness of attention, beta",
    "lam": "positional bias, lambda",
    "time": "depth of the last layer, t",
    "n_tokens": "number of tokens, N",
    "vocab_size": "vocabulary size of the decoder, M",
    "law": "law of the prompts",
    "estimator": "estimator asked for",
}
RESULTS = ("count", "n_steps", "step_error", "mean", "m2")


def blank_dataset(config: SweepConfig) -> "xarray.Dataset":
    """The coordinates of a sweep, and its results before the first prompt: counts 0, everything else NaN."""
    n, every = config.n_sources, config.sources == "all"
    source = np.arange(1, n + 1) if every else np.asarray(config.sources)
    asked = "token i of the source" if every else "position sigma_0 asked for"
    sigma = np.full((len(config.n_tokens), n), np.nan)
    for row, n_tokens in zip(sigma, config.n_tokens, strict=True):
        here = config.positions(n_tokens)
        row[: here.size] = here
    coordinates: dict[str, Any] = {
        name: ([name], np.asarray(getattr(config, name)), _LABELS[name]) for name in DIMS
    }
    coordinates["source"] = (["source"], source, asked)
    coordinates["sigma_0"] = (["n_tokens", "source"], sigma, "position of the source, i / N")
    if config.joint:
        coordinates["other_source"] = (["other_source"], source, asked)
    pair = ["source", "other_source"] if config.joint else ["source"]
    squares = "products of deviations of two sources" if config.joint else "squared deviations"
    results: dict[str, Any] = {
        "count": ([], 0, "number of prompts"),
        "n_steps": ([], 0, "constant steps to depth t"),
        "step_error": ([], np.nan, "root-mean-square error of the steps in one prompt's values"),
        "mean": (["source"], np.nan, "mean over prompts"),
        "m2": (pair, np.nan, f"sum of {squares} from the mean over prompts"),
    }
    return require("xarray").Dataset(
        {
            name: ([*DIMS, *over], np.full((*config.shape, *[n] * len(over)), fill), _attrs(label))
            for name, (over, fill, label) in results.items()
        },
        {
            name: (dims, values, _attrs(label, values.dtype.kind == "U"))
            for name, (dims, values, label) in coordinates.items()
        },
    )


def lay_out(store: Any, config: SweepConfig) -> Any:
    """Make the arrays of a new sweep in a zarr store, in place of whatever it holds; return their group."""
    group = require("zarr").group(store, overwrite=True)
    empty = blank_dataset(config)
    for name, variable in empty.variables.items():
        text = variable.dtype.kind == "U"
        over = variable.shape[len(DIMS) :]
        array = group.create_array(
            name, shape=variable.shape, dtype=str if text else variable.dtype, dimension_names=variable.dims,
            # A point's means are a chunk of their own: a commit writes those of one point.
            chunks=(*[1] * len(DIMS), *over) if name in RESULTS and over else variable.shape,
            fill_value="" if text else np.nan if variable.dtype.kind == "f" else 0,
        )  # fmt: skip
        if name not in RESULTS:
            array[...] = variable.values.astype(object) if text else variable.values
        array.attrs.update(variable.attrs | ({"coordinates": "sigma_0"} if over else {}))
    return group


def _attrs(label: str, is_text: bool = False) -> dict[str, str]:
    return {"long_name": label} | ({} if is_text else {"units": "1"})
