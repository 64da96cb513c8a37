"""Every file in tests/cases/bad-config/ is refused with exactly the text in the .want beside it.

To add a case: write NN-name.yaml, run `elemta config check NN-name.yaml` in that folder, and if the text is what an
administrator needs, save it as NN-name.want (the folder's own path as HERE).  ELEMTA_REWRITE=1 writes all .want files.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from elemta.config.load import loaded_and
from elemta.config.problems import ConfigErrors
from elemta.policy import Policy

CASES = Path(__file__).parents[2] / "cases" / "bad-config"
ENVIRONMENT = {"HOST_NAME": "mx.test", "WORKERS": "2"}


def test_there_are_cases():
    assert len(list(CASES.glob("*.yaml"))) >= 48


@pytest.mark.parametrize("path", sorted(CASES.glob("*.yaml")), ids=lambda path: path.stem)
def test_bad_config(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    with pytest.raises(ConfigErrors) as errors:
        loaded_and(Policy.compile, path.name, ENVIRONMENT)
    text = str(errors.value).replace(str(path.parent), "HERE") + "\n"
    want = path.with_suffix(".want")
    if os.environ.get("ELEMTA_REWRITE"):
        want.write_text(text)
    assert text == want.read_text()
    assert errors.value.status == os.EX_CONFIG
