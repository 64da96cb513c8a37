"""`elemta dkim` against a real DNS server: from the first key to the last, and every way in which it must not go on."""

from __future__ import annotations

import json
import os
import re
import stat
import time

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from elemta.cli import main
from elemta.config.load import load
from elemta.config.problems import ConfigErrors
from elemta.policy import Policy
from elemta_milter.keyring import ring as rings
from elemta_milter.keyring.ring import State
from elemta_milter.mailauth.signing import SigningKey, load_private_key
from harness.dns import SERVFAIL, DnsServer

DAY = 86400


class Place:
    """A configuration, its keys, a DNS server and a clock."""

    def __init__(self, directory, zone, dns, capsys, monkeypatch):
        self.directory, self.zone, self.capsys = directory, zone, capsys
        self.config = directory / "elemta.yaml"
        self.config.write_text(f'host: mx.test\ndns: {{servers: ["127.0.0.1:{dns.port}"], timeout: 1s}}\n')
        self.now = time.time()
        monkeypatch.setattr("time.time", lambda: self.now)

    def dkim(self, *words, status=os.EX_OK):
        """Standard output of `elemta dkim`, whose exit status is looked at; standard error is in `errors`."""
        self.capsys.readouterr()
        found = main(["dkim", *words, "--config", str(self.config)])
        out, self.errors = self.capsys.readouterr()
        assert found == status, out + self.errors
        return out

    def ring(self, domain="example.org"):
        return rings.read(self.directory / "keys" / domain)

    def states(self):
        return {key.selector: key.state.value for key in self.ring().keys}

    def publish(self, *selectors, **others):
        """Publish the records of these keys; `others`: a record by selector."""
        ring = self.ring()
        for selector in selectors:
            self.zone[ring.name(ring.find(selector))] = [("TXT", ring.find(selector).record)]
        for selector, record in others.items():
            self.zone[f"{selector}._domainkey.example.org"] = record

    def pass_time(self, days):
        self.now += days * DAY


@pytest.fixture
def place(tmp_path, capsys, monkeypatch):
    zone = {}
    with DnsServer(zone) as dns:
        place = Place(tmp_path, zone, dns, capsys, monkeypatch)

        def set_zone(*selectors, **others):
            Place.publish(place, *selectors, **others)
            dns.replace(zone)

        place.publish = set_zone
        yield place


def test_new_keys_are_secret_and_are_what_their_records_say(place):
    out = place.dkim("new", "Example.ORG")
    directory = place.directory / "keys" / "example.org"
    ring = place.ring()
    assert [(key.kind, key.state) for key in ring.keys] == [("rsa", State.NEW), ("ed25519", State.NEW)]
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for key in ring.keys:
        assert stat.S_IMODE(ring.path(key).stat().st_mode) == 0o600
        private = load_private_key(ring.path(key).read_bytes())
        assert SigningKey("example.org", key.selector, private).record == key.record
        assert key.record in out
    rsa = load_private_key(ring.path(ring.keys[0]).read_bytes())
    assert isinstance(rsa, RSAPrivateKey)
    assert rsa.key_size == 2048
    assert "elemta dkim rotate example.org" in place.errors


def test_records_are_written_for_zone_files_in_strings_that_fit(place):
    out = place.dkim("new", "example.org", "--type", "rsa", "--selector", "R2026")
    import dns.zone  # noqa: PLC0415

    text = place.dkim("dns", "example.org")
    assert text == out
    zone = dns.zone.from_text("@ 60 IN SOA a. b. 1 1 1 1 1\n@ 60 IN NS a.\n$TTL 60\n" + text, origin="example.org")
    [record] = zone.find_rdataset("r2026._domainkey", "TXT")
    assert max(map(len, record.strings)) <= 255
    assert len(record.strings) == 2
    assert b"".join(record.strings).decode() == place.ring().keys[0].record


def test_a_whole_life(place):
    place.dkim("new", "example.org", "--type", "rsa", "--selector", "one")
    place.dkim("rotate", "example.org", status=os.EX_TEMPFAIL)  # nobody could verify it
    assert "one._domainkey.example.org is not published yet: there is no such record" in place.errors
    assert place.states() == {"one": "new"}
    place.publish("one")
    assert "published" in place.dkim("check")
    assert place.states() == {"one": "published"}
    assert "systemctl reload elemta-milter" in place.dkim("rotate", "example.org")
    assert place.states() == {"one": "active"}

    place.pass_time(100)
    assert place.dkim("rotate", "example.org", "--if-older", "180d") == ""
    assert len(place.states()) == 1
    place.pass_time(81)
    place.dkim("rotate", "example.org", "--if-older", "180d", status=os.EX_TEMPFAIL)  # it makes the next one
    [_, two] = place.ring().keys
    assert (two.kind, two.state) == ("rsa", State.NEW)
    place.dkim("rotate", "example.org", status=os.EX_TEMPFAIL)
    assert place.states() == {"one": "active", two.selector: "new"}  # and no third
    place.publish(two.selector)
    place.dkim("rotate", "example.org")
    assert place.states() == {"one": "retiring", two.selector: "active"}

    place.pass_time(6)
    place.dkim("retire", "example.org")
    assert place.states()["one"] == "retiring"  # mail that it signed may still be in a queue
    place.pass_time(2)
    assert "its record may go: one._domainkey.example.org" in place.dkim("retire", "example.org")
    assert place.states() == {"one": "retired", two.selector: "active"}
    assert not (place.directory / "keys/example.org/one.pem").exists()
    assert (place.directory / "keys/example.org" / two.file).exists()
    assert "one._domainkey" not in place.dkim("dns", "example.org")
    assert re.search(r"^one\S+ +retired +published +may go$", place.dkim("check"), re.MULTILINE)
    place.publish(one=[])
    assert re.search(r"^one\S+ +retired +missing$", place.dkim("check"), re.MULTILINE)  # which is as it shall be


def test_a_key_of_another_kind_signs_beside_the_first(place):
    """Ed25519 alone would leave the mail unsigned for everybody who knows RSA only."""
    place.dkim("new", "example.org", "--type", "rsa", "--selector", "one")
    place.publish("one")
    place.dkim("rotate", "example.org")
    place.dkim("new", "example.org", "--type", "ed25519", "--selector", "two")
    place.publish("one", "two")
    place.dkim("rotate", "example.org")
    assert place.states() == {"one": "active", "two": "active"}
    place.dkim("new", "example.org", "--type", "ed25519", "--selector", "three")
    place.publish("one", "two", "three")
    place.dkim("rotate", "example.org")
    assert place.states() == {"one": "active", "two": "retiring", "three": "active"}


def test_it_switches_only_when_every_new_key_is_seen(place):
    place.dkim("new", "example.org")
    rsa, ed = (key.selector for key in place.ring().keys)
    place.publish(rsa)
    place.dkim("rotate", "example.org", status=os.EX_TEMPFAIL)
    assert place.states() == {rsa: "published", ed: "new"}
    place.publish(ed)
    place.dkim("rotate", "example.org")
    assert place.states() == {rsa: "active", ed: "active"}


@pytest.mark.parametrize(
    ("record", "seen", "reason", "status"),
    [
        (
            [("TXT", "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=")],
            "different",
            "another key",
            1,
        ),
        ([("TXT", "v=DKIM1; k=rsa; p=abc")], "different", "cannot be used", 1),
        ([("TXT", "v=DKIM1; k=ed25519; p=")], "revoked", "p= is empty", 1),
        ([("TXT", SERVFAIL)], "unknown", "", os.EX_TEMPFAIL),
        ([("TXT", "{record}; s=other")], "different", "does not allow", 1),
        ([("TXT", "{record}"), ("TXT", "v=DKIM1; p=")], "different", "2 records", 1),
        ([("TXT", "{record}; t=y")], "published", "testing", 0),
        ([("A", "192.0.2.1")], "missing", "no such record", 1),
    ],
)
def test_what_the_dns_may_say_instead(place, record, seen, reason, status):
    place.dkim("new", "example.org", "--type", "ed25519", "--selector", "e")
    own = place.ring().keys[0].record
    place.publish(e=[(kind, v.replace("{record}", own) if isinstance(v, str) else v) for kind, v in record])
    line = place.dkim("check", "example.org", status=status).splitlines()[-1]
    assert line.split()[:3] == ["e._domainkey.example.org", "published" if seen == "published" else "new", seen]
    assert reason in line
    if seen != "published":
        place.dkim("rotate", "example.org", status=os.EX_TEMPFAIL)
        assert place.states() == {"e": "new"}


def test_a_record_that_vanishes_before_the_switch(place):
    place.dkim("new", "example.org", "--type", "ed25519", "--selector", "e")
    place.publish("e")
    place.dkim("check")
    place.publish(e=[])
    place.dkim("check", status=1)
    assert place.states() == {"e": "new"}


def test_a_key_that_others_know_is_stopped_at_once(place):
    place.dkim("new", "example.org")
    rsa, ed = (key.selector for key in place.ring().keys)
    place.publish(rsa, ed)
    place.dkim("rotate", "example.org")
    out = place.dkim("retire", "example.org", rsa, "--now")
    assert f'{rsa}._domainkey.example.org. IN TXT "v=DKIM1; k=rsa; p="' in out
    assert place.states() == {rsa: "retired", ed: "active"}
    place.dkim("retire", "example.org", ed, status=os.EX_DATAERR)
    assert "mail would go unsigned" in place.errors
    assert place.states()[ed] == "active"


def test_whoever_stops_the_last_rsa_key_is_told_what_other_servers_can_verify(place):
    place.dkim("new", "example.org")
    rsa, ed = (key.selector for key in place.ring().keys)
    place.publish(rsa, ed)
    place.dkim("rotate", "example.org")
    assert "elemta dkim new example.org --type rsa" in place.dkim("retire", "example.org", rsa)
    place.dkim("new", "example.org", "--type", "rsa", "--selector", "two")
    place.publish("two")
    place.dkim("rotate", "example.org")
    assert place.states() == {rsa: "retiring", ed: "active", "two": "active"}
    assert "--type rsa" not in place.dkim("retire", "example.org", ed)


def test_a_key_that_never_signed_is_retired_without_waiting(place):
    place.dkim("new", "example.org", "--type", "rsa", "--selector", "oops")
    place.dkim("retire", "example.org", "oops")
    assert place.states() == {"oops": "retired"}
    assert not (place.directory / "keys/example.org/oops.pem").exists()


def test_the_list_says_what_is_to_be_done(place):
    assert place.dkim("list") == ""
    assert "elemta dkim new" in place.errors
    place.dkim("new", "example.org", "--type", "rsa", "--selector", "one")
    assert "publish it: elemta dkim dns example.org one" in place.dkim("list")
    place.pass_time(3)
    assert "waiting for 3 days" in place.dkim("list")
    place.publish("one")
    place.dkim("check")
    assert "let it sign: elemta dkim rotate example.org" in place.dkim("list")
    place.dkim("rotate", "example.org")
    [row] = json.loads(place.dkim("list", "--json"))
    assert (row["state"], row["to do"]) == ("active", "")
    place.pass_time(400)
    assert "in use for 400 days: elemta dkim rotate example.org" in place.dkim("list")


def test_selectors_are_never_used_twice(place):
    for _ in range(3):
        place.dkim("new", "example.org", "--type", "rsa")
    names = [key.selector for key in place.ring().keys]
    assert len(set(names)) == 3
    assert all(re.fullmatch(r"r\d{8}[ab]?", name) for name in names)
    with pytest.raises(SystemExit):
        main(["dkim", "new", "example.org", "--selector", "under_score"])
    place.dkim("new", "example.org", "--selector", "same", status=os.EX_USAGE)
    place.dkim("new", "example.org", "--type", "rsa", "--selector", names[0], status=os.EX_OSERR)


def test_the_configuration_signs_with_the_active_keys_of_a_ring(place):
    text = place.config.read_text()
    place.config.write_text(text + "sign: [{domain: example.org, keys: {directory: keys/example.org}}]\n")

    def selectors():
        return [key.selector for key in Policy.compile(load(place.config)).parts["sign"].signers[0].keys]

    def complaint():
        with pytest.raises(ConfigErrors) as caught:
            selectors()
        return str(caught.value)

    assert "is no ring of keys; make one with `elemta dkim new DOMAIN`" in complaint()
    (place.directory / "keys" / "example.org").mkdir(parents=True)
    place.dkim("new", "example.org", "--type", "ed25519", "--selector", "e")
    assert "no key in" in complaint()
    place.publish("e")
    place.dkim("rotate", "example.org")
    assert selectors() == ["e"]
    place.dkim("rotate", "example.org", status=os.EX_TEMPFAIL)
    second = place.ring().keys[1].selector
    assert selectors() == ["e"]
    place.publish(second)
    place.dkim("rotate", "example.org")
    assert selectors() == [second]
    place.config.write_text(place.config.read_text().replace("domain: example.org", "domain: other.org"))
    assert "holds the keys of example.org, not of other.org" in complaint()


def test_it_works_without_a_configuration_and_beside_a_broken_one(place):
    place.config.write_text("host: [")
    place.dkim("new", "example.org", "--type", "ed25519")
    assert "goes on as if nothing stood in" in place.errors
    place.config.unlink()
    place.dkim("list")
    assert place.errors == ""


@pytest.mark.parametrize(
    "names",
    [
        "seal: {domain: example.org, key: {selector: one, file: FILE}}",
        "sign: [{domain: example.org, keys: [{selector: one, file: FILE}]}]",
    ],
)
def test_a_key_whose_file_the_configuration_names_is_not_destroyed(place, names):
    """With it gone the daemon would not start."""
    place.dkim("new", "example.org", "--type", "ed25519", "--selector", "one")
    place.publish("one")
    place.dkim("rotate", "example.org")
    place.dkim("rotate", "example.org", status=os.EX_TEMPFAIL)
    place.publish(place.ring().keys[-1].selector)
    place.dkim("rotate", "example.org")
    file = place.directory / "keys" / "example.org" / "one.pem"
    before = place.config.read_text()
    place.config.write_text(f"{before}{names.replace('FILE', str(file))}\nrules: {{message: mistaken}}\n")
    place.pass_time(8)
    assert "one stays, and its record: `sign:` or `seal:` names its file" in place.dkim("retire", "example.org")
    assert "one stays" in place.dkim("rotate", "example.org", "--if-older", "180d")
    place.dkim("retire", "example.org", "one", "--now", status=os.EX_DATAERR)
    assert "one: `sign:` or `seal:` names its file" in place.errors
    assert place.states()["one"] == "retiring"
    assert file.exists()
    place.config.write_text(before)
    assert "one is retired" in place.dkim("retire", "example.org")
    assert not file.exists()


def test_a_mistake_elsewhere_does_not_hide_where_the_ring_is(place):
    elsewhere = place.directory / "elsewhere"
    with place.config.open("a") as file:
        file.write(f"sign: [{{domain: example.org, keys: {{directory: {elsewhere}}}}}]\nrules: {{message: mistaken}}\n")
    place.dkim("new", "example.org", "--type", "ed25519")
    assert "has mistakes" in place.errors
    assert (elsewhere / "keys.json").exists()


KEY = {"selector": "s", "kind": "rsa", "file": "s.pem", "record": "v=DKIM1; p=", "state": "active", "since": {}}


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", '{"domain": "x", "keys": [{}]}', '{"domain": "x", "keys": [1]}'),
        *(
            json.dumps({"domain": "x", "keys": [KEY | more]})
            for more in ({"since": []}, {"since": {"active": "today"}}, {"record": 1}, {"kind": None})
        ),
    ],
)
def test_a_broken_ring_says_so(place, text):
    directory = place.directory / "keys" / "example.org"
    directory.mkdir(parents=True)
    (directory / "keys.json").write_text(text)
    place.dkim("list", status=os.EX_DATAERR)
    assert "is broken" in place.errors


@pytest.mark.parametrize("action", ["rotate", "retire", "dns", "check"])
def test_where_there_is_no_ring_it_says_how_to_make_one(place, action):
    place.dkim(action, "nowhere.example", status=os.EX_DATAERR)
    assert "is no ring of keys; make one with `elemta dkim new DOMAIN`" in place.errors


def test_a_ring_cannot_name_files_elsewhere(place):
    place.dkim("new", "example.org", "--type", "ed25519", "--selector", "e")
    path = place.directory / "keys/example.org/keys.json"
    path.write_text(path.read_text().replace("e.pem", "../../elemta.yaml"))
    place.dkim("retire", "example.org", "e", status=os.EX_DATAERR)
    assert place.config.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="files are given away by root only")
def test_keys_belong_to_the_daemons_user(place):
    place.config.write_text(place.config.read_text() + "user: nobody\n")
    place.dkim("new", "example.org")
    directory = place.directory / "keys" / "example.org"
    owners = {path.stat().st_uid for path in (directory.parent, directory, *directory.iterdir())}
    assert owners == {directory.stat().st_uid}
    assert owners != {0}


def test_what_is_told_where_there_is_nothing_to_do(place):
    assert place.dkim("check") == ""
    assert "there are no keys" in place.errors
    place.dkim("new", "localhost", status=os.EX_DATAERR)
    assert not (place.directory / "keys" / "localhost").exists()
    place.dkim("new", "example.org", "--type", "rsa", "--selector", "one")
    place.publish("one")
    assert re.search(r"(?m)^one\._domainkey\.example\.org +published +published$", place.dkim("check"))
    place.dkim("rotate", "example.org")
    place.dkim("rotate", "example.org", status=os.EX_TEMPFAIL)
    place.publish(*place.states())
    place.dkim("rotate", "example.org")
    assert place.states()["one"] == "retiring"
    assert place.dkim("retire", "example.org", "one") == "one is retiring already; --now retires it before its time\n"
    place.dkim("retire", "example.org", "one", "--now")
    assert place.dkim("retire", "example.org", "one") == "one is retired already\n"


def test_a_ring_is_listed_once_however_its_directory_is_written(place, monkeypatch):
    place.dkim("new", "example.org", "--type", "ed25519", "--selector", "e")
    place.config.write_text(
        place.config.read_text() + "sign: [{domain: example.org, keys: {directory: keys/example.org}}]\n"
    )
    monkeypatch.chdir(place.directory.parent)
    place.config = place.config.relative_to(place.directory.parent)
    assert len(place.dkim("list").splitlines()) == 2
