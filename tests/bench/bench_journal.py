"""What do the journal, the log and the metrics cost, for each decision?

    python tests/bench/bench_journal.py [--decisions 20000]

Prints CPU microseconds a decision (five checks, twelve rules): on the worker's loop and in the journal's thread; how
long the loop of a worker stands still while the thread writes 5,000 decisions a second; and how fast a journal of the
given size is searched. Asserts nothing: machines differ.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import threading
import time
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from elemta.findings import Finding, Result
from elemta.journal import Reader, expire
from elemta.journal.dispatch import dispatch
from elemta.journal.entry import row
from elemta.observe import Log, MailLog, Metrics, exposition
from elemta.observe.metrics import prepare
from harness.decisions import POLICY, decision
from harness.journal import JournalWriter

CHECKS = ("spf", "iprev", "dkim", "dmarc", "dnsbl")


def decisions(count):
    """Decisions that differ in what is indexed."""
    fields = {"domain": "sender.test", "helo": "none", "ttl": 300}
    findings = tuple(Finding(name, Result.PASS, "authorised by ip4:192.0.2.0/24", fields) for name in CHECKS)
    headers = ((b"Received", b" from a by b"),) * 10 + ((b"From", b" a@sender.test"), (b"Message-ID", b" <1@x.test>"))
    return [
        decision(
            sender=f"s{number}@sender.test", recipients=(f"r{number % 5000}@here.test",), queue_id=f"{number:012X}",
            findings=findings, trace=[0] * 12, headers=headers, timings=dict.fromkeys(CHECKS, 0.001), policy="cafe00",
        )
        for number in range(count)
    ]  # fmt: skip


def cost(work, items):
    """CPU microseconds of `work(item)`."""
    began = time.process_time()
    for item in items:
        work(item)
    return (time.process_time() - began) / len(items) * 1e6


def line(what, amount, unit="us"):
    print(f"{what:<58}{amount:10.2f} {unit}")


def of_the_journal(directory, given):
    packed = []
    line("journal: packing, where the mail waits", cost(lambda each: packed.append(dispatch(each)), given))
    line("journal: making rows, in the process that writes", cost(row, packed))
    path = f"{directory}/journal.db"
    writer = JournalWriter(path, print, bound=len(given))
    writer.policy("cafe00", POLICY)
    began, cpu = time.perf_counter(), time.process_time()
    for each in given:
        writer.decided(each)
    writer.open()
    writer.close(120)
    line("journal: all of it, CPU", (time.process_time() - cpu) / len(given) * 1e6)
    line("journal: all of it, by the clock", (time.perf_counter() - began) / len(given) * 1e6)
    line("journal: on disk", Path(path).stat().st_size / len(given), "octets")
    reader = Reader(path)
    for name, value in (("sender", "s77@sender.test"), ("recipient", "r77@here.test"), ("rule", "spoofed")):
        line(f"journal: search by {name}", cost(lambda _, by={name: value}: reader.search(**by), range(20)))
    line("journal: find by reference", cost(lambda each: reader.find(each.id), given[:200]))
    began = time.perf_counter()
    gone = expire(path, time.time() + 1, 1000)
    line("journal: expiring a slice of 1,000", (time.perf_counter() - began) * 1000, "ms")
    assert gone == 1000


def of_the_log(given):
    sink = os.open(os.devnull, os.O_WRONLY)
    for form in ("text", "json"):
        line(f"log: a line, {form}", cost(MailLog(Log(form, fd=sink)).decided, given))


def of_the_metrics(directory, given):
    prepare(directory, "milter")
    metrics = Metrics(directory, "milter")
    line("metrics: counting", cost(metrics.decided, given))
    began = time.process_time()
    metrics.flush()
    line("metrics: handing over, with every decision of the run", (time.process_time() - began) / len(given) * 1e6)
    line("metrics: handing over nothing, each second", cost(lambda _: metrics.flush(), range(200)))
    line("metrics: a page", cost(lambda _: exposition(directory), range(20)) / 1000, "ms")
    metrics.close()


def standstill(directory, given, rate=5000):
    """How late a timer of the loop is while the journal's thread is at work, at `rate` decisions a second."""
    for with_journal in (False, True):
        writer = JournalWriter(f"{directory}/standstill.db", print, bound=len(given) + 1)
        if with_journal:
            writer.open()
        late = []

        async def run(writer=writer, late=late):
            place = 0
            began = time.perf_counter()
            while place < len(given):
                due = began + (place + 5) / rate
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                late.append(time.perf_counter() - due)
                for each in given[place : place + 5]:
                    writer.decided(each)
                place += 5

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run())
        if with_journal:
            writer.close(120)
        late.sort()
        name = "with" if with_journal else "without"
        for part in (0.5, 0.99, 0.999):
            line(f"loop late at {rate:,}/s, {name} the journal, {part:.1%}", late[int(len(late) * part)] * 1000, "ms")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--decisions", type=int, default=20_000)
    given = decisions(parser.parse_args().decisions)
    threading.current_thread().name = "loop"
    with tempfile.TemporaryDirectory() as directory:
        of_the_journal(directory, given)
        of_the_log(given)
        of_the_metrics(directory, given)
        standstill(directory, given)


if __name__ == "__main__":
    main()
