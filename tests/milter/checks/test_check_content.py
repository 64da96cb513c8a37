"""content: what it reads of a message, and what looks like a disguise."""

import base64
import time

import pytest

from elemta.testing import envelope, judge, message, policy, run
from elemta_milter.checks.content import Content


def look(body, content_type="text/plain; charset=utf-8", headers=(), **options):
    octets = body.encode() if isinstance(body, str) else body
    return run(Content, message(headers=[("Content-Type", content_type), *headers], body=octets), **options)


def test_plain_text():
    finding = look("see http://www.example.com/x and\r\nhttp://shop.example.co.uk/ or http://0x7f.1/")

    assert finding.result == "pass"
    assert finding.fields["text_size"] == 78
    assert finding.fields["has_html"] is False
    assert finding.fields["charset"] == ("utf-8",)
    assert finding.fields["urls"] == ("http://www.example.com/x", "http://shop.example.co.uk/", "http://0x7f.1/")
    assert finding.fields["url_hosts"] == ("www.example.com", "shop.example.co.uk")
    assert finding.fields["url_domains"] == ("example.com", "example.co.uk")
    assert finding.fields["url_addresses"] == ("127.0.0.1",)
    assert finding.fields["url_disguised"] is True


def test_every_text_of_a_message_is_read():
    body = (
        "--b\r\n\r\nhttp://a.test\r\n"
        "--b\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        "PGEgaHJlZj0naHR0cDovL2IudGVzdCc+\r\n"
        "--b\r\nContent-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\nhttp://c.test\r\n"
        "--b\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\nDQoNCmh0dHA6Ly9kLnRlc3Q=\r\n"
        "--b\r\nContent-Type: text/html; name=x.html\r\nContent-Disposition: attachment\r\n\r\n<img src=//e.test>\r\n"
        "--b\r\nContent-Type: application/pdf\r\n\r\nhttp://no.test\r\n--b--\r\n"
    )
    finding = look(body, "multipart/mixed; boundary=b")

    assert set(finding.fields["url_hosts"]) == {"a.test", "b.test", "c.test", "d.test", "e.test"}
    assert finding.fields["defects"] == ("a message in base64",)


LINK = b"<a href=http://a.test/>x</a>  "


@pytest.mark.parametrize(
    ("charset", "octets"),
    [
        ("us-ascii", b"\xff\xfe" + LINK),
        ("utf-8", b"\xfe\xff" + LINK),
        ("utf-16le", LINK),
        ("cp037", LINK),
        ("cp037", LINK.decode().encode("cp037")),
        ("utf-16", LINK),
        ("utf-16", LINK.decode().encode("utf-16-le")),
        ("utf-16", LINK.decode().encode("utf-16-be")),
        ("hz-gb-2312", b"~{" + LINK),
        ("iso-2022-jp", b"\x1b$B" + LINK),
    ],
)
@pytest.mark.parametrize("media_type", ["text/html", "text/plain"])
def test_links_are_read_by_every_charset_that_programs_take_it_for(charset, octets, media_type):
    fields = (("Content-Type", f"{media_type}; charset={charset}"),)
    assert run(Content, message(headers=fields, body=octets)).fields["url_hosts"] == ("a.test",)


def test_addresses_within_addresses_are_read():
    page = "<a href='view-source:http://a.test/'><a href='ms-word:ofe|u|http://b.test/x.doc'><a href='mailto:x@c.test'>"
    assert look(page, "text/html").fields["url_hosts"] == ("a.test", "b.test")


@pytest.mark.parametrize(
    "fields",
    [
        'Content-Type: application/octet-stream; name="invoice.html"',
        'Content-Type: application/octet-stream\r\nContent-Disposition: attachment; filename="invoice.pdf.SHTML. "',
        "Content-Type: application/xhtml+xml",
        "Content-Type: image/svg+xml; name=a.svg",
        "Content-Type: text/plain; name=a.htm",
        "Content-Type: text/x-amp-html",
    ],
)
def test_a_page_is_read_as_one_whatever_type_it_is_declared(fields):
    finding = look(f"--b\r\n{fields}\r\n\r\n<a href='&#47;/a.test'>\r\n--b--\r\n", "multipart/mixed; boundary=b")

    assert finding.fields["url_hosts"] == ("a.test",)
    assert finding.fields["has_html"] is ("svg" not in fields)


def test_a_text_that_is_called_a_page_is_read_as_a_text_too():
    part = "--b\r\nContent-Type: text/plain; name=a.html\r\n\r\n<http://a.test/> <a href=//b.test><!-- http://c.test"
    finding = look(f"{part}\r\n--b--\r\n", "multipart/mixed; boundary=b")

    assert set(finding.fields["url_hosts"]) == {"a.test", "b.test", "c.test"}


@pytest.mark.parametrize("name", ["a.eml", "A.MHT."])
@pytest.mark.parametrize("encoding", ["7bit", "base64"])
def test_a_message_that_is_attached_as_a_file_is_read(name, encoding):
    inner = b"Content-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n<a href=3D//a.test>"
    octets = base64.b64encode(inner) if encoding == "base64" else inner
    fields = f"Content-Type: application/octet-stream; name={name}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    finding = look(b"--b\r\n" + fields.encode() + octets + b"\r\n--b--\r\n", "multipart/mixed; boundary=b")

    assert finding.fields["url_hosts"] == ("a.test",)


def test_messages_that_are_files_are_bounded():
    part = "--b\r\nContent-Type: application/x; name=a.eml\r\n\r\nSubject: x\r\n\r\nhttp://a.test\r\n"
    finding = look(part * 30 + "--b--", "multipart/mixed; boundary=b")

    assert finding.result == "neutral"
    assert finding.fields["excess"] == ("20 messages that are files or encoded",)


@pytest.mark.parametrize("line_end", ["\r\n ", "\r\n\t", "\n "])
@pytest.mark.parametrize("media_type", ["text/calendar; method=REQUEST", "text/vcard"])
def test_a_link_in_an_invitation_goes_on_in_the_next_line(media_type, line_end):
    text = "DESCRIPTION:Join\\nhttps://teams.example.c|om/l/meet|up?a=1\\n\\|Nwww.a.test\\, or call\r\nEND:VEVENT"
    finding = look(text.replace("|", line_end), media_type)

    assert finding.fields["urls"] == ("https://teams.example.com/l/meetup?a=1", "http://www.a.test")


@pytest.mark.parametrize(
    ("parameters", "hosts"),
    [("", ("a",)), ("; format=flowed", ("a",)), ("; format=flowed; DelSp=Yes", ("a", "a.b.test"))],
)
def test_a_link_in_a_text_ends_with_its_line_but_where_lines_are_broken_within_words(parameters, hosts):
    finding = look("http://a \r\n.b.test\r\n.c", f"text/plain{parameters}")

    assert finding.fields["url_hosts"] == hosts


def test_a_link_in_a_calendar_alone_goes_on_behind_a_blank():
    assert look("http://a.test\r\n .b.test").fields["url_hosts"] == ("a.test",)


def test_a_link_that_is_read_in_several_ways_leads_to_several_hosts():
    finding = look("http://a.test!b.c.test/")

    assert finding.fields["url_hosts"] == ("a.test", "c.test")
    assert finding.fields["urls"] == ("http://a.test!b.c.test/",)
    assert finding.reason == "1 links to 2 hosts"


def test_no_text():
    finding = look(b"%PDF", "application/pdf")

    assert finding.result == "none"
    assert finding.fields["excess"] == ()


def test_a_multipart_without_parts_is_text():
    assert look("http://a.test", "multipart/mixed; boundary=b").fields["url_hosts"] == ("a.test",)


@pytest.mark.parametrize(
    ("html", "mismatch"),
    [
        ("<a href='http://evil.test/'>https://bank.example/login</a>", True),
        ("<a href='http://evil.test/'>www.bank.com</a>", True),
        ("<a href='http://evil.test/'>bank.com</a>", True),
        ("<a href='http://192.0.2.1/'>bank.com</a>", True),
        ("<a href='http://bank.com@evil.test/'>bank.com</a>", True),
        ("<a href='https://login.bank.com/'>www.bank.com</a>", False),
        ("<a href='http://evil.test/'>Your bank</a>", False),
        ("<a href='http://files.test/'>report.pdf</a>", False),
        ("<a href='mailto:a@evil.test'>bank.com</a>", False),
    ],
)
def test_a_link_that_shows_another_domain(html, mismatch):
    finding = look(html, "text/html")

    assert finding.fields["link_mismatch"] is mismatch
    assert ("leads to" in finding.reason) is mismatch


def test_hidden_text_is_counted_and_its_links_too():
    finding = look("<p style='display:none'>secret http://a.test</p>x", "text/html")

    assert finding.fields["hidden_size"] == len("secret http://a.test")
    assert finding.fields["url_hosts"] == ("a.test",)


def test_bounds_are_told():
    many = " ".join(f"http://h{number}.test" for number in range(20))

    finding = look(many, max_urls=5)
    assert finding.result == "neutral"
    assert finding.fields["excess"] == ("5 links",)
    assert len(finding.fields["urls"]) == 5
    assert look(many, max_size=100).fields["excess"] == ("100 octets of text",)


def test_a_rule_about_links():
    of = policy("""
        host: mx.test.example
        checks: {content: {}}
        rules: {message: [{id: phish, when: {content.link_mismatch: true}, then: quarantine}]}
    """)
    html = b"<a href='http://evil.test/'>https://bank.example/</a>" + b" " * 100_000  # long enough for a thread
    mail = message(envelope(), [("Content-Type", "text/html")], html)

    assert judge(of, mail).verdict.rule == "phish"
    assert judge(of, message()).verdict.rule == ""


@pytest.mark.parametrize("kind", ["text/plain; charset=utf-8", "text/html; charset=utf-8"])
def test_hosts_that_are_slow_to_read_are_read_until_the_time_is_over(kind, monkeypatch):
    monkeypatch.setattr("elemta_milter.checks.content.SECONDS", 0.1)
    hosts = ("".join(chr(0xAC00 + (number * 7 + at * 13) % 9000) for at in range(60)) for number in range(3000))
    text = "".join(f"<a href='http://{host}.test'>{host}.test</a> http://{host}.test " for host in hosts)
    began = time.process_time()
    finding = look(text, kind)

    assert time.process_time() - began < 2  # it took eight
    assert finding.result == "neutral"
    assert "0.1 s of processor time" in finding.fields["excess"]
