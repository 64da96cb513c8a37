"""`elemta dkim` where something is in its way: a directory that is not there yet, a full disk, another command."""

from __future__ import annotations

import os
import pwd
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from elemta.cli import dkim as dkim_command
from elemta.cli import main
from elemta_milter.keyring import command
from elemta_milter.keyring import ring as rings
from harness.dns import SERVFAIL, DnsServer
from harness.signatures import pem


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "elemta.yaml"
    path.write_text("host: mx.test\n")
    return path


def dkim(config, *words, status=os.EX_OK):
    assert main(["dkim", *words, "--config", str(config)]) == status


def names(directory):
    return [key.selector for key in rings.read(directory).keys]


class Killed(BaseException):
    """What no command lives to catch."""


def dies(*_, **__):
    raise Killed


@pytest.mark.parametrize("directory", ["keys/example.org", "secret/example.org"])
def test_the_first_keys_are_made_where_the_policy_says(config, monkeypatch, directory):
    with config.open("a") as file:
        file.write(f"sign: [{{domain: example.org, keys: {{directory: {directory}}}}}]\n")
    monkeypatch.chdir(config.parent)
    dkim(config.relative_to(config.parent), "new", "example.org", "--type", "ed25519", "--selector", "e")
    assert names(config.parent / directory) == ["e"]


@pytest.mark.parametrize("action", ["new", "rotate", "retire", "dns", "check"])
def test_keys_of_another_domain_are_left_alone(config, capsys, action):
    dkim(config, "new", "example.org", "--type", "ed25519", "--selector", "e")
    with config.open("a") as file:
        file.write("sign: [{domain: other.example, keys: {directory: keys/example.org}}]\n")
    dkim(config, action, "other.example", status=os.EX_DATAERR)
    assert "keys/example.org holds the keys of example.org, not of other.example" in capsys.readouterr().err
    assert names(config.parent / "keys/example.org") == ["e"]


@pytest.mark.parametrize("where", ["elemta_milter.keyring.command.write", "os.fsync"])
def test_a_full_disk_takes_no_selector(config, monkeypatch, where):
    directory = config.parent / "keys" / "example.org"

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(where, full)
        dkim(config, "new", "example.org", "--type", "ed25519", "--selector", "one", status=os.EX_IOERR)
    assert list(directory.iterdir()) == []  # no private key that nobody knows of
    dkim(config, "new", "example.org", "--type", "ed25519", "--selector", "one")
    assert names(directory) == ["one"]


def test_a_key_file_that_a_dead_command_left_is_passed_over(config, monkeypatch):
    directory = config.parent / "keys" / "example.org"

    with monkeypatch.context() as patch:
        patch.setattr(command, "write", dies)
        with pytest.raises(Killed):
            dkim(config, "new", "example.org", "--type", "ed25519")
    [left] = directory.iterdir()
    before = left.read_bytes()
    dkim(config, "new", "example.org", "--type", "ed25519")
    assert names(directory) == [f"{left.stem}a"]
    assert left.read_bytes() == before


def test_a_key_that_is_retired_is_destroyed_also_where_the_first_command_died(config, monkeypatch):
    directory = config.parent / "keys" / "example.org"
    dkim(config, "new", "example.org", "--type", "ed25519", "--selector", "e")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", dies)
        with pytest.raises(Killed):
            dkim(config, "retire", "example.org", "e")
    assert (directory / "e.pem").exists()
    dkim(config, "retire", "example.org")
    assert [path.name for path in directory.iterdir()] == ["keys.json"]


@pytest.mark.parametrize("words", [("new", "example.org", "--type", "rsa"), ("rotate", "example.org"), ("check",)])
def test_what_a_dead_command_had_half_written_goes(config, words):
    """Private keys are among it."""
    directory = config.parent / "keys" / "example.org"
    with DnsServer({}) as dns, config.open("a") as file:
        file.write(f"dns: {{servers: [{dns.endpoint}]}}\n")
        file.flush()
        dkim(config, "new", "example.org", "--type", "ed25519", "--selector", "e")
        for name in (".x.pem.ab_12cde", ".keys.json.abcd1234", ".e.pem.swp", "other.pem"):
            (directory / name).write_text("secret")
        main(["dkim", *words, "--config", str(config)])
    left = {path.name for path in directory.iterdir()} - {"keys.json", "e.pem"}
    assert {".e.pem.swp", "other.pem"} <= left
    assert not {".x.pem.ab_12cde", ".keys.json.abcd1234"} & left


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (Path.unlink, "cannot read the key"),
        (lambda path: path.write_text("-----BEGIN"), "not an unencrypted PEM private key"),
        (lambda path: path.chmod(0o604), "everybody may use the key"),
        (lambda path: path.write_bytes(pem(Ed25519PrivateKey.generate())), "holds another key than the one"),
    ],
)
def test_it_never_switches_to_a_key_that_the_daemon_could_not_load(config, capsys, spoil, told):
    """The reload would be refused, and the next start too."""
    directory = config.parent / "keys" / "example.org"
    dkim(config, "new", "example.org", "--type", "ed25519", "--selector", "e")
    [key] = rings.read(directory).keys
    with DnsServer({"e._domainkey.example.org": [("TXT", key.record)]}) as dns, config.open("a") as file:
        file.write(f"dns: {{servers: [{dns.endpoint}]}}\n")
        file.flush()
        spoil(directory / "e.pem")
        dkim(config, "rotate", "example.org", status=os.EX_DATAERR)
    assert told in capsys.readouterr().err
    assert [key.state.value for key in rings.read(directory).keys] == ["published"]


def test_two_commands_that_begin_at_once_make_one_set_of_keys(config, monkeypatch):
    directory = config.parent / "keys" / "example.org"
    dkim(config, "new", "example.org", "--type", "ed25519", "--selector", "one")
    with rings.locked(directory):
        ring = rings.read(directory)
        rings.write(rings.Ring(directory, "example.org", (ring.keys[0].now(rings.State.ACTIVE, 0),)))
    first = []

    @contextmanager
    def late(path):
        """Another command is faster, after this one has read the ring."""
        if first:
            first.pop()
            dkim(config, "new", "example.org", "--type", "ed25519", "--selector", "other")
        with rings.locked(path):
            yield

    begin = command._begin
    monkeypatch.setattr(command, "locked", late)
    monkeypatch.setattr(command, "_begin", lambda *words: (first.append(""), begin(*words))[1])
    dkim(config, "rotate", "example.org", status=os.EX_TEMPFAIL)
    assert names(directory) == ["one", "other"]


def test_a_missing_record_is_told_of_beside_one_that_nobody_could_ask_for(config):
    zone = {}
    with DnsServer(zone) as dns:
        with config.open("a") as file:
            file.write(f'dns: {{servers: ["127.0.0.1:{dns.port}"], timeout: 1s}}\n')
        for selector in ("lost", "asked"):
            dkim(config, "new", "example.org", "--type", "ed25519", "--selector", selector)
        zone["asked._domainkey.example.org"] = [("TXT", SERVFAIL)]
        dns.replace(zone)
        dkim(config, "check", status=1)
        zone["lost._domainkey.example.org"] = [("TXT", SERVFAIL)]
        dns.replace(zone)
        dkim(config, "check", status=os.EX_TEMPFAIL)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@pytest.mark.parametrize("closed", ["keys", "keys/example.org"])
def test_keys_that_may_not_be_seen_are_not_none(monkeypatch, capsys, closed):
    run = dkim_command.run

    def as_nobody(args):  # no sooner: Elemta itself may be where others may not read, in a home directory
        os.seteuid(pwd.getpwnam("nobody").pw_uid)
        try:
            return run(args)
        finally:
            os.seteuid(0)

    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        dkim(place / "elemta.yaml", "new", "example.org", "--type", "ed25519")
        for path in (place, place / "keys", place / "keys/example.org"):
            path.chmod(0o755)
            os.chown(path, 0, 0)
        (place / closed).chmod(0o700)
        monkeypatch.setattr(dkim_command, "run", as_nobody)
        dkim(place / "elemta.yaml", "list", status=os.EX_NOPERM)
    assert "Permission denied" in capsys.readouterr().err
