"""The demonstration of `make run`: does it end well, and what does it tell?"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from harness.postfix import why_not
from harness.smtp import Session

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


def test_the_mail_that_it_says_to_send_is_accepted():
    """The options of swaks are read, and what they mean is sent: the tests need no swaks."""
    options = argparse.ArgumentParser()
    for name in ("server", "xclient-addr", "xclient-name", "from", "to"):
        options.add_argument(f"--{name}", default="")
    command = [sys.executable, TESTS / "demo" / "demo.py"]
    environment = os.environ | {"PYTHONPATH": str(TESTS)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        try:
            line = next(line for line in demo.stdout if line.strip().startswith("swaks "))
            told = vars(options.parse_args(shlex.split(line)[1:]))
            host, port = told["server"].split(":")
            client = {"addr": told["xclient_addr"], "name": told["xclient_name"]} if told["xclient_addr"] else None
            with Session((host, int(port)), xclient=client) as session:
                outcome = session.send(told["from"], told["to"], "Subject: hello\n\nHello.\n")
        finally:
            demo.terminate()
    assert outcome.final.code == 250, outcome
