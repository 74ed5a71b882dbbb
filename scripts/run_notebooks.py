"""Execute the notebooks from their percent scripts, and check that the paired .ipynb files are up to date.

python scripts/run_notebooks.py             # all of them
python scripts/run_notebooks.py 02 04       # those whose names begin so
python scripts/run_notebooks.py --write     # also write the paired .ipynb, without output
"""

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent.parent / "notebooks"


def cells(notebook: nbformat.NotebookNode) -> list[tuple[str, str]]:
    """Kind and text of every cell."""
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def run(script: Path) -> str:
    """Execute a notebook in a kernel of its own; what it took."""
    notebook, start = jupytext.read(script), time.perf_counter()
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(FOLDER)}}).execute()
    return f"{script.name}: {len(notebook.cells)} cells in {time.perf_counter() - start:.0f} s"


def main() -> None:
    """Check all pairs, then run two notebooks at a time; an error in one ends the run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[""], help="beginnings of the names to run")
    parser.add_argument("--write", action="store_true", help="write the paired .ipynb files")
    arguments = parser.parse_args()
    scripts = sorted(s for s in FOLDER.glob("*.py") if s.name.startswith(tuple(arguments.names)))
    for script in scripts:
        notebook, paired = jupytext.read(script), script.with_suffix(".ipynb")
        if arguments.write:
            jupytext.write(notebook, paired)
        if cells(nbformat.read(paired, as_version=4)) != cells(notebook):
            sys.exit(f"{paired.name} differs from {script.name}: run `python scripts/run_notebooks.py --write`")
    with ThreadPoolExecutor(2) as pool:
        for line in pool.map(run, scripts):
            print(line, flush=True)


if __name__ == "__main__":
    main()
