"""Sealing: do we vouch for what we saw of this mail (ARC)?

Made from `seal:` when the configuration is loaded; nothing without it.  A set is added to mail of the classes named,
or of those that `sign:` does not name: what we send ourselves is signed, what passes through is sealed.  A chain that
already says it failed, that is full, or whose keys could not be looked up gets none, and none goes over a chain that
rules change: it would vouch for fields that are gone.  `see` tells, and `elemta_milter.vouching` does.

RFC 8617 section 5.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from elemta.check import Seen
from elemta.config.model import Settings
from elemta.config.problems import Problem
from elemta.facts import Message
from elemta.findings import Finding, Result
from elemta.verdict import Action, ActionKind, Verdict
from elemta_milter.mailauth.arc import ChainResult
from elemta_milter.mailauth.sealing import MESSAGE_NAME, RESULTS_NAME, SEAL_NAME
from elemta_milter.mailauth.signing import SigningKey
from elemta_milter.signing import load_key, unknown_classes

_OF_THE_CHAIN = frozenset(name.decode().lower() for name in (RESULTS_NAME, MESSAGE_NAME, SEAL_NAME))


@dataclass(frozen=True, slots=True)
class Sealing:
    """Who seals.

    Attributes:
        key: with which.
        classes: of mail.
    """

    key: SigningKey
    classes: frozenset[str]
    needs_body: bool = True

    def choose(
        self, klass: str, message: Message, seen: Seen, actions: Sequence[Action]
    ) -> tuple[ChainResult | None, str]:
        """Give the chain that gets another set, once `actions` are done; or None, and why, for people."""
        if klass not in self.classes:
            return None, f"mail of class {klass} is not sealed"
        if message.truncated:
            return None, f"the mail is not known whole: more than {message.truncated}"
        arc = seen.get("arc")
        chain = arc.detail if arc is not None else None
        if not isinstance(chain, ChainResult):
            return None, "the chain on the mail was not validated"
        if chain.next_instance is None:
            return None, f"the chain takes no other set: {chain.reason or 'it is full'}"
        changed = next((found for action in actions if (found := _changed(action, message))), "")
        if changed:
            return None, changed
        return chain, ""

    def see(self, klass: str, message: Message, seen: Seen, verdict: Verdict) -> Finding:
        """Say whether we will seal."""
        chain, reason = self.choose(klass, message, seen, verdict.actions)
        if chain is None:
            return Finding("seal", Result.NONE, reason)
        reason = f"sealed by {self.key.domain}/{self.key.selector} as set {chain.next_instance}"
        return Finding("seal", Result.PASS, reason, {"domain": self.key.domain, "instance": chain.next_instance})


def _changed(action: Action, message: Message) -> str:
    """How this changes the chain, for people; "" where it does not (RFC 8617 section 5.1.1: a seal covers all sets)."""
    if action.kind is ActionKind.REMOVE_HEADER:
        name = action.value if message.header(action.value) else ""
    elif action.kind in (ActionKind.ADD_HEADER, ActionKind.SET_HEADER):
        name = action.name
    else:
        return ""
    if name.lower() not in _OF_THE_CHAIN:
        return ""
    return f"{action.rule} changes {name}, and a seal covers the chain as it came"


def part(settings: Settings) -> tuple[Sealing | None, list[Problem]]:
    """Make it; None where nothing is to be sealed or nothing can be."""
    wanted = settings.seal
    if wanted is None:
        return None, []
    problems: list[Problem] = []
    if "arc" not in settings.checks:
        problems.append(Problem(("seal",), 'sealing needs the check arc; add "arc:" to checks'))
    if wanted.classes is not None:
        problems += unknown_classes(settings, wanted.classes, ("seal", "classes"))
        classes = frozenset(wanted.classes)
    else:
        classes = frozenset(settings.classes) - {name for entry in settings.sign for name in entry.classes}
    key = load_key(settings, wanted.domain, wanted.key, ("seal", "key"), problems)
    return (Sealing(key, classes), problems) if key is not None and not problems else (None, problems)
