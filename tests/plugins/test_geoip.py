"""geoip: what databases say of an address, of several makers, damaged and exchanged."""

import asyncio

import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet

import elemta_plugins.geoip
from elemta.case import Case
from elemta.config.problems import ConfigErrors
from elemta.engine import Engine
from elemta.testing import client, judge, message, policy, run, tools
from elemta_plugins.geoip import GeoIp

BERLIN = {"country": {"iso_code": "DE"}, "continent": {"code": "EU"}}


def database(path, entries, version=6):
    """Write a database and put it in place as geoipupdate does."""
    writer = MMDBWriter(ip_version=version, ipv4_compatible=version == 6)
    for network, record in entries.items():
        writer.insert_network(IPSet([network]), record)
    draft = path.with_suffix(".new")
    writer.to_db_file(str(draft))
    draft.replace(path)
    return path


@pytest.fixture
def country(tmp_path):
    return database(
        tmp_path / "country.mmdb", {"192.0.2.0/24": BERLIN, "2001:db8::/32": {"country": {"iso_code": "FR"}}}
    )


@pytest.fixture
def asn(tmp_path):
    record = {"autonomous_system_number": 64496, "autonomous_system_organization": "Example Net"}
    return database(tmp_path / "asn.mmdb", {"192.0.2.0/24": record}, version=4)


def look(address, *files):
    return run(GeoIp, client(address), databases=tuple({"file": str(file)} for file in files))


def test_country_and_network(country, asn):
    found = look("192.0.2.7", country, asn)
    assert found.result == "pass"
    assert found.fields == {"country": "DE", "continent": "EU", "asn": 64496, "as_name": "Example Net"}
    assert found.reason == "DE, 64496, Example Net"


def test_an_ipv6_address_and_a_database_of_ipv4(country, asn):
    assert look("2001:db8::1", asn, country).fields == {"country": "FR"}


@pytest.mark.parametrize("address", ["", "198.51.100.1"])
def test_unknown(address, country):
    found = look(address, country)
    assert (found.result, dict(found.fields)) == ("none", {})


@pytest.mark.parametrize(
    ("record", "fields"),
    [
        ({"country": "US", "continent": "NA", "asn": "AS15169", "as_name": "Someone"},
         {"country": "US", "continent": "NA", "asn": 15169, "as_name": "Someone"}),
        ({"country_code": "us", "continent_code": "NA"}, {"country": "US", "continent": "NA"}),
        ({"registered_country": {"iso_code": "NL"}}, {"country": "NL"}),
        ({"country": {"iso_code": 7}, "asn": "many", "autonomous_system_organization": {"a": "b"}}, {}),
        ({"country": ["DE"], "continent": "Europe"}, {}),
        ({"asn": 2**40}, {}),
    ],
)  # fmt: skip
def test_records_of_other_makers(record, fields, tmp_path):
    found = look("192.0.2.7", database(tmp_path / "a.mmdb", {"192.0.2.0/24": record}))
    assert found.fields == fields


def test_the_first_that_knows_a_thing_is_believed(country, tmp_path):
    other = database(tmp_path / "b.mmdb", {"192.0.2.0/24": {"country": {"iso_code": "AT"}, "asn": 64497}})
    assert look("192.0.2.7", country, other).fields == {"country": "DE", "continent": "EU", "asn": 64497}


def test_an_exchanged_database_is_read_and_a_damaged_one_is_not(country, monkeypatch):
    monkeypatch.setattr(elemta_plugins.geoip, "LOOK", -1.0)

    async def scene():
        check = GeoIp(GeoIp.Options(databases=({"file": str(country)},)), tools())
        await check.open()
        first = await check.run(client("192.0.2.7"), {})
        database(country, {"192.0.2.0/24": {"country": {"iso_code": "PL"}}})
        second = await check.run(client("192.0.2.7"), {})
        broken = country.with_suffix(".broken")
        broken.write_bytes(b"no database")
        broken.replace(country)
        third = await check.run(client("192.0.2.7"), {})
        country.unlink()
        fourth = await check.run(client("192.0.2.7"), {})
        await check.close()
        return first, second, third, fourth

    found = asyncio.run(scene())
    assert [each.fields["country"] for each in found] == ["DE", "PL", "PL", "PL"]
    assert [bool(each.warning) for each in found] == [False, False, True, True]
    assert "stays in use" in found[2].warning


def test_a_database_that_is_none_is_a_mistake_of_the_configuration(tmp_path):
    (tmp_path / "a.mmdb").write_bytes(b"no database")
    with pytest.raises(ConfigErrors, match=r"cannot read /.*a\.mmdb: "):
        policy(f"host: mx.test\nchecks: {{geoip: {{databases: [{{file: {tmp_path}/a.mmdb}}]}}}}")
    with pytest.raises(ConfigErrors, match="No such file"):
        policy(f"host: mx.test\nchecks: {{geoip: {{databases: [{{file: {tmp_path}/b.mmdb}}]}}}}")
    with pytest.raises(ConfigErrors, match="databases"):
        policy("host: mx.test\nchecks: {geoip: }")


@pytest.mark.parametrize("trusted", ["", "plugins: {trusted: [geoip]}"])
def test_rules_use_its_facts(country, trusted):
    of = policy(f"""
host: mx.receiver.test
{trusted}
state: sqlite://{country.parent}/state.db
checks: {{geoip: {{databases: [{{file: {country}}}]}}}}
rules: {{message: [{{id: country, when: {{geoip.country: {{not: [FR, PL]}}}}, then: reject}}]}}
""")

    async def scene():
        engine = Engine(of, tools())
        await engine.open()
        try:
            return await Case(engine, 40.0).message(message())
        finally:
            await engine.close()

    assert asyncio.run(scene()).verdict.rule == "country"
    assert judge(of, message()).verdict.rule == "country"
