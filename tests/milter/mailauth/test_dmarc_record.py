import pytest
from checkdmarc.dmarc import parse_dmarc_record
from hypothesis import given
from hypothesis import strategies as st

from elemta_milter.mailauth.dmarc_record import Policy, Record, parse_record

NONE, QUARANTINE, REJECT = Policy


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("v=DMARC1;p=none", {"p": NONE}),
        ("v=DMARC1; p=reject;", {"p": REJECT}),
        ("V = DMARC1 ; P = Reject", {"p": REJECT}),
        ("v=DMARC1;\tp\t=\tquarantine\t;;", {"p": QUARANTINE}),
        ("v=DMARC1; p=reject; sp=none; np=quarantine", {"p": REJECT, "sp": NONE, "np": QUARANTINE}),
        ("v=DMARC1; p=none; adkim=S; aspf=s", {"p": NONE, "adkim": "s", "aspf": "s"}),
        ("v=DMARC1; p=none; adkim=x; aspf=strict; psd=maybe; t=1", {"p": NONE}),
        ("v=DMARC1; p=none; psd=y", {"p": NONE, "psd": "y"}),
        ("v=DMARC1; p=none; psd=N", {"p": NONE, "psd": "n"}),
        ("v=DMARC1; p=reject; t=y", {"p": REJECT, "testing": True}),
        ("v=DMARC1; p=none; fo=1:D:s", {"p": NONE, "fo": "1:d:s"}),
        ("v=DMARC1; p=none; fo=0:1", {"p": NONE}),
        ("v=DMARC1; p=none; fo=d:D", {"p": NONE}),
        ("v=DMARC1; p=none; fo=1 : d", {"p": NONE, "fo": "1:d"}),
        ("v=DMARC1; p=none; ri=3600", {"p": NONE, "ri": 3_600}),
        ("v=DMARC1; p=none; ri=0", {"p": NONE}),
        ("v=DMARC1; p=none; ri=1d", {"p": NONE}),
        ("v=DMARC1; p=none; ri=" + "9" * 5_000, {"p": NONE}),
        ("v=DMARC1; p=reject; pct=0; rf=afrf; new=thing", {"p": REJECT}),  # gone or unknown: ignored
        ("v=DMARC1; p=reject; p=none", {"p": REJECT}),
        ("v=DMARC1; p=reject; nonsense; =; x", {"p": REJECT}),
        ("v=DMARC1; p=none; rua=mailto:A@Example.COM", {"p": NONE, "rua": ("mailto:A@Example.COM",)}),
        (
            "v=DMARC1; p=none; rua=mailto:a@x.example!10m , mailto:b@x.example; ruf=mailto:c@x.example!50",
            {"p": NONE, "rua": ("mailto:a@x.example", "mailto:b@x.example"), "ruf": ("mailto:c@x.example",)},
        ),
        (
            "v=DMARC1; rua=mailto:a@x.example\t,\tmailto:b@x.example!1m",
            {"p": NONE, "rua": ("mailto:a@x.example", "mailto:b@x.example")},
        ),
        ("v=DMARC1; p=none; rua=https://x.example/r", {"p": NONE, "rua": ("https://x.example/r",)}),
        ("v=DMARC1; p=none; rua=a@x.example,mailto:,mailto:a,MAILTO:@x,mailto:a@b c", {"p": NONE}),
        (
            "v=DMARC1; p=none; rua=mailto:a@x.example!much,mailto:b@x.example",
            {"p": NONE, "rua": ("mailto:b@x.example",)},
        ),
        ("v=DMARC1; p=reject; rua=mailto:d\u00e9@x.example,mailto:a@x.example", {"p": REJECT}),
        # RFC 9989 section 4.10.1: no valid p, or a wrong sp or np, but somebody to tell
        ("v=DMARC1; rua=mailto:a@x.example", {"p": NONE, "rua": ("mailto:a@x.example",)}),
        ("v=DMARC1; p=block; rua=mailto:a@x.example", {"p": NONE, "rua": ("mailto:a@x.example",)}),
        ("v=DMARC1; p=reject; sp=block; rua=mailto:a@x.example", {"p": NONE, "rua": ("mailto:a@x.example",)}),
        ("v=DMARC1; p=reject; np=; rua=mailto:a@x.example", {"p": NONE, "rua": ("mailto:a@x.example",)}),
    ],
)
def test_records(text, expected):
    record, reason = parse_record(text.encode())
    assert record == Record(text=text, **expected)
    assert reason == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        " v=DMARC1; p=none",
        ";v=DMARC1; p=none",
        '"v=DMARC1"; p=none',
        "v=DMARC1 p=none",
        "v=dmarc1; p=none",
        "v=DMARC2; p=none",
        "v=DMARC1x; p=none",
        "v=DMARC1\n",
        "p=none; v=DMARC1",
    ],
)
def test_no_dmarc_record(text):
    record, reason = parse_record(text.encode())
    assert record is None
    assert reason


@pytest.mark.parametrize(
    "text",
    ["v=DMARC1", "v=DMARC1;", "v=DMARC1; p=block", "v=DMARC1; p=reject; sp=x", "v=DMARC1; p=; rua=a@x.example"],
)
def test_a_record_that_asks_for_nothing(text):
    record, reason = parse_record(text.encode())
    assert record is not None
    assert record.p is None
    assert reason


def test_policies_for_subdomains():
    record, _ = parse_record(b"v=DMARC1; p=reject; sp=quarantine; np=none")
    assert record.policy_for(subdomain=False) is REJECT
    assert record.policy_for(subdomain=False, exists=False) is REJECT
    assert record.policy_for(subdomain=True) is QUARANTINE
    assert record.policy_for(subdomain=True, exists=False) is NONE
    record, _ = parse_record(b"v=DMARC1; p=reject; np=none")
    assert record.policy_for(subdomain=True) is REJECT
    record, _ = parse_record(b"v=DMARC1; p=reject; sp=none")
    assert record.policy_for(subdomain=True, exists=False) is NONE


def test_testing_is_one_level_down():
    assert [policy.below for policy in Policy] == [NONE, NONE, QUARANTINE]


@given(st.binary(max_size=300))
def test_any_octets(octets):
    for txt in (octets, b"v=DMARC1;" + octets):
        record, reason = parse_record(txt)
        assert (record is None or record.p is None) == bool(reason)


@given(st.text(st.sampled_from("vDMARC1=;p reject,sn:!@x."), max_size=80))
def test_any_likely_text(text):
    record, _ = parse_record(b"v=DMARC1; p=none;" + text.encode())
    assert record is not None


request = st.sampled_from(["none", "quarantine", "reject"])
tags = st.fixed_dictionaries(
    {"p": request},
    optional={
        "sp": request,
        "adkim": st.sampled_from("rs"),
        "aspf": st.sampled_from("rs"),
        "fo": st.sampled_from(["0", "1", "d", "1:d:s"]),
    },
)


@given(tags)
def test_another_library_reads_the_same(chosen):
    text = "v=DMARC1; " + "; ".join(f"{name}={value}" for name, value in chosen.items())
    theirs = parse_dmarc_record(text, "example.com", syntax_error_marker="")["tags"]
    record, _ = parse_record(text.encode())
    assert record.p == theirs["p"]["value"]
    assert record.policy_for(subdomain=True) == theirs["sp"]["value"]
    assert record.adkim == theirs["adkim"]["value"]
    assert record.aspf == theirs["aspf"]["value"]
    assert set(record.fo.split(":")) == set(theirs["fo"]["value"]) - {":"}
