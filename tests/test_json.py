"""What is written as JSON is read back as it was, and nothing else is built."""

import dataclasses
import json
import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import jaxkinetic as jk
from jaxkinetic._json import decode, encode, to_json


def through_text(value):
    return decode(json.loads(json.dumps(encode(value), allow_nan=False)))


@pytest.mark.parametrize(
    "value",
    [
        np.array([1 / 3, -0.0, np.nan, np.inf, 5e-324]),
        np.array([[True, False]]),
        np.array([[1, 2**53 + 1]], np.int64),
        np.array([0.1, -np.inf], np.float32),
        np.array([1 + 2j, np.nan - 1j]),
        np.zeros((0, 3)),
        np.float64(0.1),
        jnp.array([0.1, 0.7]),
        jnp.asarray(3),
    ],
)
def test_arrays_keep_every_bit(value):
    found = through_text(value)
    assert isinstance(found, np.ndarray) == (not hasattr(value, "devices"))
    assert found.dtype == value.dtype
    assert found.shape == value.shape
    assert np.asarray(found).tobytes() == np.asarray(value).tobytes()


def test_plain_data_keeps_its_kind():
    value = {"class": [1, 2.5, None, "nan"], "tuple": (True, ("a",)), "inf": [math.inf, -math.inf]}
    found = through_text(value)
    assert found == value
    assert isinstance(found["tuple"][0], bool)
    assert math.isnan(through_text(math.nan))


def test_models_and_results_are_read_back(tmp_path: Path):
    model = jk.CausalAttention(jk.ExpCosine(1.3), jk.ALiBi(0.7))
    shape = jk.u_shape(model, 1.0, 8)
    shape.to_json(tmp_path / "shape.json")
    found = jk.load(tmp_path / "shape.json")
    assert isinstance(found, jk.UShape)
    assert repr(found) == repr(shape)
    to_json(model, tmp_path / "model.json")
    again = jk.load(tmp_path / "model.json")
    ours, theirs = (jk.retrieval_profile(m, 1.0, 8, sources=[0.2, 0.8]).values for m in (again, model))
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "\x00",
        '{"class": "os:system", "fields": {}}',
        '{"class": "jaxkinetic.inference.fit.intervals:threshold", "fields": {}}',
        '{"class": "jaxkinetic.inference.fit.intervals:Interval", "fields": {"low": 1.0}}',
        '{"class": "jaxkinetic.no_such_module:Interval", "fields": {}}',
        '{"array": [1, 2], "dtype": "float64", "shape": [3], "kind": "numpy"}',
        '{"array": [1, "a"], "dtype": "float64", "shape": [2], "kind": "numpy"}',
        '{"other": 1}',
    ],
)
def test_what_is_no_result_is_refused(tmp_path: Path, text: str):
    path = tmp_path / "damaged.json"
    path.write_text(text)
    with pytest.raises(ValueError, match="must hold a result written by `to_json`"):
        jk.load(path)


def test_what_is_no_data_is_not_written(tmp_path: Path):
    @dataclasses.dataclass
    class Foreign:
        x: int

    path = tmp_path / "result.json"
    path.write_text("before")
    for value in (Foreign(1), {1: 2}, np.array(["a"]), {3}):
        with pytest.raises(ValueError, match="cannot be written as JSON"):
            to_json(value, path)
    assert path.read_text() == "before"
