"""Rspamd's symbols: how is it told what our own checks found, so that it need not look again?

A pure function from findings to settings for one mail, the request field `Settings` (JSON): Rspamd's own checks of what
we answer are switched off, and the symbols that they would have set are set, with the scores of Rspamd's configuration.
So its composites and all that builds on SPF, DKIM, DMARC and ARC work on.  A check that is in trouble, off, or was not
made for this mail is left to Rspamd.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping

from elemta.check import Seen
from elemta.findings import Finding, Result
from elemta_milter.mailauth.dkim import SignatureResult

CHECKS = {"spf": "SPF_CHECK", "dkim": "DKIM_CHECK", "dmarc": "DMARC_CHECK", "arc": "ARC_CHECK"}
"""Our checks, and the symbols of Rspamd's."""

_SPF = {
    Result.PASS: "R_SPF_ALLOW",
    Result.FAIL: "R_SPF_FAIL",
    Result.SOFTFAIL: "R_SPF_SOFTFAIL",
    Result.NEUTRAL: "R_SPF_NEUTRAL",
    Result.NONE: "R_SPF_NA",
    Result.PERMERROR: "R_SPF_PERMFAIL",
}
_DKIM = {
    Result.PASS: ("R_DKIM_ALLOW", "+"),
    Result.FAIL: ("R_DKIM_REJECT", "-"),
    Result.TEMPERROR: ("R_DKIM_TEMPFAIL", "?"),
}
_DMARC = {Result.PASS: "DMARC_POLICY_ALLOW", Result.NONE: "DMARC_NA", Result.PERMERROR: "DMARC_BAD_POLICY"}
_DMARC_FAIL = {"reject": "DMARC_POLICY_REJECT", "quarantine": "DMARC_POLICY_QUARANTINE"}
_ARC = {Result.PASS: "ARC_ALLOW", Result.FAIL: "ARC_REJECT", Result.NONE: "ARC_NA"}
_UNFIT = re.compile(r"[^A-Za-z0-9 ._:;,@+=~?/-]")

Told = Iterator[tuple[str, str]]
"""Symbols, each with an option or ""."""


def settings(seen: Seen) -> str:
    """Give the settings for a mail of which our checks saw this; "" when there is nothing to tell."""
    # what a check answers stands in Authentication-Results too; one that was not made has nothing there
    known = {name: seen[name] for name in CHECKS if name in seen and seen[name].authres and not seen[name].trouble}
    if not known:
        return ""
    symbols: dict[str, list[str]] = {}
    for name, finding in known.items():
        for symbol, option in _TELL[name](finding):
            options = symbols.setdefault(symbol, [])
            if option:
                options.append(_UNFIT.sub("?", option)[:300])
    return json.dumps(
        {
            "symbols_disabled": [CHECKS[name] for name in known],
            "symbols": {name: {"score": 1.0, "options": options} for name, options in symbols.items()},
        },
        separators=(",", ":"),
    )


def _spf(finding: Finding) -> Told:
    term = str(finding.fields.get("mechanism") or "")
    sign = "+" if term[:1].isalnum() else ""  # what a term without a qualifier means
    yield _SPF.get(finding.result, "R_SPF_NEUTRAL"), sign + term


def _dkim(finding: Finding) -> Told:
    signatures = finding.detail if isinstance(finding.detail, tuple) else ()
    told = False
    for each in signatures:
        if isinstance(each, SignatureResult) and not (each.testing and each.result is not Result.PASS):
            symbol, mark = _DKIM.get(each.result, ("R_DKIM_PERMFAIL", "~"))
            yield symbol, f"{each.domain}:s={each.selector}"
            yield "DKIM_TRACE", f"{each.domain}:{mark}"
            told = True
    if not told:
        yield "R_DKIM_NA", ""


def _dmarc(finding: Finding) -> Told:
    policy = str(finding.fields.get("policy") or "none")
    failed = _DMARC_FAIL.get(policy, "DMARC_POLICY_SOFTFAIL")
    symbol = _DMARC.get(finding.result, failed)
    yield symbol, str(finding.fields.get("domain") or "")
    if finding.result in (Result.PASS, Result.FAIL):
        yield symbol, policy


def _arc(finding: Finding) -> Told:
    sealer = finding.fields.get("sealer")
    yield _ARC.get(finding.result, "ARC_INVALID"), f"{sealer}:i={finding.fields.get('length')}" if sealer else ""


_TELL: Mapping[str, Callable[[Finding], Told]] = {"spf": _spf, "dkim": _dkim, "dmarc": _dmarc, "arc": _arc}
