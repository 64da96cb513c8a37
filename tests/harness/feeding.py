"""Feeding: how fast does a Postfix take mails, twenty sessions side by side?"""

import subprocess
import time

from harness.postfix import PrivatePostfix


def feed(postfix: PrivatePostfix, mails: int, *options: str) -> float:
    """Mails a second that were taken, by smtp-source; `options` are its own (-l SIZE, -F FILE, -f SENDER …).

    Returns when the queue is empty again: else the deliveries of one Postfix would be paid for by the next that is
    measured, the faster the first was the more.
    """
    began = time.perf_counter()
    command = ["smtp-source", "-s", "20", "-m", str(mails), "-d", *options, "-t", "rcpt@example.org"]
    subprocess.run([*command, f"127.0.0.1:{postfix.port}"], check=True)
    rate = mails / (time.perf_counter() - began)
    postfix.wait_empty()
    return rate
