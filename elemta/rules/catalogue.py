"""Facts by name: what may a rule ask about, what type is it, who gives it and how early is it known?

A `Catalogue` knows every fact: those of the mail itself (`elemta.rules.view`), and those of the enabled checks
(`spf`, `spf.domain`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from elemta.check import Check, Stage
from elemta.config.problems import quoted, spaced
from elemta.findings import Result
from elemta.rules.view import MAIL_FACTS, Fact, Kind

_FIELD_NAME = re.compile(r"[!-9;-~]{1,997}")  # RFC 5322 section 3.6.8: printable ASCII but the colon
_MEANT: Mapping[str, str] = {
    "ip": "client.address", "client.ip": "client.address", "client_address": "client.address",
    "from": "header_from", "mail_from": "sender", "mailfrom": "sender", "to": "recipient", "rcpt": "recipient",
    "ehlo": "helo", "user": "login", "sasl_username": "login", "or": "any", "and": "all",
}  # fmt: skip
"""Facts, and groups of conditions, by what else people call them."""
_KIND_OF_FIELD: Mapping[type, Kind] = {
    str: "text", int: "number", float: "number", bool: "bool", IPv4Address: "ip", tuple: "text",
}  # fmt: skip


@dataclass(frozen=True)
class Catalogue:
    """All facts of one policy.

    Attributes:
        facts: by name.
        available: names of checks that exist but are not enabled, for errors that teach.
    """

    facts: Mapping[str, Fact]
    available: frozenset[str] = frozenset()

    def __iter__(self) -> Iterator[Fact]:
        return iter(self.facts.values())

    def find(self, name: str) -> Fact:
        """The fact called `name`.

        Raises:
            KeyError: there is none; the text says what to write instead.
        """
        fact = self.facts.get(name)
        if fact is not None:
            return fact
        if name.startswith("header."):
            if not _FIELD_NAME.fullmatch(name[7:]):
                raise KeyError(f"{quoted(name[7:])} is no header field's name; write one such as header.subject")
            doc = "every value of that header field, unfolded"
            return Fact(name.lower(), "text", "message", Stage.MESSAGE, doc, many=True)
        check = name.partition(".")[0]
        if check in self.available:
            raise KeyError(
                f'fact "{name}" comes from the check {check}, which is not enabled; add "{check}:" to checks'
            )
        meant, known = name.lower().removesuffix(".result"), [*self.facts, *self.available]
        near = _MEANT.get(meant) or next(iter(difflib.get_close_matches(meant, known, 1, 0.6)), "")
        hint = f'; did you mean "{near}"?' if near else "; `elemta config facts` lists all of them"
        raise KeyError(f"unknown fact {quoted(name)}{spaced(name) or hint}")


def catalogue(checks: Mapping[str, type[Check[Any]]], available: frozenset[str] = frozenset()) -> Catalogue:
    """All facts of the mail itself and of the enabled `checks`."""
    facts = {fact.name: fact for fact in MAIL_FACTS}
    for name, check in checks.items():
        stage, at_rcpt = check.stage(), check.per_recipient
        words = tuple(dict.fromkeys((*check.results, Result.TEMPERROR)))  # whatever it says: it may not answer in time
        question = (check.__doc__ or "").strip().partition("\n")[0]
        facts[name] = Fact(name, "result", name, stage, question, words=words, at_rcpt=at_rcpt)
        for field, of in check.fields.items():
            full = f"{name}.{field}"
            kind: Kind = "domain" if of.domain else _KIND_OF_FIELD[of.type]
            facts[full] = Fact(full, kind, name, stage, of.doc, of.type is tuple, of.unit, of.words, at_rcpt, of.never)
    return Catalogue(facts, available - checks.keys())
