"""Causal self-attention as an interacting particle system: simulation, kinetic limit, retrieval, inference.

The public names stand in `__init__.pyi`, from which they are loaded on first use: the command line's help
need not wait for JAX.
"""

from typing import Any

import lazy_loader

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version(__name__)
    return _load(name)
