"""Judging: facts and findings in, verdict out.  A pure function; live traffic, rehearsal and tests share it.

Trouble: a check that could not answer weighs in only if its answer could have mattered: no rule matched, or
a rule read before the deciding one asks for it and the deciding one does not.  Its meaning (by check and
class) can make a verdict stronger, never weaker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Protocol

from msgspec.structs import replace

from elemta.rules.ruleset import Judgement, Ruleset, filling, sources
from elemta.rules.view import View
from elemta.verdict import KEPT, Action, Disposition, Verdict

_STRENGTH: Mapping[Disposition, int] = {disposition: index for index, disposition in enumerate(Disposition)}
_TROUBLE_REPLY: Mapping[Disposition, str] = {
    Disposition.DEFER: "451 4.3.0 A policy check could not be made, please try again later. Reference {id}",
    Disposition.REJECT: "550 5.7.1 A policy check could not be made. Reference {id}",
}
_FOR_GOOD = (Disposition.REJECT, Disposition.DISCARD)
_LATER = "451 4.7.1 Not now, please try again later. Reference {id}"


class Meaning(Protocol):
    """What `judge` wants to know of an enabled check."""

    @property
    def name(self) -> str:
        """The check's name."""
        ...

    @property
    def edits(self) -> bool:
        """Whether the changes are made that the check itself proposes."""
        ...

    def meaning_of_trouble(self, klass: str) -> Disposition:
        """What it means for a mail of class `klass` that this check could not answer."""
        ...


def judge(
    rules: Ruleset, checks: Sequence[Meaning], view: View, reference: str, begun: Judgement | None = None
) -> tuple[Verdict, Judgement]:
    """Judge one mail.

    Args:
        rules: the rules of the stage.
        checks: the enabled checks whose trouble weighs in.
        view: the mail's facts and findings.
        reference: the decision's id, for `{id}` in replies.
        begun: see `Ruleset.decide`.

    Raises:
        Wanted: a rule asks for a check that has to wait; wait for it and judge again.
    """
    judgement = rules.decide(view, reference, begun)
    rule = judgement.rule
    disposition = rule.disposition if rule else Disposition.ACCEPT
    decided_by = rule.id if rule else ""
    reply = rule.reply(filling(view, reference)) if rule and rule.reply else ""
    troubled = proposing = False
    for finding in view.findings.values():
        if finding.trouble:
            troubled = True
        if finding.edits:
            proposing = True
    if troubled:
        counting = _counting(rules, judgement, view)
        for check in checks:
            meaning = check.meaning_of_trouble(view.klass) if check.name in counting else Disposition.ACCEPT
            if _STRENGTH[meaning] > _STRENGTH[disposition]:
                disposition, decided_by = meaning, f"trouble:{check.name}"
                reply = _TROUBLE_REPLY.get(meaning, "").replace("{id}", reference)
    actions = judgement.actions
    if not rules.for_good and disposition in _FOR_GOOD:
        disposition, reply = Disposition.DEFER, _LATER.replace("{id}", reference)
        actions = []  # nor is its sender put into a set of those to be refused
    behind = tuple([name for name in _sources(rule.facts) if name in view.findings]) if rule else ()
    if proposing and disposition in KEPT:
        actions += _proposed(checks, view)
    return Verdict(disposition, decided_by, reply, behind, tuple(actions)), judgement


_sources = lru_cache(sources)


def _proposed(checks: Sequence[Meaning], view: View) -> Sequence[Action]:
    """What checks ask for themselves, where the policy lets them; after what the rules ask for."""
    return [
        replace(action, rule=f"check:{check.name}")
        for check in checks
        if check.edits and check.name in view.findings
        for action in view.findings[check.name].edits
    ]


def _counting(rules: Ruleset, judgement: Judgement, view: View) -> set[str]:
    """The troubled checks whose answer could have changed the verdict."""
    troubled = {name for name, finding in view.findings.items() if finding.trouble}
    if judgement.rule is None:
        return troubled
    before = sources(rules.asked(len(judgement.trace) - 1))
    return troubled.intersection(before).difference(sources(judgement.rule.facts))
