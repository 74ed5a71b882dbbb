"""What the READMEs say exists and runs: equations and their tests, the list of files, the quick start, links."""

import ast
import pkgutil
import re
import runpy
import tomllib
from pathlib import Path

import jax
import pytest

pytestmark = pytest.mark.optimized

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
EQUATIONS = (ROOT / "tests/README.md").read_text().split("## Equation, function, test")[1].split("\n## ")[0]
ROW = re.compile(
    r"^\| (?P<what>[^|]+) \| `(?P<function>jaxkinetic[\w.]+)` \| `(?P<test>tests/[\w/.]+::\w+)` \|$", re.M
)
ROWS = [match.groupdict() for match in ROW.finditer(EQUATIONS)]
PAGES = [
    page
    for pattern in ("*.md", ".github/*.md", "jaxkinetic/*.md", "notebooks/*.md", "scripts/*.md", "tests/*.md")
    for page in sorted(ROOT.glob(pattern))
]


def test_every_row_of_the_table_is_read() -> None:
    assert len(ROWS) == len([line for line in EQUATIONS.splitlines() if line.startswith("|")]) - 2
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
    listed = set(re.findall(r"^ +(\w+\.py) ", (ROOT / "jaxkinetic/README.md").read_text(), re.M))
    assert listed == {p.name for p in (ROOT / "jaxkinetic").rglob("*.py") if p.name != "__init__.py"}


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)


def headings(page: Path) -> set[str]:
    """Anchors of a page as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_relative_links_resolve(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), target
        assert not anchor or anchor in headings(place), target


def test_readme_is_short() -> None:
    assert len(README.encode()) < 20_000


def test_citation_and_changelog_name_the_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## [{version}] - " in (ROOT / "CHANGELOG.md").read_text()
