"""The examples in docstrings print what they say."""

import doctest
import importlib
import inspect
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

import jaxkinetic as jk
from jaxkinetic import plotting

ROOT = Path(__file__).parents[1]
# Names that every example may use without importing them.
KNOWN = {"jax": jax, "jk": jk, "jnp": jnp, "np": np, "plotting": plotting}


def examples() -> dict[str, str]:
    """Docstrings with an example, of functions, classes and methods; a file without any is not imported."""
    found = {}
    for file in sorted((ROOT / "jaxkinetic").rglob("*.py")):
        if ">>>" not in file.read_text():
            continue
        module = importlib.import_module(".".join(file.relative_to(ROOT).with_suffix("").parts))
        for name, thing in vars(module).items():
            if getattr(thing, "__module__", None) != module.__name__:
                continue
            methods = vars(thing) if inspect.isclass(thing) else {}
            for path, part in [(name, thing), *((f"{name}.{key}", method) for key, method in methods.items())]:
                text = getattr(part, "__doc__", None)
                if isinstance(text, str) and ">>>" in text:
                    found[f"{module.__name__}.{path}"] = text
    return found


EXAMPLES = examples()


def test_examples_are_found():
    assert "jaxkinetic.retrieval.decoder.decode" in EXAMPLES
    assert "jaxkinetic.plotting.prompts.plot_circle" in EXAMPLES


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_prints_what_it_says(name):
    test = doctest.DocTestParser().get_doctest(EXAMPLES[name], dict(KNOWN), name, None, None)
    report = []
    doctest.DocTestRunner(verbose=False).run(test, out=report.append)
    plt.close("all")
    assert not report, "".join(report)
