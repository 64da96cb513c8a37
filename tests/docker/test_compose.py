"""The first deployment: does `docker compose up` give a Postfix whose mail is judged?"""

from __future__ import annotations

import gc
import json
import os
import re
import socket
import subprocess
import time
import warnings
from pathlib import Path

import docker.errors
import pytest
from testcontainers.compose import DockerCompose

import docker
from harness.smtp import Session

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
MESSAGE = """\
From: Alice <alice@example.com>
To: bob@example.org
Subject: through the containers
Authentication-Results: mx1.example.org; spf=pass smtp.mailfrom=forged@example.com

Hello.
"""


def no_engine():
    try:
        client = docker.from_env()
        try:
            client.ping()
        finally:
            client.close()
    except (docker.errors.DockerException, OSError) as error:
        why = f"no Docker engine answers: {error}"
    else:
        return ""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()  # the client that could not be made leaves its socket open
    return why


@pytest.fixture(scope="module")
def stack():
    if reason := no_engine():
        pytest.skip(reason)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TESTCONTAINERS_RYUK_DISABLED", "true")
        patch.setenv("COMPOSE_PROJECT_NAME", f"elemta-test-{os.getpid()}")  # beside a stack that is in use
        patch.setenv("ELEMTA_SMTP_PORT", str(port))
        compose = DockerCompose(context=ROOT, build=True, wait=True)
        try:
            compose.start()
            compose.port = port
            yield compose
        except Exception:
            print(*compose.get_logs(), sep="\n")
            raise
        finally:
            compose.stop(down=True)


def send(stack, sender):
    with Session(("127.0.0.1", stack.port), helo="mail.example.com") as session:
        return session.send(sender, "bob@example.org", MESSAGE)


def wait_for(stack, service, *command):
    """What the command prints, as soon as it succeeds."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return stack.exec_in_container(list(command), service)[0]
        except subprocess.CalledProcessError as error:
            if time.monotonic() > deadline:
                raise AssertionError(f"{error}: {error.stdout}{error.stderr}") from error
        time.sleep(0.2)


def explained(stack, reference):
    return json.loads(wait_for(stack, "elemta-milter", "elemta", "explain", "--json", reference))


def test_a_mail_is_judged_delivered_and_explained(stack):
    outcome = send(stack, "alice@example.com")
    assert outcome.accepted, outcome
    assert explained(stack, outcome.queue_id)
    mail = wait_for(stack, "postfix", "bash", "-c", "cat /var/mail/vhosts/mail/new/*")
    results = re.findall(r"(?m)^Authentication-Results: (.*(?:\n[ \t].*)*)", mail)
    assert len(results) == 1, mail
    assert mail.endswith("\nHello.\n")
    assert results[0].startswith("mx1.example.org;")
    assert "forged" not in mail


def test_a_refusal_names_a_reference_that_can_be_explained(stack):
    outcome = send(stack, "blocked@example.com")
    assert outcome.final.code == 550
    reference = re.search(r"Reference (\w+)", outcome.final.text)[1]
    assert "blocked" in json.dumps(explained(stack, reference))


def test_nobody_in_the_elemta_containers_is_root(stack):
    for service in ("elemta-milter", "elemta-policyd"):
        out, _, status = stack.exec_in_container(["cat", "/proc/1/status"], service)
        assert status == 0
        assert re.search(r"(?m)^Uid:\s+10026\s", out)
        assert re.search(r"(?m)^CapEff:\s+0+$", out)
