"""From and login: may this login use every address in From?

Takes From and the map of the check `sender_login`, which must be enabled too; reports `pass` when every author is
allowed, `fail` when one is not, when there is none or when From can be read in two ways, `none` without a login.
"""

from __future__ import annotations

from typing import ClassVar

from elemta.check import Check, Field, Seen
from elemta.facts import Message
from elemta.findings import Finding, Result


class FromLogin(Check[Message]):
    """May this login use every address in From?"""

    name = "from_login"
    after = ("sender_login",)
    results: ClassVar = (Result.NONE, Result.PASS, Result.FAIL)
    fields: ClassVar = {"address": Field(str, "the first address in From that the login may not use")}
    needs_body = False
    only_dns = True

    async def run(self, facts: Message, seen: Seen) -> Finding:
        """Look at each author."""
        login = facts.envelope.client.login
        if not login:
            return self.finding(Result.NONE, "the client is not authenticated")
        known = seen.get("sender_login")
        if known is None or not callable(known.detail):
            warning = "" if known else "needs the check sender_login, whose map it uses"
            return Finding(self.name, Result.NONE, "there is no map of logins", warning=warning)
        authors = facts.authors
        if authors.trouble:
            return self.finding(Result.FAIL, f"nobody can say whose address {login} uses: {authors.trouble}")
        if not authors.mailboxes:  # RFC 6854 lets a group be empty; its name is shown, and can be any
            return self.finding(Result.FAIL, f"From names nobody whom {login} may be")
        for box in authors.mailboxes:
            if not known.detail(box.local, box.domain):
                address = f"{box.local}@{box.domain}"
                return self.finding(Result.FAIL, f"{login} may not use {address}", address=address)
        return self.finding(Result.PASS, f"{login} may use the addresses in From")
