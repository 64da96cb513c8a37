"""Macro expansion: RFC 7208 section 7, RFC 8616 section 4."""

from ipaddress import ip_address

import pytest

from elemta.spf.macro import Facts, MacroError, domain_spec, explanation, macro_string, target_name


def facts(ip="192.0.2.3", local="strong-bad", helo="mx.example.org"):
    return Facts(ip_address(ip), local, "email.example.com", helo, "", 1234567890)


def name(text, domain="email.example.com", validated="unknown", **of):
    return target_name(domain_spec(text), facts(**of), domain, validated)


def told(text, limit=400, **of):
    return explanation(macro_string(text, explanation=True), facts(**of), "email.example.com", "unknown", limit)


@pytest.mark.parametrize(
    ("macro", "value"),
    [  # the examples of section 7.4
        ("%{s}", "strong-bad@email.example.com"),
        ("%{o}", "email.example.com"),
        ("%{d}", "email.example.com"),
        ("%{d4}", "email.example.com"),
        ("%{d3}", "email.example.com"),
        ("%{d2}", "example.com"),
        ("%{d1}", "com"),
        ("%{dr}", "com.example.email"),
        ("%{d2r}", "example.email"),
        ("%{l}", "strong-bad"),
        ("%{l-}", "strong.bad"),
        ("%{lr}", "strong-bad"),
        ("%{lr-}", "bad.strong"),
        ("%{l1r-}", "strong"),
        ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
        ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
        ("%{lr-}.lp.%{ir}.%{v}._spf.%{d2}", "bad.strong.lp.3.2.0.192.in-addr._spf.example.com"),
        ("%{ir}.%{v}.%{l1r-}.lp._spf.%{d2}", "3.2.0.192.in-addr.strong.lp._spf.example.com"),
        ("%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net"),
    ],
)
def test_the_examples_of_the_rfc_v4(macro, value):
    assert name(macro) == value


def test_the_example_of_the_rfc_v6():
    nibbles = "1.0.B.C.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.B.D.0.1.0.0.2"
    assert name("%{ir}.%{v}._spf.%{d2}", ip="2001:db8::cb01") == f"{nibbles}.ip6._spf.example.com"


@pytest.mark.parametrize(
    ("macro", "of", "value"),
    [
        ("%{h}.x.test", {}, "mx.example.org.x.test"),
        ("%{p}.x.test", {"validated": "mail.y.test"}, "mail.y.test.x.test"),
        ("%{p}.x.test", {}, "unknown.x.test"),
        ("%{D2}.x.test", {}, "example.com.x.test"),
        ("%{L}.x.test", {"local": "a b/c~d-e_f.g"}, "a%20b%2Fc~d-e_f.g.x.test"),
        ("%{l+}.x.test", {"local": "a.b+c"}, "a.b.c.x.test"),
        ("%{l1+}.x.test", {"local": "a.b+c.d"}, "c.d.x.test"),
        ("%{l-+}.x.test", {"local": "a-b+c"}, "a.b.c.x.test"),
        ("%{l2r+-}.x.test", {"local": "a-b+c"}, "b.a.x.test"),
        ("%{l.}.x.test", {"local": "a.b"}, "a.b.x.test"),
        ("%{l128}.x.test", {"local": "a.b"}, "a.b.x.test"),
        ("%{l99999999999999999999}.x.test", {"local": "a.b"}, "a.b.x.test"),
        ("%{d002}.x.test", {}, "example.com.x.test"),
        ("a%%b%_c%-d.x.test", {}, "a%b c%20d.x.test"),
        ("x.test.", {}, "x.test"),
        ("%{h}", {"helo": "mx.test."}, "mx.test"),
        ("%{h}", {"helo": "[192.0.2.1]"}, "[192.0.2.1]"),
    ],
)
def test_letters_transformers_and_delimiters(macro, of, value):
    assert name(macro, **of) == value


@pytest.mark.parametrize(
    ("macro", "of"),
    [
        ("%{l}.x.test", {"local": "a..b"}),  # an empty label
        ("%{l}.x.test", {"local": "x" * 64}),  # a long one
        ("a..x.test", {}),
        (".x.test", {}),
        ("%{h}", {"helo": ""}),
        ("%{h}", {"helo": "."}),
        ("%{h}", {"helo": "m\u00fcller.test"}),
        ("%{l}.x.test", {"local": "m\u00fcller"}),  # RFC 8616 section 4
        ("%{L}.x.test", {"local": "m\u00fcller"}),
        ("%{S}.x.test", {"local": "m\u00fcller"}),
    ],
)
def test_a_name_that_cannot_exist_is_nobodys(macro, of):
    assert name(macro, **of) == ""


def test_a_long_name_loses_labels_on_the_left():
    long = ".".join(["abcdefghi"] * 30)  # 299 characters
    cut = name("%{d}.x.test", domain=long)
    assert cut == ".".join(["abcdefghi"] * 24 + ["x.test"])  # 246; with one label more 256
    assert name(f"{long}.test").endswith(".abcdefghi.test")
    assert len(name(f"{long}.test")) <= 253


def test_the_cut_keeps_as_much_as_fits():
    fits = "a." * 123 + "bb.test"
    assert len(fits) == 253
    assert name(f"x.{fits}") == name("x.%{d}", domain=fits) == fits


@pytest.mark.parametrize("size", [252, 253, 254, 255])
def test_the_cut_begins_beyond_253_characters(size):
    whole = "a." * 100 + "b" * (size - 207) + ".c.test"
    assert len(whole) == size
    assert (name(whole) == whole) is (size <= 253)
    assert (name("a.%{d}", domain=whole[2:]) == whole) is (size <= 253)
    assert name(whole + ".") == name(whole)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("%{c} is not one of %{d}'s mail servers.", "192.0.2.3 is not one of email.example.com's mail servers."),
        (
            "See http://%{d}/why.html?s=%{S}&i=%{I}",
            "See http://email.example.com/why.html?s=strong-bad%40email.example.com&i=192.0.2.3",
        ),
        ("%{r} at %{t}", "unknown at 1234567890"),
        ("100%%  sure%_.", "100%  sure ."),
        ("", ""),
    ],
)
def test_explanations(text, value):
    assert told(text) == value


def test_explanations_are_bounded_and_printable():
    assert told("%{s}" * 50, local="x" * 300, limit=400) == "x" * 300 + "@email.example.com" + "x" * 82
    assert told("%{l}", local="a\r\nb\u00fc\x1b") == "a??b??"
    assert told("%{c}", ip="2001:db8::1") == "2001:db8::1"


@pytest.mark.parametrize("text", ["%{x}", "%", "a%b", "tab\there", "\u00fc", "%{d", "%{d}" * 65])
def test_a_broken_explanation_is_none(text):
    with pytest.raises(MacroError):
        macro_string(text, explanation=True)


def test_only_explanations_may_hold_spaces():
    with pytest.raises(MacroError):
        macro_string("a b")
