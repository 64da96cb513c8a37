"""The demonstration of `make run`: does it end well, and what does it tell?"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.postfix import why_not

pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")]

TESTS = Path(__file__).parents[1]


def test_every_verdict_is_as_expected_and_one_is_explained():
    done = subprocess.run(
        [sys.executable, TESTS / "demo" / "demo.py", "--once"],
        env=os.environ | {"PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if "@example." in line]
    assert [words for row in rows for words in ("accept", "reject", "defer") if words in row] == [
        "accept", "reject", "defer", "accept", "accept",
    ]  # fmt: skip
    assert "(softfail, shadow)" in rows[4]
    explanation = done.stdout[done.stdout.index("$ elemta explain") :]
    assert "spoofed" in explanation
    assert "spf" in explanation
