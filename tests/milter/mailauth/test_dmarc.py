import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta.addresses import authors
from elemta.dns import Answer, DnsError, Status
from elemta_milter.mailauth.dmarc import SpfInput, evaluate, judge_authors
from elemta_milter.mailauth.dmarc_discovery import Walker, discover, path
from elemta_milter.mailauth.dmarc_record import Policy


class Zone:
    """A resolver over {domain: DMARC record or list of them}; None: nobody answers for its _dmarc name."""

    def __init__(self, records, existing=()):
        self.txt = {f"_dmarc.{domain}": value for domain, value in records.items()}
        self.existing = set(existing)
        self.asked = []

    async def query(self, name, rdtype):
        self.asked.append(name)
        value = self.txt.get(name, ())
        if value is None:
            raise DnsError(name, rdtype, "no answer")
        if value and rdtype == "TXT":
            texts = [value] if isinstance(value, str) else value
            return Answer(Status.OK, tuple(text.encode() for text in texts))
        known = {*self.existing, *self.txt}
        exists = any(other == name or other.endswith("." + name) for other in known)
        return Answer(Status.NODATA if exists else Status.NXDOMAIN)


def run(zone, author, spf=("none", ""), dkim=(), **options):
    return asyncio.run(evaluate(zone, authors([f"<x@{author}>".encode()]), SpfInput(*spf), dkim, **options))


async def discovered(zone, domain):
    """The record that applies to a domain, and its organizational domain."""
    walker = Walker(zone)
    return await discover(walker, domain), await walker.organizational(domain)


def passed(*domains):
    return [("pass", domain) for domain in domains]


def test_the_path_of_the_tree_walk():
    assert path("a.mail.example.com") == ["a.mail.example.com", "mail.example.com", "example.com", "com"]
    assert path("com") == ["com"]
    assert path("a.b.c.d.e.f.g.h.i.j.mail.example.com") == [
        "a.b.c.d.e.f.g.h.i.j.mail.example.com",
        "g.h.i.j.mail.example.com",
        "h.i.j.mail.example.com",
        "i.j.mail.example.com",
        "j.mail.example.com",
        "mail.example.com",
        "example.com",
        "com",
    ]
    for labels in range(1, 40):
        walk = path(".".join("x" * labels))
        assert len(walk) == min(labels, 8)
        assert len(set(walk)) == len(walk)


@pytest.mark.parametrize(
    ("records", "domain", "org_domain", "place", "policy"),
    [
        ({"example.com": "v=DMARC1; p=reject"}, "example.com", "example.com", "example.com", "reject"),
        ({"example.com": "v=DMARC1; p=reject; sp=none"}, "a.example.com", "example.com", "example.com", "none"),
        (  # the author domain's own record wins, and its sp means nothing
            {"example.com": "v=DMARC1; p=reject", "a.example.com": "v=DMARC1; p=none; sp=reject"},
            "a.example.com",
            "example.com",
            "a.example.com",
            "none",
        ),
        (  # not the nearest record but the organizational domain's
            {"example.com": "v=DMARC1; p=reject", "b.example.com": "v=DMARC1; p=none"},
            "a.b.example.com",
            "example.com",
            "example.com",
            "reject",
        ),
        (
            {"example.com": "v=DMARC1; p=reject", "b.example.com": "v=DMARC1; p=none; psd=n"},
            "a.b.example.com",
            "b.example.com",
            "b.example.com",
            "none",
        ),
        (
            {"bank.example": "v=DMARC1; p=reject; psd=y"},
            "a.giant.bank.example",
            "giant.bank.example",
            "bank.example",
            "reject",
        ),
        (
            {"bank.example": "v=DMARC1; p=reject; psd=y", "giant.bank.example": "v=DMARC1; p=quarantine"},
            "mail.giant.bank.example",
            "giant.bank.example",
            "giant.bank.example",
            "quarantine",
        ),
        (
            {"bank.example": "v=DMARC1; p=reject; psd=y; np=none"},
            "bank.example",
            "bank.example",
            "bank.example",
            "reject",
        ),
        (  # a walk goes no further than psd=y
            {"bank.example": "v=DMARC1; p=reject; psd=y", "example": "v=DMARC1; p=none"},
            "giant.bank.example",
            "giant.bank.example",
            "bank.example",
            "reject",
        ),
        (  # a record that is neither the organizational domain's nor the public suffix's means nothing
            {"bank.example": "v=DMARC1; p=reject; psd=y", "b.giant.bank.example": "v=DMARC1; p=none"},
            "a.b.giant.bank.example",
            "giant.bank.example",
            "bank.example",
            "reject",
        ),
        ({"example.com": ["v=DMARC1; p=none", "v=DMARC1; p=reject"]}, "example.com", "example.com", "", None),
        ({"example.com": ["v=DMARC1; p=none", "v=spf1 -all"]}, "example.com", "example.com", "example.com", "none"),
        (
            {"a.example.com": ["v=DMARC1; p=none"] * 2, "example.com": "v=DMARC1; p=reject; sp=quarantine"},
            "a.example.com",
            "example.com",
            "example.com",
            "quarantine",
        ),
        ({}, "a.example.com", "a.example.com", "", None),
        ({"example.com": "v=DMARC1; p=what"}, "example.com", "example.com", "", None),
        (  # the far record of a deep name; those in between are not asked for
            {"example.com": "v=DMARC1; p=none", "f.g.h.i.example.com": "v=DMARC1; p=reject"},
            "a.b.c.d.e.f.g.h.i.example.com",
            "example.com",
            "example.com",
            "none",
        ),
    ],
)
def test_discovery(records, domain, org_domain, place, policy):
    zone = Zone(records, existing=[domain])
    found, above = asyncio.run(discovered(zone, domain))
    assert (above, found.policy_domain, found.policy) == (org_domain, place, policy)
    assert found.org_domain in {above, ""}
    assert found.trouble == ""
    assert bool(found.reason) == (policy is None)
    assert len([name for name in zone.asked if name.startswith("_dmarc.")]) <= 8


UNDER_DMARC = ["a._dmarc.new.example.com"]  # then the answer for _dmarc.new.example.com says that it exists


@pytest.mark.parametrize(
    ("record", "existing", "policy"),
    [
        ("v=DMARC1; p=reject; sp=none; np=quarantine", [], "quarantine"),
        ("v=DMARC1; p=reject; sp=none; np=quarantine", ["new.example.com"], "none"),
        ("v=DMARC1; p=reject; sp=none; np=quarantine", ["below.new.example.com"], "none"),  # RFC 8020
        ("v=DMARC1; p=none; np=reject", [], "reject"),
        ("v=DMARC1; p=none; np=reject", ["new.example.com"], "none"),
        ("v=DMARC1; p=none; np=reject", UNDER_DMARC, "none"),
        ("v=DMARC1; p=reject; sp=quarantine", [], "quarantine"),
    ],
)
def test_subdomains_that_do_not_exist(record, existing, policy):
    zone = Zone({"example.com": record}, existing)
    found, _ = asyncio.run(discovered(zone, "new.example.com"))
    assert (found.policy_domain, found.policy) == ("example.com", policy)
    assert ("new.example.com" in zone.asked) == ("np=" in record and existing != UNDER_DMARC)  # only where it matters


RELAXED = {"example.com": "v=DMARC1; p=reject"}


@pytest.mark.parametrize(
    ("records", "author", "spf", "dkim", "result", "spf_aligned", "dkim_aligned"),
    [
        (RELAXED, "example.com", ("pass", "example.com"), [], "pass", True, False),
        (RELAXED, "Example.COM.", ("pass", "EXAMPLE.com"), [], "pass", True, False),
        (RELAXED, "example.com", ("none", ""), passed("example.com"), "pass", False, True),
        (RELAXED, "example.com", ("pass", "bounces.example.com"), passed("d.example.com"), "pass", True, True),
        (RELAXED, "a.example.com", ("none", ""), passed("b.example.com"), "pass", False, True),
        (RELAXED, "a.example.com", ("none", ""), passed("example.com"), "pass", False, True),
        (RELAXED, "example.com", ("fail", "example.com"), [("fail", "example.com")], "fail", False, False),
        (
            RELAXED,
            "example.com",
            ("softfail", "example.com"),
            [("temperror", "example.com")],
            "temperror",
            False,
            False,
        ),
        (RELAXED, "example.com", ("temperror", "a.example.com"), [], "temperror", False, False),
        (RELAXED, "example.com", ("temperror", "evil.example"), [("temperror", "evil.test")], "fail", False, False),
        (RELAXED, "example.com", ("temperror", "example.com"), passed("example.com"), "pass", False, True),
        (RELAXED, "example.com", ("pass", "evil.example"), passed("evil.test", "com"), "fail", False, False),
        (RELAXED, "example.com", ("pass", "notexample.com"), passed("example.com.evil.test"), "fail", False, False),
        (RELAXED, "example.com", ("pass", ""), passed("", "..", "a b"), "fail", False, False),
        (RELAXED, "example.com", ("none", ""), passed("evil.test", "example.com"), "pass", False, True),
        (
            {"example.com": "v=DMARC1; p=none; adkim=s"},
            "example.com",
            ("none", ""),
            passed("a.example.com"),
            "fail",
            False,
            False,
        ),
        (
            {"example.com": "v=DMARC1; p=none; adkim=s"},
            "example.com",
            ("pass", "a.example.com"),
            [],
            "pass",
            True,
            False,
        ),
        (
            {"example.com": "v=DMARC1; p=none; aspf=s"},
            "example.com",
            ("pass", "a.example.com"),
            [],
            "fail",
            False,
            False,
        ),
        (
            {"xn--bcher-kva.example": "v=DMARC1; p=reject"},
            "bücher.example",
            ("none", ""),
            passed("BÜCHER.example"),
            "pass",
            False,
            True,
        ),
        ({}, "example.com", ("pass", "example.com"), passed("example.com"), "none", False, False),
        (  # psd=n divides an organization
            {"example.com": "v=DMARC1; p=none", "b.example.com": "v=DMARC1; p=none; psd=n"},
            "example.com",
            ("none", ""),
            passed("b.example.com"),
            "fail",
            False,
            False,
        ),
        (  # two registrants below one public suffix
            {"bank.example": "v=DMARC1; p=reject; psd=y"},
            "giant.bank.example",
            ("pass", "bank.example"),
            passed("mega.bank.example"),
            "fail",
            False,
            False,
        ),
    ],
)
def test_alignment(records, author, spf, dkim, result, spf_aligned, dkim_aligned):
    found = run(Zone(records, existing=["example.com"]), author, spf, dkim)
    assert (found.result, found.spf_aligned, found.dkim_aligned) == (result, spf_aligned, dkim_aligned)


def test_what_a_result_tells():
    zone = Zone({"example.com": "v=DMARC1; p=reject; t=y; rua=mailto:a@example.com"})
    found = run(zone, "example.com")
    assert (found.result, found.policy, found.disposition, found.testing) == ("fail", "reject", "quarantine", True)
    assert (found.domain, found.org_domain, found.policy_domain) == ("example.com",) * 3
    assert found.reason == "nothing that passed is aligned"
    assert found.record.rua == ("mailto:a@example.com",)
    found = run(zone, "example.com", dkim=passed("example.com", "example.com"))
    assert (found.result, found.policy, found.disposition) == ("pass", "reject", "none")
    assert (found.aligned, found.reason) == (("example.com",), "aligned: example.com")
    found = run(zone, "example.com", ("temperror", "a.example.com"), [("temperror", "example.com")])
    assert found.reason == "could not be checked: SPF of a.example.com, DKIM of example.com"
    zone.txt["_dmarc.example.com"], zone.txt["_dmarc.a.example.com"] = None, "v=DMARC1; p=reject"
    found = run(zone, "a.example.com", ("pass", "b.example.com"))
    assert (found.result, found.reason) == ("temperror", "TXT _dmarc.example.com: no answer")
    zone = Zone({"example.com": "v=DMARC1; p=none", "a.example.com": "v=DMARC1; p=none"})
    assert run(zone, "a.example.com").org_domain == "example.com"


def test_no_more_questions_than_the_answer_needs():
    zone = Zone({"mail.example.com": "v=DMARC1; p=reject", "example.com": None})
    found = run(zone, "mail.example.com", ("pass", "esp.test"), passed("mail.example.com"))
    assert found.result == "pass"
    assert zone.asked == ["_dmarc.mail.example.com"]
    assert found.org_domain == "mail.example.com"  # RFC 9989 section 4.10.2: the common domain


@pytest.mark.parametrize(
    ("records", "author", "spf", "dkim", "result"),
    [
        ({"example.com": None}, "example.com", ("pass", "example.com"), passed("example.com"), "temperror"),
        ({"example.com": None}, "a.example.com", ("none", ""), [], "temperror"),
        ({"com": None}, "example.com", ("none", ""), [], "temperror"),
        ({"example.com": "v=DMARC1; p=reject", "com": None}, "example.com", ("none", ""), [], "fail"),
        ({"example.com": "v=DMARC1; p=reject", "com": None}, "example.com", ("none", ""), passed("evil.test"), "fail"),
        ({"example.com": "v=DMARC1; p=reject", "com": None}, "example.com", ("pass", "example.com"), [], "pass"),
        ({"example.com": "v=DMARC1; p=reject", "com": None}, "example.com", ("pass", "a.example.com"), [], "temperror"),
        (
            {"example.com": "v=DMARC1; p=reject", "com": None},
            "example.com",
            ("pass", "a.example.com"),
            passed("example.com"),
            "pass",
        ),
        (
            {"example.com": "v=DMARC1; p=reject", "a.example.com": None},
            "example.com",
            ("none", ""),
            passed("a.example.com"),
            "temperror",
        ),
    ],
)
def test_dns_trouble(records, author, spf, dkim, result):
    found = run(Zone(records), author, spf, dkim)
    assert found.result == result
    assert found.disposition == ("reject" if result == "fail" else "none")


@pytest.mark.parametrize(("dkim", "result"), [("new.example.com", "pass"), ("evil.test", "temperror")])
def test_mail_that_passes_needs_no_policy(dkim, result):
    zone = Zone({"example.com": "v=DMARC1; p=none; np=reject"})
    zone.txt["new.example.com"] = None  # nobody says whether it exists
    found = run(zone, "new.example.com", dkim=passed(dkim))
    assert (found.result, found.disposition) == (result, "none")


def test_an_author_domain_that_is_none():
    assert run(Zone({}), "a b").result == "permerror"


def suffix_list(domain):
    suffixes = ("com", "co.test", "test")
    suffix = next((suffix for suffix in suffixes if domain == suffix or domain.endswith("." + suffix)), "")
    if not suffix or domain == suffix:
        return None
    return domain[: -len(suffix) - 1].rpartition(".")[2] + "." + suffix


@pytest.mark.parametrize(
    ("records", "author", "dkim", "result", "org_domain", "policy"),
    [
        (RELAXED, "a.b.example.com", "c.example.com", "pass", "example.com", "reject"),
        ({"b.example.com": "v=DMARC1; p=reject"}, "a.b.example.com", "a.b.example.com", "none", "example.com", None),
        ({"shop.co.test": "v=DMARC1; p=reject"}, "shop.co.test", "other.co.test", "fail", "shop.co.test", "reject"),
        ({"com": "v=DMARC1; p=reject"}, "com", "com", "pass", "com", "reject"),
        ({"com": "v=DMARC1; p=reject"}, "com", "a.com", "fail", "com", "reject"),
        ({}, "com", "com", "none", "com", None),
    ],
)
def test_the_suffix_list_mode(records, author, dkim, result, org_domain, policy):
    found = run(Zone(records), author, dkim=passed(dkim), org_domain=suffix_list)
    assert (found.result, found.org_domain, found.policy) == (result, org_domain, policy)


ZONE = {
    "example.com": "v=DMARC1; p=reject",
    "strict.test": "v=DMARC1; p=quarantine",
    "evil.test": "v=DMARC1; p=none",
    "silent.test": None,
}


@pytest.mark.parametrize(
    ("values", "dkim", "result", "domain", "disposition"),
    [
        ([b"a@example.com"], "example.com", "pass", "example.com", "none"),
        ([b"a@example.com, b@example.com"], "example.com", "pass", "example.com", "none"),
        ([b"Team: a@example.com;"], "example.com", "pass", "example.com", "none"),
        ([b"x@evil.test, ceo@example.com"], "evil.test", "fail", "example.com", "reject"),
        ([b"x@evil.test", b"ceo@example.com"], "evil.test", "fail", "example.com", "reject"),
        ([b"<x@evil.test>ceo@example.com"], "evil.test", "fail", "example.com", "reject"),
        ([b"ceo@example.com\x00@evil.test"], "evil.test", "fail", "example.com", "reject"),
        ([b"a@strict.test, b@example.com"], "evil.test", "fail", "example.com", "reject"),
        ([b"a@strict.test, b@example.com"], "example.com", "fail", "strict.test", "quarantine"),
        ([b"a@evil.test, b@silent.test"], "", "temperror", "silent.test", "none"),  # it might ask for more
        ([b"a@strict.test, b@silent.test"], "", "fail", "strict.test", "quarantine"),
        ([b"a@strict.test, a@b.c, a@c.d, a@d.e, a@e.f, b@f.g"], "", "fail", "strict.test", "quarantine"),
        ([b"a@example.com, b@silent.test"], "", "fail", "example.com", "reject"),
        ([b"a@evil.test, a@b.c, a@c.d, a@d.e, a@e.f, ceo@example.com"], "", "permerror", "evil.test", "none"),
        ([b"ceo@example.com, a@b.c, a@c.d, a@d.e, a@e.f, a@f.g"], "", "fail", "example.com", "reject"),
        ([b"ceo@example.com\xe2\x80\xae"], "", "fail", "example.com", "reject"),
        ([b"a@evil.test", b"a@evil.test"], "evil.test", "permerror", "evil.test", "none"),
        ([b"a@nothing.test", b"a@nobody.test"], "evil.test", "permerror", "nothing.test", "none"),
        ([], "evil.test", "permerror", "", "none"),
        ([b"ceo"], "evil.test", "permerror", "", "none"),
        ([b"a@[192.0.2.1]"], "evil.test", "permerror", "", "none"),
        ([b"Undisclosed:;"], "evil.test", "permerror", "", "none"),
    ],
)
def test_authors(values, dkim, result, domain, disposition):
    found = asyncio.run(evaluate(Zone(ZONE), authors(values), SpfInput(), passed(dkim)))
    assert (found.result, found.domain, found.disposition) == (result, domain, disposition)
    assert found.reason


def test_authors_are_looked_at_side_by_side():
    """One after the other, names that answer slowly would use up the time in which the policy of a bank is asked."""

    class Slow(Zone):
        async def query(self, name, rdtype):
            if name.endswith("silent.test"):
                self.asked.append(name)
                await asyncio.wait_for(bank.wait(), 5)
            elif name == "_dmarc.example.com":
                bank.set()
            return await super().query(name, rdtype)

    async def once():
        return await evaluate(zone, authors([b"a@silent.test, ceo@example.com"]), SpfInput(), [])

    bank, zone = asyncio.Event(), Slow(ZONE)
    found = asyncio.run(once())
    assert (found.result, found.disposition, zone.asked[0]) == ("fail", "reject", "_dmarc.silent.test")


def test_many_author_domains_cost_little():
    zone = Zone(ZONE)
    value = b", ".join(b"a@%d.test" % number for number in range(500))
    found = asyncio.run(evaluate(zone, authors([value]), SpfInput(), passed("evil.test")))
    assert found.result == "permerror"
    assert len(zone.asked) <= 40


pieces = [
    "ceo@example.com",
    "x@evil.test",
    "<",
    ">",
    "(",
    ")",
    '"',
    "\\",
    ",",
    ";",
    ":",
    " ",
    "\r\n ",
    "Ann",
    "@",
    "\x00",
]


@given(st.lists(st.lists(st.sampled_from(pieces), max_size=8).map("".join), max_size=3))
def test_no_from_lets_another_domain_pass_for_the_victim(values):
    """With evil.test authenticated, example.com never passes, and nothing passes that names it as an author."""
    read = authors([value.encode() for value in values])
    found = asyncio.run(evaluate(Zone(ZONE), read, SpfInput(), passed("evil.test")))
    assert not (found.result == "pass" and (found.domain != "evil.test" or "example.com" in read.domains))
    assert (found.result == "pass") <= bool(judge_authors(read).domain)


names = st.lists(st.sampled_from(["a", "b", "com", "example"]), min_size=1, max_size=10).map(".".join)
texts = st.sampled_from(
    [
        "v=DMARC1; p=reject",
        "v=DMARC1; p=none; psd=y",
        "v=DMARC1; p=quarantine; psd=n; adkim=s",
        "v=DMARC1",
        "other",
        None,
    ]
)


@given(st.dictionaries(names, texts, max_size=6), names, names, st.lists(names, max_size=4))
def test_laws_of_evaluation(records, author, spf, dkim):
    zone = Zone(records)
    found = run(zone, author, ("pass", spf), passed(*dkim))
    assert len(zone.asked) == len(set(zone.asked))  # nothing is asked twice
    assert found.result in {"pass", "fail", "none", "temperror"}
    assert (found.result == "pass") == (found.spf_aligned or found.dkim_aligned)
    assert (found.policy is not None) == (found.record is not None)
    assert found.disposition is Policy.NONE or found.result == "fail"
    if found.org_domain:
        assert author == found.org_domain or author.endswith("." + found.org_domain)
    if author in dkim and found.record is not None:
        assert found.result == "pass"
