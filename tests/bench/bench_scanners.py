"""What does a mail cost us when clamd scans it, and what when clamd is dead?

    python tests/bench/bench_scanners.py [--rounds 40]

A real clamd with two signatures, so that its own time is small; mails of 5 KB, 100 KB and 5 MB (spooled, as in the
milter) through the check `clamav`, by descriptor and by octets: time from question to answer, and processor time of
our process alone.  Then a clamd that is not there, its breaker open: the whole decision of the engine.  Then clamd and
Rspamd for the same mails, each alone and both: they work side by side, so both should take as long as the slower one.
Fails when the 5 MB by descriptor cost 40 ms of our processor time or more, or the dead clamd 1 ms a mail.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from elemta.case import Case
from elemta.check import UNTIL
from elemta.engine import Engine
from elemta.facts import Message
from elemta.testing import message, policy, tools
from elemta_milter.body import Spool
from elemta_milter.checks.clamav import Clamav, ClamavOptions
from harness.clamd import Clamd, why_not
from harness.rspamd import PrivateRspamd
from harness.rspamd import why_not as rspamd_missing

LINE = b"A line of a mail as people write it, of seventy characters or so.\r\n"
SIZES = {"5 KB": 5_000, "100 KB": 100_000, "5 MB": 5_000_000}
MOST_CPU, MOST_DEAD = 40.0, 1.0  # milliseconds


def mail(size: int) -> Message:
    spool = Spool(tempfile.gettempdir())
    spool.append(LINE * (size // len(LINE)))
    return replace(message(), body=spool.finish())


async def scanned(options: ClamavOptions, size: int, rounds: int) -> tuple[float, float]:
    """Milliseconds of time and of processor time a mail; of the latter the median of single mails."""
    check = Clamav(options, tools())
    await check.open()
    times, cpu = [], []
    for _ in range(rounds + 3):
        facts = mail(size)  # anew, since its header is kept once made
        UNTIL.set(time.monotonic() + 60)
        began, spent = time.perf_counter(), time.process_time()
        found = await check.run(facts, {})
        times.append((time.perf_counter() - began) * 1e3)
        cpu.append((time.process_time() - spent) * 1e3)
        assert found.result == "pass", found
    await check.close()
    return statistics.median(times[3:]), statistics.median(cpu[3:])


async def dead(mails: int) -> float:
    """Milliseconds of time a mail; what the same mail costs without the check is in it."""
    of = policy("host: mx.test\nchecks: {clamav: {socket: unix:/nowhere/clamd.ctl}}\n")
    engine = Engine(of, tools())
    await engine.open()
    facts = mail(5_000)
    for _ in range(5):
        await Case(engine, 25.0).message(facts)
    began = time.perf_counter()
    for _ in range(mails):
        decision = await Case(engine, 25.0).message(facts)
        assert "not asked" in decision.findings[0].reason, decision.findings
    took = (time.perf_counter() - began) / mails * 1e3
    await engine.close()
    return took


async def decided(checks: str, size: int, rounds: int) -> list[float]:
    """Milliseconds of each decision with these checks."""
    engine = Engine(policy(f"host: mx.test\nchecks: {{{checks}}}\n"), tools())
    await engine.open()
    times = []
    for _ in range(rounds + 2):
        facts = mail(size)
        began = time.perf_counter()
        decision = await Case(engine, 60.0).message(facts)
        times.append((time.perf_counter() - began) * 1e3)
        assert not any(finding.trouble for finding in decision.findings), decision.findings
    await engine.close()
    return times[2:]


def side_by_side(rounds: int) -> None:
    """Print what clamd and Rspamd take alone and together, turn about so that a busy machine harms all alike."""
    with Clamd(tcp="127.0.0.1") as clamd, PrivateRspamd() as rspamd:
        scanners = {"clamd": f"clamav: {{socket: {clamd.address}}}", "Rspamd": f"rspamd: {{url: {rspamd.url}}}"}
        scanners["both"] = ", ".join(scanners.values())
        for title, size in SIZES.items():
            times: dict[str, list[float]] = {name: [] for name in scanners}
            for _ in range(5):
                for name, checks in scanners.items():
                    times[name] += asyncio.run(decided(checks, size, max(1, rounds // 5)))
            took = {name: statistics.median(of) for name, of in times.items()}
            ratio = took["both"] / max(took["clamd"], took["Rspamd"])
            told = ", ".join(f"{name} {milliseconds:.1f} ms" for name, milliseconds in took.items())
            print(f"{title:>7}: {told}: {ratio:.2f} of the slower one (wanted 1.1)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    given = parser.parse_args()
    spent = 0.0
    if why_not():
        print(f"{why_not()}: scans are left out")
    else:
        with Clamd(tcp="127.0.0.1") as clamd:
            ways = {
                "descriptor": ClamavOptions(socket=clamd.address, mode="fildes"),
                "octets, unix": ClamavOptions(socket=clamd.address, mode="instream"),
                "octets, TCP": ClamavOptions(socket=clamd.inet),
            }
            for title, size in SIZES.items():
                for way, options in ways.items():
                    took, cpu = asyncio.run(scanned(options, size, given.rounds))
                    print(f"{title:>7}, by {way:13} {took:7.2f} ms, of our processor time {cpu:6.2f} ms", flush=True)
                    if title == "5 MB" and way == "descriptor":
                        spent = cpu
    waited = asyncio.run(dead(2000))
    print(f"a dead clamd, breaker open: {waited:.3f} ms a mail, everything else that is decided included")
    if why_not() or rspamd_missing():
        print(f"{why_not() or rspamd_missing()}: both at once is left out")
    else:
        side_by_side(given.rounds)
    if spent >= MOST_CPU or waited >= MOST_DEAD:
        sys.exit("too much")


if __name__ == "__main__":
    main()
