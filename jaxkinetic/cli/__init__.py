"""The command line: parses, calls, writes. The only place that touches global JAX configuration."""

import sys

import tyro

import jaxkinetic
from jaxkinetic.cli.common import explain
from jaxkinetic.cli.design import design
from jaxkinetic.cli.estimate import estimate
from jaxkinetic.cli.fit import fit
from jaxkinetic.cli.limit import limit
from jaxkinetic.cli.particles import figures, simulate
from jaxkinetic.cli.phase import phase
from jaxkinetic.cli.posterior import posterior
from jaxkinetic.cli.profile import profile
from jaxkinetic.cli.sensitivity import sensitivity
from jaxkinetic.cli.sweep import sweep

app = tyro.extras.SubcommandApp()
for command in (fit, posterior, profile, limit, estimate, sensitivity, phase, design, simulate, figures):
    app.command(command)
app.command(sweep, name="sweep", help="Run, watch, draw and extend grids of estimates that survive interruptions.")


def main() -> None:
    """Run the command line; errors in what the user gave are one line and exit code 2."""
    if sys.argv[1:] == ["--version"]:
        print(jaxkinetic.__version__)
        return
    try:
        app.cli(
            prog="jaxkinetic",
            description="Causal self-attention as interacting particles: lost in the middle. "
            "`jaxkinetic --version` prints the version.",
        )
    except KeyboardInterrupt:
        print("jaxkinetic: interrupted", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(_fail(str(error)))
    except (RuntimeError, AssertionError) as error:
        message = explain(error)
        if message is None:
            raise
        sys.exit(_fail(message))


def _fail(message: str) -> int:
    print(f"jaxkinetic: error: {message}", file=sys.stderr)
    return 2
