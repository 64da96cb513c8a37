"""`elemta dkim`: which DKIM keys are there, what is published of them, and what comes next?

elemta dkim new example.org               an RSA and an Ed25519 key, and the DNS records to publish
elemta dkim dns example.org               the records again
elemta dkim check                         does the DNS publish them?
elemta dkim rotate example.org            the next step: make new keys, or switch to them once the DNS shows them
elemta dkim list                          every key, how far it has come, and what waits for you
elemta dkim retire example.org            destroy keys that have not signed for a week

Keys are in DIR/DOMAIN/, by default the directory `keys` beside the configuration.  `sign: [{domain: example.org, keys:
{directory: keys/example.org}}]` signs with those that are active; nothing in the file changes when keys do.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import Any

from elemta.addresses import a_label
from elemta.cli import argument, config_argument
from elemta.config.names import host_name, selector
from elemta.config.types import duration

NAME = "dkim"
HELP = "make, publish, rotate and retire DKIM keys"
COMMAND = "elemta_milter.keyring.command"  # of the milter's package, on which nothing here depends


def arguments(parser: argparse.ArgumentParser) -> None:
    """Say what `elemta dkim` takes."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    new = actions.add_parser("new", help="make keys for a domain, and print the DNS records to publish")
    new.add_argument("--type", choices=("rsa", "ed25519", "both"), default="both", help="default: both")
    new.add_argument("--bits", type=int, choices=(1024, 2048, 3072, 4096), default=2048, help="of RSA; default: 2048")
    new.add_argument("--selector", type=argument(selector), help="default: r or e and the day; needs one --type")
    listing = actions.add_parser("list", help="every key, how far it has come, and what is to be done")
    listing.add_argument("--json", action="store_true", help="as JSON")
    dns = actions.add_parser("dns", help="print DNS records, for zone files and for web forms")
    check = actions.add_parser("check", help="compare the keys with what the DNS publishes; 1 if something is missing")
    rotate = actions.add_parser(
        "rotate", help="the next step of an exchange of keys; 75 while the DNS lacks the new ones"
    )
    age = "begin only when a key is older than this, such as 180d: for a timer"
    rotate.add_argument("--if-older", type=argument(duration), default=0.0, metavar="AGE", help=age)
    retire = actions.add_parser("retire", help="destroy keys that have not signed for a week, or stop one now")
    retire.add_argument("--now", action="store_true", help="do not wait: the key is known to others")
    for action in (new, listing, dns, check, rotate, retire):
        wanted = None if action in (new, rotate, retire) else "?"
        action.add_argument("domain", nargs=wanted, type=argument(_domain), metavar="DOMAIN", help="whose keys")
        if action in (dns, retire):
            action.add_argument("selector", nargs="?", type=argument(selector), metavar="SELECTOR", help="one key")
        action.add_argument(
            "--keys", default="", metavar="DIR", help="where keys are (default: beside the configuration)"
        )
        config_argument(action)


def run(args: argparse.Namespace) -> int:
    """Carry out `elemta dkim …`; the exit status."""
    command: Any = import_module(COMMAND)
    status: int = command.run(args)
    return status


def _domain(text: str) -> str:
    return host_name(a_label(text) or text).lower()
