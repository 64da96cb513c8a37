"""The document: golden, accepted by the schema of RFC 9990, read by parsedmarc and by another library."""

from __future__ import annotations

import gzip
from importlib.resources import files
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
import xmlschema

from elemta_milter.reports.counting import Published, Row
from elemta_milter.reports.document import NAMESPACE, Report, Reporter, document, xml
from elemta_milter.reports.windows import Window
from harness.reported import DAY, read_by_parsedmarc

CASES = Path(__file__).parents[2] / "cases" / "reports"
REPORTER = Reporter(
    "mx.receiver.test", "Receiver & Söhne", "dmarc@receiver.test", "https://receiver.test/?a&b", "Elemta 0.1.0"
)
SCHEMA = xmlschema.XMLSchema(str(files("dmarc.report") / "schemas" / "dmarc-2.0.xsd"))

ROWS = (
    (Row(source="192.0.2.7", disposition="pass", dkim=True, spf=True, header_from="sender.test",
         envelope_from="bounce.sender.test", signatures=(("sender.test", "s1", "pass"), ("esp.test", "e", "fail")),
         spf_domain="bounce.sender.test", spf_result="pass"), 1234),
    (Row(source="2001:db8::1", disposition="none", dkim=False, spf=False,
         reasons=(("trusted_forwarder", "arc=pass"),), header_from="www.sender.test", envelope_from="list.test",
         envelope_to="receiver.test", signatures=(("list.test", "l", "pass"),), spf_domain="list.test",
         spf_result="pass"), 2),
    (Row(source="198.51.100.9", disposition="reject", dkim=False, spf=False, header_from="sender.test",
         envelope_from=""), 1),
)  # fmt: skip


def made(record="v=DMARC1; p=reject; sp=quarantine; t=y; adkim=s; fo=1:d; rua=mailto:agg@sender.test", **more):
    policy = Published("sender.test", record, "treewalk")
    return Report(REPORTER, Window("sender.test", DAY, DAY + 86400), policy, policy.read(), **more)


def text(report, rows=ROWS):
    return b"".join(xml(report, rows)).decode()


def test_golden():
    golden = (CASES / "sender.test.xml").read_text(encoding="utf-8")
    assert text(made()) == golden


def test_the_golden_one_is_what_the_schema_wants():
    SCHEMA.validate(str(CASES / "sender.test.xml"))


@pytest.mark.parametrize(
    "report",
    [
        made("v=DMARC1; p=none; rua=mailto:a@sender.test"),
        made("v=DMARC1; p=quarantine; np=reject; aspf=s; psd=n; rua=mailto:a@sender.test"),
        made("v=DMARC1; rua=mailto:a@sender.test"),
        made(error="5 messages are not listed: <&>"),
    ],
)
@pytest.mark.parametrize("rows", [ROWS[:1], ROWS[1:2], ROWS[2:], ROWS])
def test_the_schema_accepts_every_form(report, rows):
    SCHEMA.validate(text(report, rows))


@pytest.mark.parametrize("result", ["none", "pass", "fail", "policy", "neutral", "temperror", "permerror"])
def test_the_schema_knows_every_result_of_ours(result):
    row = Row("192.0.2.1", "none", False, False, header_from="a.test", signatures=(("a.test", "s", result),),
              spf_domain="a.test", spf_result=result)  # fmt: skip
    SCHEMA.validate(text(made(), [(row, 1)]))


def test_the_schema_would_find_a_mistake():
    with pytest.raises(xmlschema.XMLSchemaValidationError):
        SCHEMA.validate(text(made()).replace("<version>1.0</version>", "<verse>1.0</verse>"))


def test_tags_that_are_not_there_have_their_defaults():
    root = ET.fromstring(text(made("v=DMARC1; p=reject; rua=mailto:a@sender.test")))
    policy = {each.tag.partition("}")[2]: each.text for each in root.find(f"{{{NAMESPACE}}}policy_published")}
    assert policy == {
        "domain": "sender.test", "discovery_method": "treewalk", "p": "reject", "sp": "reject", "np": "reject",
        "fo": "0", "adkim": "r", "aspf": "r", "testing": "n",
    }  # fmt: skip


def test_words_of_strangers_stay_words():
    evil = '"></selector><!--&\u202e'
    row = Row("192.0.2.1", "none", False, False, header_from="a.test", signatures=((evil, evil, "fail"),))
    root = ET.fromstring(text(made(), [(row, 1)]))
    [selector] = root.iter(f"{{{NAMESPACE}}}selector")
    assert selector.text == evil
    SCHEMA.validate(text(made(), [(row, 1)]))


def test_names_and_ids():
    report = made()
    assert len(report.id) == 32
    assert report.id.isalnum()  # RFC 9990 section 3.5.2: unique-id
    assert report.file_name == f"mx.receiver.test!sender.test!{DAY}!{DAY + 86399}!{report.id}.xml.gz"
    assert report.subject == f"Report Domain: sender.test\r\n Submitter: mx.receiver.test\r\n Report-ID: <{report.id}>"
    assert f"<report_id>{report.id}</report_id>" in text(report)
    other = Report(REPORTER, Window("sender.test", DAY + 3600, DAY + 86400), report.published, report.record)
    assert other.id != report.id == made().id


def test_the_same_rows_give_the_same_octets():
    assert document(made(), ROWS) == document(made(), ROWS)
    assert gzip.decompress(document(made(), ROWS)).decode() == text(made())


def test_memory_stays_small_with_many_rows(tmp_path):
    rows = ((ROWS[0][0], number) for number in range(50_000))
    packed = document(made(), rows)
    assert len(packed) < 2_000_000
    assert gzip.decompress(packed).count(b"<record>") == 50_000


# ── others read it ───────────────────────────────────────────────────────────────────────────────────────


def test_parsedmarc_reads_it():
    found = read_by_parsedmarc(document(made(), ROWS))
    assert found["xml_namespace"] == NAMESPACE
    metadata, policy = found["report_metadata"], found["policy_published"]
    assert metadata["report_id"] == made().id
    assert metadata["org_name"] == "Receiver & Söhne"
    assert metadata["generator"] == "Elemta 0.1.0"
    assert metadata["errors"] == []
    assert (metadata["begin_date"], metadata["end_date"]) == ("2023-11-15 00:00:00", "2023-11-15 23:59:59")
    assert [policy[name] for name in ("domain", "p", "sp", "np", "adkim", "aspf", "fo", "testing")] == [
        "sender.test", "reject", "quarantine", "quarantine", "s", "r", "1:d", "y",
    ]  # fmt: skip
    assert policy["discovery_method"] == "treewalk"
    counts = [(each["source"]["ip_address"], each["count"]) for each in found["records"]]
    assert counts == [("192.0.2.7", 1234), ("2001:db8::1", 2), ("198.51.100.9", 1)]
    first, second, third = found["records"]
    assert first["alignment"]["dmarc"] is True
    assert first["auth_results"]["dkim"][1]["selector"] == "e"
    reasons = second["policy_evaluated"]["policy_override_reasons"]
    assert reasons == [{"type": "trusted_forwarder", "comment": "arc=pass"}]
    assert third["policy_evaluated"]["disposition"] == "reject"
    assert third["identifiers"]["header_from"] == "sender.test"
