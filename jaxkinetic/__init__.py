"""Causal self-attention as an interacting particle system: simulation, kinetic limit, retrieval, inference.

The public names stand in `__init__.pyi`, from which they are loaded on first use: the command line's help
need not wait for JAX.
"""

from importlib.metadata import version

import lazy_loader

__version__ = version(__name__)
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
