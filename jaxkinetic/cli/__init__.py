"""The command line: parses, calls, writes. The only place that touches global JAX configuration."""

import sys
import warnings

import tyro

import jaxkinetic
from jaxkinetic.cli.common import explain
from jaxkinetic.cli.design import design
from jaxkinetic.cli.estimate import estimate
from jaxkinetic.cli.fit import fit
from jaxkinetic.cli.limit import limit
from jaxkinetic.cli.output import reader_has_left, show
from jaxkinetic.cli.particles import figures, simulate
from jaxkinetic.cli.phase import phase
from jaxkinetic.cli.posterior import posterior
from jaxkinetic.cli.profile import profile
from jaxkinetic.cli.sensitivity import sensitivity
from jaxkinetic.cli.sweep import sweep

COMMANDS = (fit, posterior, profile, limit, estimate, sensitivity, phase, design, simulate, figures)


def main() -> None:
    """Run the command line; errors in what the user gave are one line and exit code 2."""
    for stream in (sys.stdout, sys.stderr):
        # Names and help may hold characters that the terminal's encoding lacks.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
    code = 0
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_, **__: _say(f"warning: {message}")
            _parse_and_run(sys.argv[1:])
    except KeyboardInterrupt as stop:
        code = _say(f"interrupted. {stop}".removesuffix(". "), 130)
    except MemoryError as error:
        code = _say(f"error: There is not enough memory: {error}")
    except (ValueError, OSError, ImportError) as error:
        code = _say(f"error: {error}")
    except (RuntimeError, AssertionError) as error:
        message = explain(error)
        if message is None:
            raise
        code = _say(f"error: {message}")
    if code:
        sys.exit(code)


def _parse_and_run(arguments: list[str]) -> None:
    if arguments == ["--version"]:
        show(jaxkinetic.__version__, sys.stdout)
        return
    # The list of commands has one line on each, `COMMAND --help` all of it.
    brief = not any(name in arguments for name in ("sweep", *(function.__name__ for function in COMMANDS)))
    app = tyro.extras.SubcommandApp()
    for function in COMMANDS:
        first_line = (function.__doc__ or "").partition("\n")[0]
        app.command(name=function.__name__, help=first_line if brief else None)(function)
    app.command(sweep, name="sweep", help="Run, watch, draw and extend grids of estimates, safe to interrupt.")
    try:
        app.cli(
            prog="jaxkinetic",
            description="Causal self-attention as interacting particles: lost in the middle. "
            "`jaxkinetic --version` prints the version.",
        )
    except BrokenPipeError:
        if not reader_has_left(sys.stdout):
            raise
    finally:
        # Help goes past `show`; what is left of it is written here.
        show("", sys.stdout)


def _say(message: str, code: int = 2) -> int:
    """Print one line on standard error and return the exit code."""
    show(f"jaxkinetic: {' '.join(message.split())}", sys.stderr)
    return code
