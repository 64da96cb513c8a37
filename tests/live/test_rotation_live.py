"""Keys of `elemta dkim` beside a real Postfix: mail is signed by the active key, and by the next one after a reload."""

from __future__ import annotations

import os
import re

import dkim as dkimpy
import pytest

from elemta.cli import main
from elemta_milter.keyring import ring as rings
from harness.daemon import Daemon
from harness.dns import DnsServer
from harness.postfix import PrivatePostfix, why_not

pytestmark = [pytest.mark.live, pytest.mark.skipif(bool(why_not()), reason=why_not())]

MAIL = (
    "From: Anna <anna@sender.example>\nTo: bert@example.org\nSubject: hello\nMessage-ID: <1@sender.example>\n\nbody\n"
)
SIGN = "sign: [{{domain: sender.example, keys: {{directory: {keys}/sender.example}}}}]\n"


def test_a_rotation_changes_no_line_of_the_policy(tmp_path, capsys):
    keys, zone = tmp_path / "keys", {}

    def dkim(*words, status=os.EX_OK):
        assert main(["dkim", *words, "--keys", str(keys), "--config", str(config)]) == status, capsys.readouterr()

    def publish():
        ring = rings.read(keys / "sender.example")
        zone.update({ring.name(key): [("TXT", key.record)] for key in ring.keys})
        dns.replace(zone)
        return [key.selector for key in ring.keys]

    def carry():
        """The selector of the signature on a mail from Anna, which dkimpy verifies."""
        count = len(postfix.delivered())
        login = {"login": "anna@sender.example", "addr": "192.0.2.7"}
        assert postfix.send("anna@sender.example", "bert@example.org", MAIL, xclient=login).accepted
        mail = re.sub(rb"\r?\n", b"\r\n", postfix.wait_delivered(count + 1)[-1])

        def txt(name, timeout=5):
            [(_, record)] = zone[name.decode().rstrip(".")]
            return record.encode()

        assert dkimpy.verify(mail, dnsfunc=txt)
        return re.search(rb"DKIM-Signature:[^:]*\bs=(\w+);", mail)[1].decode()

    with DnsServer(zone) as dns, PrivatePostfix(milter=True) as postfix:
        config = tmp_path / "dns.yaml"
        config.write_text(f'host: mx.test\ndns: {{servers: ["127.0.0.1:{dns.port}"], timeout: 1s}}\n')
        dkim("new", "sender.example", "--type", "rsa", "--selector", "first")
        publish()
        dkim("rotate", "sender.example")
        sign = SIGN.format(keys=keys)
        with Daemon("milter", sign, dns=dns, listen=f"unix:{postfix.milter_socket}", workers=1) as daemon:
            assert carry() == "first"
            dkim("rotate", "sender.example", status=os.EX_TEMPFAIL)
            daemon.reload(sign)
            assert carry() == "first"  # the next one is in no DNS yet
            [_, second] = publish()
            dkim("rotate", "sender.example")
            daemon.reload(sign)
            assert carry() == second
