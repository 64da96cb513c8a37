import re
from email import message_from_string, policy

import authres
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from elemta.findings import AuthResult
from elemta_milter.mailauth.authres import parse, render


def rendered(value, name="smtp.mailfrom"):
    field = render("mx.example.net", [AuthResult("spf", "pass", properties=((name, value),))])
    return " ".join(field.partition(f"{name}=")[2].split())


def test_a_whole_field():
    field = render(
        "mx.example.net",
        [
            AuthResult(
                "spf", "pass", properties=(("smtp.mailfrom", "ann@example.com"), ("smtp.helo", "a.example.com"))
            ),
            AuthResult(
                "dkim",
                "fail",
                "body hash did not verify",
                (("header.d", "example.com"), ("header.s", "s1"), ("header.a", "rsa-sha256"), ("header.b", "S/mt+mBF")),
            ),
            AuthResult("dmarc", "pass", properties=(("header.from", "example.com"), ("policy.dmarc", "reject"))),
            AuthResult("iprev", "pass", properties=(("policy.iprev", "2001:db8::1"),)),
        ],
    )
    assert field == (
        "mx.example.net;\n"
        "\tspf=pass smtp.mailfrom=ann@example.com smtp.helo=a.example.com;\n"
        '\tdkim=fail reason="body hash did not verify" header.d=example.com\n'
        '\theader.s=s1 header.a=rsa-sha256 header.b="S/mt+mBF";\n'
        "\tdmarc=pass header.from=example.com policy.dmarc=reject;\n"
        '\tiprev=pass policy.iprev="2001:db8::1"'
    )


def test_no_result():
    assert render("mx.example.net", []) == "mx.example.net; none"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("a@example.com", "a@example.com"),
        ("@example.com", "@example.com"),
        ("a/b=c?@example.com", "a/b=c?@example.com"),  # atext, RFC 5322 section 3.2.3
        ("jörg@bücher.example", "jörg@bücher.example"),  # RFC 8616 section 5
        ("bücher.example", "bücher.example"),
        ('"a b"@example.com', '"a b"@example.com'),
        ("a b@example.com", '"a b@example.com"'),
        ("", '""'),
        ("a;dmarc=pass", '"a;dmarc=pass"'),
        ("(comment", '"(comment"'),
        ("user@[192.0.2.1]", '"user@[192.0.2.1]"'),
        ("a@b@example.com", '"a@b@example.com"'),
        ("@a:b@example.com", '"@a:b@example.com"'),  # a source route
        ("@a; dmarc=pass (:b@example.com", '"@a; dmarc=pass (:b@example.com"'),
        ("<@a;dmarc=pass:b@example.com>", '"<@a;dmarc=pass:b@example.com>"'),
        ("<b@example.com>", '"<b@example.com>"'),
        ("a..b@example.com", '"a..b@example.com"'),  # no dot-atom
        ("a.@example.com", '"a.@example.com"'),
        ("a@example.com.", '"a@example.com."'),  # no domain-name
        ("a@example..com", '"a@example..com"'),
        ("a\r\nX-Evil: 1", '"a??X-Evil: 1"'),
        ("a\x00b\x7f\x85\u2028\u202e", '"a?b????"'),
        ("\udcff", '"?"'),
        (r'"a\";dmarc=pass"@example.com', """"a/';dmarc=pass"@example.com"""),
        ('";dmarc=pass', """"';dmarc=pass\""""),
        ("\\", '"/"'),
        ("=?utf-8?q?a?=@example.com", r'"=\?utf-8?q?a?=@example.com"'),
        ("?utf-8?q?a?=@example.com", '"?utf-8?q?a?=@example.com"'),  # smtp.mailfrom=?utf-8?q?a?=@example.com
        ("=\x00utf-8?q?a?=", r'"=\?utf-8?q?a?="'),
    ],
)
def test_values(value, expected):
    assert rendered(value) == expected


WORDS = ["=?utf-8?b?YTsgZGtpbT1wYXNz?=", "?utf-8?q?a;_dkim=3Dpass?=", "=?utf-8?q?=22;_dkim=3Dpass?=", "=?x?q?;?="]


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("around", ["{}", "{}@example.com", '"{}"@example.com', "a {} b", "={}"])
def test_programs_that_decode_before_they_read_find_no_result_that_a_sender_wrote(word, around):
    field = render("mx.example.net", [AuthResult("spf", "pass", word, (("smtp.mailfrom", around.format(word)),))])
    decoded = message_from_string(f"A: {field}\n\n", policy=policy.default)["A"]
    assert "".join(decoded.split()) == "".join(field.split())
    ((_, read),) = parse(field).results[0].properties
    assert read.replace("\\", "") == around.format(word)


def test_a_name_of_ours_that_is_no_token_is_quoted():
    assert render("mx one", []) == '"mx one"; none'


def test_long_values_are_cut_and_cannot_pass_for_a_shorter_name():
    value = rendered("x@example.com." + "a" * 2_000)
    assert value.endswith('..."')
    assert len(value) < 420


hostile = st.text(st.one_of(st.characters(), st.sampled_from('";\\()=@:\r\n\x00 .<>')), max_size=60)
results = st.lists(
    st.builds(
        AuthResult,
        st.sampled_from(["spf", "dkim", "x_odd"]),
        st.sampled_from(["pass", "fail"]),
        hostile,
        st.lists(st.tuples(st.sampled_from(["smtp.mailfrom", "header.d"]), hostile), max_size=4).map(tuple),
    ),
    max_size=4,
)


@example("@0", [])
@example("mx.test", [AuthResult("spf", "pass", "", (("header.d", "@a;dmarc=pass x.y=z:b@example.com"),))])
@given(hostile.filter(lambda text: text.strip()), results)
def test_nothing_a_sender_chose_gets_out_of_its_value(authserv_id, given_results):
    field = render(authserv_id, given_results)
    field.encode()  # strict UTF-8
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f]|\n(?!\t)", field)
    assert max(len(line.encode()) for line in field.split("\n")) <= 998
    read = parse(field)
    assert read.reason == ""
    assert [(found.method, found.result) for found in read.results] == [
        (result.method.replace("_", "-"), result.result) for result in given_results
    ]
    for found, result in zip(read.results, given_results, strict=True):
        assert [name for name, _ in found.properties] == [name for name, _ in result.properties]
        assert bool(found.reason) == bool(result.reason)
    # a reader that knows no quotes but counts them sees the same results
    parts = re.split(r';(?=(?:[^"]*"[^"]*")*[^"]*$)', field)
    assert len(parts) == max(1, len(given_results)) + 1


plain = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E, exclude_characters='"\\'), max_size=50)


@given(plain, st.lists(st.tuples(st.sampled_from(["smtp.mailfrom", "header.d"]), plain), max_size=4).map(tuple))
def test_what_is_written_is_read_again(reason, properties):
    (found,) = parse(render("mx.example.net", [AuthResult("spf", "pass", reason, properties)])).results
    assert found.reason == reason
    assert found.properties == properties


@given(
    st.text(st.sampled_from("ab ;:/()=."), min_size=1, max_size=20),
    st.lists(
        st.tuples(
            st.sampled_from(["smtp.mailfrom", "header.d"]),
            st.from_regex(r"[a-z]{1,9}(\.[a-z]{1,9})?(@[a-z]{1,9}\.example)?", fullmatch=True),
        ),
        max_size=2,
        unique_by=lambda item: item[0],
    ),
)
def test_another_library_reads_the_same(reason, properties):
    """Quoted property values are left out: that library drops them."""
    field = render("mx.example.net", [AuthResult("spf", "pass", reason, tuple(properties))])
    theirs = authres.AuthenticationResultsHeader.parse_value(field.replace("\n\t", " "))
    assert theirs.authserv_id == "mx.example.net"
    (result,) = theirs.results
    assert (result.method, result.result, result.reason) == ("spf", "pass", reason)
    assert [(f"{item.type}.{item.name}", item.value) for item in result.properties] == properties
