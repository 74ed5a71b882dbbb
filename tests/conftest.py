"""Configuration of the suite; it must run before jaxkinetic is imported."""

import atexit
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

os.environ.setdefault("MPLBACKEND", "Agg")


def _share_and_speed_up_compilation() -> None:
    """Set up what workers and the programs that tests start inherit: most of the suite's time is compilation.

    All share what has been compiled, small programs too, and the next run starts anew. XLA's older emitters compile
    in half the time; a version that does not know a flag ends the process, so that one is asked first.
    """
    folder = tempfile.mkdtemp(prefix="jaxkinetic-tests-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", folder)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    flags = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
    quick = os.environ | {"XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()}
    asked = subprocess.run([sys.executable, "-c", "import jax; jax.devices()"], env=quick, capture_output=True)
    if asked.returncode == 0:
        os.environ["XLA_FLAGS"] = quick["XLA_FLAGS"]


def _take_cores_of_its_own(worker: int, n_workers: int) -> None:
    """Pin a worker to its share of the cores: threads that wait for one another must not wait for other workers."""
    if hasattr(os, "sched_setaffinity"):
        mine = sorted(os.sched_getaffinity(0))[worker::n_workers]
        if mine:
            os.sched_setaffinity(0, mine)


if "PYTEST_XDIST_WORKER" not in os.environ:
    _share_and_speed_up_compilation()
else:
    _take_cores_of_its_own(
        int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    )

import hypothesis
import jax
import jaxtyping
import pytest

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")

# Shapes and dtypes of every annotated function and field are checked while the tests run; an int is a float.
jaxtyping.install_import_hook("jaxkinetic", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")


# The first example of a property may compile; how long that takes says nothing about the property.
hypothesis.settings.register_profile("compiled", deadline=None)
hypothesis.settings.load_profile("compiled")


@pytest.fixture(autouse=True, scope="module")
def _executables_of_one_file() -> Iterator[None]:
    """Drop compiled programs after each file: a worker that keeps them all maps gigabytes of code."""
    yield
    jax.clear_caches()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--share", default="0/1", metavar="I/N", help="every N-th slow test and every N-th file of fast ones"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of other shares, which CI takes in turns: slow ones one by one, fast ones by file."""
    given = re.fullmatch(r"(\d+)/([1-9]\d*)", str(config.getoption("share")))
    if given is None:
        raise pytest.UsageError("--share must be I/N, as in 0/3")
    place, shares = map(int, given.groups())
    slow, files = [item for item in items if "slow" in item.keywords], list(dict.fromkeys(i.path for i in items))
    left_out = {item for i, item in enumerate(slow) if i % shares != place % shares}
    left_out |= {i for i in items if "slow" not in i.keywords and files.index(i.path) % shares != place % shares}
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]


_compiled = {"quickly": False}


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Compile without XLA's costly passes where a test computes little, in the programs that it starts as well.

    A fixture would come after those of the whole file, which compute with what the test before was given.
    """
    quick = not {"slow", "optimized"} & set(item.keywords)
    os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = str(int(quick))
    if quick != _compiled["quickly"]:
        # The last digit of what was compiled the other way may differ from that of the programs that are started.
        jax.clear_caches()
        jax.config.update("jax_disable_most_optimizations", quick)
        _compiled["quickly"] = quick


@pytest.fixture
def as_installed() -> Iterator[None]:
    """Run without the shape checker, as users do: errors must come from the package itself."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
