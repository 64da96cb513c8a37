"""What do a thousand rules over sets of a million entries cost a mail?

    python tests/bench/bench_rules.py [--rules 1000] [--entries 1000000]

Prints CPU milliseconds a mail for rules that ask sets of domains, of addresses and of networks, regular expressions,
comparisons and results, none of which matches, so that every rule is read; and the same with ten rules, as a baseline.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from elemta.case import Case
from elemta.config.load import load
from elemta.engine import Engine
from elemta.policy import Policy
from elemta.testing import FakeResolver, envelope, message, tools

KINDS = (
    "{{sender.domain: {{in: domains}}, spf: fail}}",
    "{{client.address: {{in: networks}}}}",
    "{{sender: {{in: addresses}}}}",
    "{{subject: {{regex: '(?i)offer {number}'}}}}",
    "{{recipient.count: {{gt: {number}}}, header_from.domain: {{not: {{fact: sender.domain}}}}}}",
    "{{client.name: {{glob: '*.dyn{number}.*'}}}}",
    "{{spf: fail, client.address: 10.{octet}.0.0/16}}",
    "{{header_from.domain: [a{number}.test, b{number}.test, c{number}.test]}}",
)


def make(rules: int, entries: int, directory: str) -> Policy:
    """A policy of so many rules over three sets of so many entries."""
    files = {
        "domains": (f"domain{number}.example" for number in range(entries)),
        "addresses": (f"user{number}@example.net" for number in range(entries)),
        "networks": (f"{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}.0/24" for number in range(entries)),
    }
    lines = ["host: mx.test.example", "checks: {spf: }", "sets:"]
    for name, members in files.items():
        path = Path(directory) / f"{name}.txt"
        path.write_text("\n".join(dict.fromkeys(members)) + "\n")
        lines.append(f"  {name}: {{file: {path}}}")
    lines += ["rules:", "  message:"]
    for number in range(rules):
        when = KINDS[number % len(KINDS)].format(number=number + 100, octet=number % 256)
        lines.append(f"    - {{id: r{number}, when: {when}, unless: {{login: u{number}}}, then: reject}}")
    policy = Path(directory) / "policy.yaml"
    policy.write_text("\n".join(lines))
    return Policy.compile(load(policy))


async def cost(policy: Policy, mails: int = 300) -> float:
    """CPU milliseconds a mail, rules only: the check is made once."""
    engine = Engine(policy, tools(FakeResolver({"sender.test": [("TXT", "v=spf1 ip4:203.0.113.0/24 ~all")]})))
    of = message(envelope("203.0.113.7", name="mx.static.test"), [("From", "a@sender.test"), ("Subject", "an offer")])
    cases = [Case(engine) for _ in range(mails)]
    for case in cases:
        case.start(of.envelope)
    await asyncio.sleep(0.2)
    began = time.process_time()
    for case in cases:
        decision = case.message_now(of)
        assert decision is not None
        assert not decision.verdict.rule
        assert len(decision.trace) == len(policy.rules["message"].rules)
    return (time.process_time() - began) / mails * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rules", type=int, default=1000)
    parser.add_argument("--entries", type=int, default=1_000_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        few = asyncio.run(cost(make(10, given.entries, directory)))
        began = time.perf_counter()
        policy = make(given.rules, given.entries, directory)
        loading = time.perf_counter() - began
        many = asyncio.run(cost(policy))
    print(f"loaded in {loading:.1f} s")
    print(f"10 rules: {few:.3f} ms a mail; {given.rules} rules: {many:.3f} ms a mail ({many / few:.1f} times as much)")


if __name__ == "__main__":
    main()
