"""Document: what does an aggregate report look like?

Takes counted rows and the published policy; gives XML of the schema dmarc-2.0, its file name and the subject of the
mail.  Never asks anybody anything.

RFC 9990 sections 3.1.1 (elements), 3.5.1 (Report-ID), 3.5.2 (file name, subject), appendix A (schema).
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from xml.etree import ElementTree as ET
from xml.sax.saxutils import quoteattr

from elemta_milter.mailauth.dmarc_record import Policy, Record
from elemta_milter.reports.counting import Published, Row
from elemta_milter.reports.windows import Window

NAMESPACE = "urn:ietf:params:xml:ns:dmarc-2.0"


@dataclass(frozen=True, slots=True)
class Reporter:
    """Who reports.

    Attributes:
        host: the name of this server, the submitter.
        organization: for people.
        email: where to ask.
        contact: more about that, "" for nothing.
        generator: program and version.
    """

    host: str
    organization: str
    email: str
    contact: str = ""
    generator: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """One report.

    Attributes:
        reporter: who reports.
        window: from when to when, about which domain.
        published: the policy.
        record: its tags.
        error: what went wrong, for the domain's owner; "" for nothing.
    """

    reporter: Reporter
    window: Window
    published: Published
    record: Record
    error: str = ""

    @property
    def id(self) -> str:
        """The Report-ID: the same for the same reporter and window, whenever it is made (RFC 9990 section 3.5.2)."""
        of = self.window
        return sha256(f"{self.reporter.host} {of.domain} {of.begin} {of.end}".encode()).hexdigest()[:32]

    @property
    def file_name(self) -> str:
        """The attachment's name (RFC 9990 section 3.5.2)."""
        of = self.window
        return f"{self.reporter.host}!{of.domain}!{of.begin}!{of.end - 1}!{self.id}.xml.gz"

    @property
    def subject(self) -> str:
        """The mail's subject, folded (RFC 9990 section 3.5.2)."""
        lines = (f"Report Domain: {self.window.domain}", f"Submitter: {self.reporter.host}", f"Report-ID: <{self.id}>")
        return "\r\n ".join(lines)


def document(report: Report, rows: Iterable[tuple[Row, int]]) -> bytes:
    """The report as gzip: the same octets for the same report and rows."""
    packed = io.BytesIO()
    with gzip.GzipFile("", "wb", fileobj=packed, mtime=report.window.end) as file:
        for part in xml(report, rows):
            file.write(part)
    return packed.getvalue()


def xml(report: Report, rows: Iterable[tuple[Row, int]]) -> Iterable[bytes]:
    """The report piece by piece."""
    yield b'<?xml version="1.0" encoding="UTF-8"?>\n<feedback xmlns=' + quoteattr(NAMESPACE).encode() + b">\n"
    yield _octets("version", "1.0")  # RFC 9990 section 3.1.1.2
    yield _octets("report_metadata", _metadata(report))
    yield _octets("policy_published", _policy(report))
    for row, mails in rows:
        yield _octets("record", _record(row, mails))
    yield b"</feedback>\n"


Tree = Mapping[str, object]


def _metadata(report: Report) -> Tree:
    """RFC 9990 section 3.1.1.3."""
    reporter = report.reporter
    return {
        "org_name": reporter.organization,
        "email": reporter.email,
        "extra_contact_info": reporter.contact or None,
        "report_id": report.id,
        "date_range": {"begin": str(report.window.begin), "end": str(report.window.end - 1)},
        "error": report.error or None,
        "generator": reporter.generator or None,
    }


def _policy(report: Report) -> Tree:
    """RFC 9990 section 3.1.1.5: tags that are not there have their default values."""
    record = report.record
    p = record.p or Policy.NONE
    sp = record.sp or p
    return {
        "domain": report.published.domain,
        "discovery_method": report.published.method,
        "p": p.value,
        "sp": sp.value,
        "np": (record.np or sp).value,
        "fo": record.fo,
        "adkim": record.adkim,
        "aspf": record.aspf,
        "testing": "y" if record.testing else "n",
    }


def _record(row: Row, mails: int) -> Tree:
    """RFC 9990 sections 3.1.1.7 to 3.1.1.14, each element in the order of the schema."""
    return {
        "row": {
            "source_ip": row.source,
            "count": str(mails),
            "policy_evaluated": {
                "disposition": row.disposition,
                "dkim": "pass" if row.dkim else "fail",
                "spf": "pass" if row.spf else "fail",
                "reason": [{"type": kind, "comment": comment or None} for kind, comment in row.reasons],
            },
        },
        "identifiers": {
            "header_from": row.header_from,
            "envelope_from": row.envelope_from,
            "envelope_to": row.envelope_to or None,
        },
        "auth_results": {
            "dkim": [
                {"domain": domain, "selector": selector, "result": result}
                for domain, selector, result in row.signatures
            ],
            "spf": {"domain": row.spf_domain, "scope": "mfrom", "result": row.spf_result} if row.spf_domain else None,
        },
    }


def _octets(name: str, content: object) -> bytes:
    element = _element(name, content)
    ET.indent(element, level=1)
    return f"  {ET.tostring(element, encoding='unicode').rstrip()}\n".encode()


def _element(name: str, content: object) -> ET.Element:
    """An element of text, or of elements by name; None is left out, a list stands for several."""
    element = ET.Element(name)
    if not isinstance(content, Mapping):
        element.text = str(content)
        return element
    for inner, value in content.items():
        for each in value if isinstance(value, list) else [value]:
            if each is not None:
                element.append(_element(inner, each))
    return element
