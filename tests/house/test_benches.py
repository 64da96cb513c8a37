"""Do the benches still begin?  They are no tests and are not run by them; what they import may have moved."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]


@pytest.mark.parametrize("bench", sorted((TESTS / "bench").glob("bench_*.py")), ids=lambda path: path.stem)
def test_a_bench_finds_what_it_measures(bench):
    read = "import runpy, sys; runpy.run_path(sys.argv[1])"  # as a module: `main` is not called
    told = subprocess.run(
        [sys.executable, "-c", read, str(bench)],
        env=os.environ | {"PYTHONPATH": f"{TESTS}:{bench.parent}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (told.returncode, told.stderr) == (0, "")
