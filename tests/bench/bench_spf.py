"""What does one SPF evaluation cost, and what does pyspf take for the same?

    python tests/bench/bench_spf.py [EVALUATIONS]

CPU time per evaluation of a record with five includes of twelve networks each; the DNS answers from memory in both,
so that only the evaluators are compared.  Prints microseconds and ratios; asserts only that both agree.
"""

import asyncio
import contextlib
import sys
import time
import warnings
from ipaddress import ip_address

from elemta.dns import Answer, Status
from elemta.spf import check_host
from elemta.spf.record import parse

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import spf

SENDER, HELO = "bounces+user=example.net@example.org", "mx7.example.net"
CLIENTS = {"listed in the last include": "198.51.4.178", "not listed": "203.0.113.9"}
ROUNDS = 5


def texts():
    zone = {"example.org": ["site-verification=abcdef", "v=spf1 " + includes() + " -all"]}
    for number in range(5):
        nets = " ".join(f"ip4:198.51.{number}.{part * 16}/28" for part in range(12))
        zone[f"_spf{number}.example.net"] = [f"v=spf1 {nets} ip6:2001:db8:{number}::/48 ~all"]
    return zone


def includes():
    return " ".join(f"include:_spf{number}.example.net" for number in range(5))


class Warm:
    """A resolver with every answer at hand."""

    def __init__(self, zone):
        self.answers = {
            (name, "TXT"): Answer(Status.OK, tuple(text.encode() for text in found), 300)
            for name, found in zone.items()
        }

    async def query(self, name, rdtype):
        return self.answers.get((name, rdtype)) or Answer(Status.NXDOMAIN)


def by_elemta(zone, client, count, *, cold=False):
    resolver, ip = Warm(zone), ip_address(client)

    async def run():
        for _ in range(count):
            if cold:
                parse.__globals__["_parse_cached"].cache_clear()
            result = await check_host(resolver, ip, "example.org", SENDER, HELO)
        return result.result

    return timed(lambda: asyncio.run(run()), count)


def by_pyspf(zone, client, count):
    answers = {name: [((name, "TXT"), (text.encode(),)) for text in found] for name, found in zone.items()}

    def run():
        for _ in range(count):
            result = spf.query(i=client, s=SENDER, h=HELO).check()[0]
        return result

    spf.DNSLookup = lambda name, rdtype, *_: answers.get(name, []) if rdtype == "TXT" else []
    return timed(run, count)


def timed(run, count):
    """Give the result and the least CPU microseconds per evaluation of some rounds."""
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.process_time()
        result = run()
        best = min(best, (time.process_time() - started) / count * 1e6)
    return result, best


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    zone = texts()
    for case, client in CLIENTS.items():
        result, warm = by_elemta(zone, client, count)
        _, cold = by_elemta(zone, client, max(1, count // 10), cold=True)
        other, pyspf = by_pyspf(zone, client, max(1, count // 10))
        assert result == other
        print(
            f"{case} ({result}): elemta {warm:.1f} us, with every record parsed anew {cold:.1f} us, "
            f"pyspf {pyspf:.1f} us: {pyspf / warm:.1f} and {pyspf / cold:.1f} times as fast"
        )


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
