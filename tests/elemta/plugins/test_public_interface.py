"""What plugins are written with: every public name is there, typed, documented, and cheap until it is used."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import elemta
from elemta import testing

ROOT = Path(__file__).resolve().parents[3]
DOCS = (ROOT / "docs" / "plugins.md").read_text()


@pytest.mark.parametrize("name", elemta.__all__)
def test_a_public_name_is_there_and_told_of(name):
    assert getattr(elemta, name) is not None
    assert name in dir(elemta)
    assert re.search(rf"`{name}\b", DOCS), "docs/plugins.md must tell of it"


@pytest.mark.parametrize("module", [elemta, testing], ids=lambda module: module.__name__)
def test_public_classes_and_functions_have_docstrings_and_types(module):
    for name in module.__all__:
        value = getattr(module, name)
        if not (inspect.isclass(value) or inspect.isfunction(value)) or not value.__module__.startswith("elemta"):
            continue
        assert value.__doc__, name
        functions = [value] if inspect.isfunction(value) else vars(value).values()
        for function in functions:
            ours = inspect.isfunction(function) and function.__module__.startswith("elemta")
            if ours and not function.__name__.startswith("_"):
                assert function.__doc__, f"{name}.{function.__name__}"
                asked = {*inspect.signature(function).parameters, "return"} - {"self", "cls"}
                assert asked <= function.__annotations__.keys(), f"{name}.{function.__name__}"


def test_the_version_is_that_of_the_documents():
    assert re.fullmatch(r"[0-9]+\.[0-9]+", elemta.API)
    assert f"API = {elemta.API}" in DOCS


def test_importing_elemta_imports_nothing_else():
    code = "import sys, elemta; print(sum(name.startswith(('elemta.', 'pydantic', 'dns')) for name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0"


def test_an_unknown_name_is_an_error():
    with pytest.raises(AttributeError, match="no attribute 'Chek'"):
        _ = elemta.Chek
    assert elemta.testing is testing, "modules are found as ever"


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "elemta" / "py.typed").exists()
