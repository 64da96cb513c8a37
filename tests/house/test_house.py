"""The rules of this house, held by tests: documents that match the code, modules that say what they are for."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from elemta.plugins import find_checks

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(Path(__file__).parent))

import roadmap  # noqa: E402

LONGEST = 320  # lines of a module; over 300 asks for a split
MODULES = [path for folder in roadmap.FOLDERS for path in roadmap.modules(folder)]
NAMES = [str(path.relative_to(ROOT)) for path in MODULES]


def test_the_road_map_is_the_tree():
    text = (ROOT / "README.md").read_text()

    assert text[text.index(roadmap.TITLE) + len(roadmap.TITLE) :] == roadmap.roadmap(), "run `make docs`"


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_a_module_says_what_it_is_for_and_is_not_too_long(path):
    lines = path.read_text().splitlines()

    assert roadmap.first_line(path), "a docstring whose first line is the question the module answers"
    assert len(lines) <= LONGEST


def test_no_package_shadows_pymilter():
    """`milter/` and `tests/milter/` with an __init__.py would hide pymilter's C module of that name."""
    for folder in ("milter", "policyd", "tests", "tests/milter", "tests/policyd"):
        assert not (ROOT / folder / "__init__.py").exists()


@pytest.mark.parametrize("name", sorted(find_checks()))
def test_every_check_is_documented_and_tested(name):
    check = find_checks()[name]
    module = check.__module__.rpartition(".")[2]

    assert (check.__doc__ or "").partition("\n")[0].endswith("?"), "the first line is the question it answers"
    assert f"`{name}`" in (ROOT / "docs" / "configuration.md").read_text(), "run `make docs`"
    assert any(module in path.name for path in (ROOT / "tests").rglob("test_*.py")), f"no test_*{module}*.py"
    for field in check.fields.values():
        assert field.doc


def test_every_rfc_that_the_code_cites_is_in_the_table():
    table = (ROOT / "milter" / "README.md").read_text()
    cited = {number for path in MODULES for number in re.findall(r"RFC (\d{3,5})", path.read_text())}

    assert {number for number in cited if not re.search(rf"\b{number}\b", table)} == set()


def test_checks_do_nothing_that_is_the_engines():
    """No logging, no clocks, no broad `except` in a check: the engine does that for all of them."""
    for path, name in zip(MODULES, NAMES, strict=True):
        if "/checks/" not in name:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, name
                assert not (isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")), name
            if isinstance(node, ast.Import):
                assert not {alias.name for alias in node.names} & {"logging", "prometheus_client"}, name


def test_parameters_of_sql_that_come_twice_have_names():
    """Python 3.12.3, Ubuntu 24.04's, warns of `?1` with a sequence, and warnings are errors in tests."""
    assert [name for path, name in zip(MODULES, NAMES, strict=True) if re.search(r"[=(] ?\?\d", path.read_text())] == []


def test_the_changelog_has_what_is_not_released_yet():
    assert "## Unreleased" in (ROOT / "CHANGELOG.md").read_text()


def test_layers():
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout[-3000:]
