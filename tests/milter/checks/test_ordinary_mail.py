"""Ordinary mail, as everybody's programs write it, is seen whole and is no trouble."""

import re
from pathlib import Path

import pytest

from elemta.testing import message, run
from elemta_milter.checks.attachments import Attachments
from elemta_milter.checks.content import Content

CASES = Path(__file__).parents[2] / "cases/ordinary"
HOSTS = {
    "apple-mail": set(),
    "arabic": {"www.example.com", "example.ae", "example.xn--ae-1qd"},
    "bounce": {"support.example.com", "www.example.org"},
    "chinese": {"www.example.cn", "b.example.cn"},
    "exchange-report": {"www.example.com", "go.example.com", "u.example.com"},
    "invitation": {"calendar.example.com", "meet.example.com", "tel.example.com", "teams.example.com"},
    "japanese": {"www.example.jp", "example.jp", "www.example.co.jp", "shop.example.jp"},
    "mailing-list": {"www.example.org", "git.example.org", "localhost", "lists.example.org"},
    "newsletter": {f"{each}.example.com" for each in ("news", "img", "click", "track", "www")}
    | {"cdn.example.net", "fonts.example.net", "social.example.net", "example.com"},
    "openpgp": {"www.example.org"},
    "outlook": {"server", "safelinks.example.net", "www.example.com"},
    "smime": {"www.example.com"},
}
TROUBLE = ("executable", "macros", "fetches", "encrypted", "broken", "unread", "bidi", "double_extension")


def read(path):
    header, _, body = path.read_bytes().replace(b"\n", b"\r\n").partition(b"\r\n\r\n")
    fields = re.findall(r"([^\s:]+): ((?:[^\r]|\r\n[ \t])*)", header.decode())
    return message(headers=fields, body=body)


def test_every_case_is_looked_at():
    assert {path.stem for path in CASES.iterdir()} == set(HOSTS)


@pytest.mark.parametrize("name", HOSTS)
def test_the_links_of_ordinary_mail(name):
    finding = run(Content, read(CASES / f"{name}.eml"))

    assert finding.result == "pass"
    assert set(finding.fields["url_hosts"]) == HOSTS[name]
    assert (finding.fields["url_disguised"], finding.fields["defects"], finding.fields["excess"]) == (False, (), ())


@pytest.mark.parametrize("name", HOSTS)
def test_the_attachments_of_ordinary_mail(name):
    finding = run(Attachments, read(CASES / f"{name}.eml"))

    assert finding.result in {"none", "pass"}
    assert [each for each in (*TROUBLE, "type_mismatch") if finding.fields.get(each)] == []
