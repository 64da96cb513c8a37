"""Sender and login: may this login use this envelope sender?

Takes the login and MAIL FROM; reports `pass` or `fail` by the map in the file, `none` without a login.  A login that
the map does not name may use nothing.  The null sender (bounces, receipts) may be used by everybody.  From in the
header is looked at by the check `from_login`, which takes its map from here.

What Postfix does with smtpd_sender_login_maps, as evidence for rules.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, PrivateAttr, model_validator
from pydantic import Field as Setting

from elemta.check import Check, Field, Options, Seen, Tools
from elemta.config.types import readable
from elemta.facts import Envelope
from elemta.findings import Finding, Result
from elemta.rules.refresh import follow, look
from elemta.rules.senders import NOTHING, Senders, read_file

_MAP = "the map of sender_login"  # in the log


class SenderFile(BaseModel):
    """Where the map is."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: Annotated[str, readable(read_file)] = Setting(
        description="`login address, address…` a line; @domain stands for all its addresses, @.domain for those of "
        "domains below it, * for every address; read again when it changes"
    )
    _senders: Senders = PrivateAttr()

    @property
    def senders(self) -> Senders:
        """What it said when the configuration was read: all there is for a worker that begins when it is wrong."""
        return self._senders

    @model_validator(mode="after")
    def _read(self) -> SenderFile:
        self._senders = Senders(path=Path(self.file))
        with suppress(OSError, ValueError):  # it has changed since
            self._senders.reread()
        return self


class SenderLoginOptions(Options):
    """Which login may use which addresses."""

    map: SenderFile = Setting(description="the file that says so")
    delimiter: str = Setting(
        "+", max_length=1, description="anna+list@ is anna@ too; as Postfix's recipient_delimiter; empty: no"
    )


class SenderLogin(Check[Envelope]):
    """May this login use this envelope sender?"""

    name = "sender_login"
    results: ClassVar = (Result.NONE, Result.PASS, Result.FAIL)
    fields: ClassVar = {"listed": Field(bool, "the map names the login")}
    only_dns = True
    Options = SenderLoginOptions
    options: SenderLoginOptions

    def __init__(self, options: SenderLoginOptions, tools: Tools) -> None:
        super().__init__(options, tools)
        self._senders = options.map.senders
        self._following: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Read the map if it changed, and go on doing so."""
        await look(self._senders, _MAP, self.tools)
        self._following = asyncio.create_task(follow(self._senders, _MAP, self.tools))

    async def close(self) -> None:
        """Follow the file no more."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)

    async def run(self, facts: Envelope, seen: Seen) -> Finding:
        """Look up the login; `detail` is a function: may it use this address? None without a login."""
        login = facts.client.login
        if not login:
            return self.finding(Result.NONE, "the client is not authenticated")
        found = self._senders.of(login)
        allowed, delimiter = found or NOTHING, self.options.delimiter

        def may_use(local: str, domain: str) -> bool:
            return allowed.covers(local, domain, delimiter)

        if not facts.sender:
            result, reason = Result.PASS, "the null sender"
        elif may_use(*facts.sender_parts):
            result, reason = Result.PASS, f"{login} may use {facts.sender}"
        else:
            known = "" if found else "; the map does not name this login"
            result, reason = Result.FAIL, f"{login} may not use {facts.sender}{known}"
        return Finding(self.name, result, reason, {"listed": found is not None}, detail=may_use)
