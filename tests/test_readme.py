"""The README's table of equations, its quick start and its commands hold."""

import ast
import pkgutil
import re
import runpy
from pathlib import Path

import jax
import pytest

pytestmark = pytest.mark.optimized

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
ROW = re.compile(
    r"^\| (?P<what>[^|]+) \| `(?P<function>jaxkinetic[\w.]+)` \| `(?P<test>tests/[\w/.]+::\w+)` \|$", re.M
)
ROWS = [match.groupdict() for match in ROW.finditer(README)]


def test_every_row_of_the_table_is_read() -> None:
    table = README.split("## Equation, function, test")[1].split("\n## ")[0]
    assert len(ROWS) == len([line for line in table.splitlines() if line.startswith("|")]) - 2
    assert len(ROWS) > 20


@pytest.mark.parametrize("row", ROWS, ids=[row["what"].strip() for row in ROWS])
def test_functions_and_tests_of_the_table_exist(row: dict[str, str]) -> None:
    place = pkgutil.resolve_name(row["function"])
    assert callable(place)
    file, test = row["test"].split("::")
    tree = ast.parse((ROOT / file).read_text())
    assert test in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_quick_start_runs(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    code = README.split("## Quick start")[1].split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) <= 12
    script = tmp_path / "quick_start.py"
    script.write_text(code)
    runpy.run_path(str(script))
    assert jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]
    printed = capsys.readouterr().out
    assert "4096 tokens" in printed
    assert "0.2592" in printed
    assert "False" in printed


def test_architecture_lists_every_file() -> None:
    listed = set(re.findall(r"^ +(\w+\.py) ", README, re.M))
    assert listed == {p.name for p in (ROOT / "jaxkinetic").rglob("*.py") if p.name != "__init__.py"}
