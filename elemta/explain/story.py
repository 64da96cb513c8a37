"""Why did this mail get this verdict, told for a terminal?"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from datetime import datetime, tzinfo

from elemta.explain.rules import ReadRule, rules_read
from elemta.explain.words import COLOUR, DEED, DONE, OTHER_COLOUR, WIDTH
from elemta.findings import Value
from elemta.journal import Entry
from elemta.printable import clean
from elemta.verdict import Action, Disposition

_BAR = 30  # columns of the longest time


def story(entry: Entry, *, width: int = WIDTH, colour: bool = False, zone: tzinfo | None = None) -> str:
    """The whole story for a terminal `width` columns wide; times in `zone`, default: local."""
    return "\n".join(_Story(entry, width, colour, zone).lines()) + "\n"


class _Story:
    """Tells one entry."""

    def __init__(self, entry: Entry, width: int, colour: bool, zone: tzinfo | None) -> None:
        self.entry = entry
        self.width = max(60, width)
        self.colour = colour
        self.zone = zone

    def lines(self) -> Iterator[str]:
        """All of it."""
        yield from self._verdict()
        for title, lines in (
            ("Mail", self._mail()),
            ("Seen", self._seen()),
            ("Rules", self._rules()),
            ("Asked for besides", self._actions()),
            ("Afterwards", self._acts()),
            ("Time", self._time()),
        ):
            told = list(lines)
            if told:
                yield ""
                yield self._paint(title, "1")
                yield from told

    def _verdict(self) -> Iterator[str]:
        entry = self.entry
        done = self._paint(DONE[entry.disposition], f"1;{COLOUR.get(entry.disposition, OTHER_COLOUR)}")
        yield f"{self._paint(entry.id, '1')}  {done} {_by(entry.rule)}"
        if entry.reply:
            yield from self._wrapped("  ", clean(entry.reply))
        when = _when(entry.at, self.zone)
        stage = "at RCPT TO" if entry.stage == "recipient" else "complete message"
        yield from self._wrapped("  ", f"{when}, {stage}, class {entry.klass}, policy {entry.policy or 'unknown'}")

    def _mail(self) -> Iterator[str]:
        entry = self.entry
        name = f" ({clean(entry.client_name)})" if entry.client_name else ""
        login = [("login", entry.login)] if entry.login else []
        header = [("From", entry.header_from), ("Message-ID", entry.message_id)] if entry.stage == "message" else []
        for label, value in (
            ("queue id", entry.queue_id or "none yet"),
            ("client", (entry.client or "local") + name),
            ("HELO", entry.helo or "none"),
            *login,
            ("sender", entry.sender or "<> (null sender)"),
            ("recipient" if len(entry.recipients) == 1 else "recipients", ", ".join(entry.recipients) or "none"),
            *((label, value or "none") for label, value in header),
            ("size", f"{entry.size:,} octets" if entry.size else "unknown"),
        ):
            yield from self._wrapped(f"  {label:<11} ", clean(value))

    def _seen(self) -> Iterator[str]:
        names = max((len(finding.check) for finding in self.entry.findings), default=0)
        for finding in self.entry.findings:
            start = f"  {finding.check:<{names}}  {finding.result.value:<9}  "
            behind = " (behind the verdict)" if finding.check in self.entry.behind else ""
            reason = ("could not answer: " if finding.trouble else "") + (clean(finding.reason) or "no reason given")
            yield from self._wrapped(start, reason + behind)
            fields = "; ".join(
                f"{name}={_shown(value)}" for name, value in finding.fields.items() if value not in (None, "", ())
            )
            if fields:
                yield from self._wrapped(" " * len(start), fields)

    def _rules(self) -> Iterator[str]:
        entry = self.entry
        if entry.rules is None:
            yield f"  the journal does not hold the rules of policy {entry.policy}"
            return
        if not entry.rules:
            yield "  there are none for this stage"
        read = rules_read(entry)
        names = max((len(rule.id) for rule in read), default=0)
        for rule in read:
            word = "yes" if rule.matched else "no"
            start = f"  {rule.id:<{names}}  {word:<4} "
            lines = list(self._wrapped(start, _why(rule, entry.disposition)))
            yield from (self._paint(line, "1") for line in lines) if rule.matched else lines
        below = len(entry.rules) - len(entry.trace)
        if below > 0:
            yield f"  ({below} more below, not read)"
        if not entry.rule:
            yield "  no rule decided: accepted"
        elif entry.rule.startswith("trouble:"):
            check = entry.rule.removeprefix("trouble:")
            words = f"{check} could not answer, and its setting `trouble` decided: {DONE[entry.disposition]}"
            yield from self._wrapped("  ", words)

    def _actions(self) -> Iterator[str]:
        for action in self.entry.actions:
            yield from self._wrapped("  ", f"{_asked(action)}  (rule {action.rule})")

    def _acts(self) -> Iterator[str]:
        for act in self.entry.acts:
            yield from self._wrapped("  ", f"{_when(act.at, self.zone)}  {DEED[act.deed]} by {clean(act.who)}")

    def _time(self) -> Iterator[str]:
        timings = sorted(self.entry.timings.items(), key=lambda each: -each[1])
        names = max((len(name) for name, _ in timings), default=0)
        longest = max((seconds for _, seconds in timings), default=0.0) or 1.0
        for name, seconds in timings:
            bar = "#" * max(1, round(seconds / longest * _BAR))
            yield f"  {name:<{names}}  {seconds * 1000:>9.1f} ms  {bar}"
        beside = "  (checks run side by side)" if timings else ""
        yield f"  {'all':<{names}}  {self.entry.seconds * 1000:>9.1f} ms{beside}"

    def _wrapped(self, start: str, words: str) -> Iterator[str]:
        lines = textwrap.wrap(words, self.width - len(start), break_on_hyphens=False) or [""]
        yield start + lines[0]
        yield from (" " * len(start) + line for line in lines[1:])

    def _paint(self, words: str, code: str) -> str:
        return f"\x1b[{code}m{words}\x1b[0m" if self.colour else words


def _when(at: float, zone: tzinfo | None) -> str:
    return datetime.fromtimestamp(at, zone).astimezone(zone).strftime("%Y-%m-%d %H:%M:%S %z")


def _by(rule: str) -> str:
    if not rule:
        return "since no rule decided otherwise"
    if rule.startswith("trouble:"):
        return f"since {rule.removeprefix('trouble:')} could not answer"
    return f"by rule {rule}"


def _why(rule: ReadRule, done: Disposition) -> str:
    if not rule.matched:
        seen = ", ".join(f"{name} was {_shown(value)}" for name, value in rule.seen.items())
        shadow = "shadow; " if rule.mode == "shadow" else ""
        return f"{shadow}{_wish(rule.condition)}" + (f"; {seen}" if seen else "")
    if rule.mode == "shadow":
        return f"shadow: would have been {DONE[Disposition(rule.then)]}" if rule.then else "shadow: would have acted"
    if rule.decided:
        return f"{DONE[done]}: this rule decided"
    return f"{rule.then}, but a check's trouble weighed more" if rule.then else "not final, the rules below are read"


def _wish(condition: str) -> str:
    """What a rule wanted that was not so, from the words of `elemta.rules`."""
    if condition.startswith("unless "):
        return f"excepted, since {condition.removeprefix('unless ')}"
    return f"not {condition}" if condition.startswith("in the ") else f"wants {condition}"


def _shown(value: Value) -> str:
    if value is None or value == ():
        return "absent"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ", ".join(clean(each) for each in value)
    return clean(str(value)) or "empty"


def _asked(action: Action) -> str:
    words = action.kind.value.replace("_", " ")
    name = f" {clean(action.name)}" if action.name else ""
    value = f": {clean(action.value)}" if action.value and action.name else f" {clean(action.value)}".rstrip()
    return f"{words}{name}{value}" + (f" for {action.seconds:g} s" if action.seconds else "")
