"""Planning: what must Postfix change in a message so that the verdict is carried out?

A pure function from a decision to a list of edits, in the order in which to send them: forged evidence goes, then
what rules asked for, then our own Authentication-Results on top, then quarantine.  It never judges, and what comes
out is lawful whatever strangers wrote into the values: a value cannot end its field.

RFC 8601 section 5 (removing), section 4.1 (where to add), RFC 5322 sections 2.1.1, 2.2 and 3.6.8 (lines, names).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

from elemta.addresses import compared
from elemta.decision import Decision
from elemta.facts import Message
from elemta.verdict import KEPT, Action, ActionKind, Disposition
from elemta_milter.bounds import BOUNDS, NAMELESS
from elemta_milter.edits import (
    AddHeader,
    AddRecipient,
    ChangeHeader,
    ChangeSender,
    DeleteHeader,
    Edit,
    InsertHeader,
    Quarantine,
    RemoveRecipient,
    ReplaceBody,
    Unlawful,
    lawful_address,
    lawful_name,
)
from elemta_milter.lawful import field_value, folded_value, one_line, plain_text
from elemta_milter.mailauth.authres import claims, is_authentication_results, render
from elemta_milter.rewriting import Change, Rewritten, tagged

AUTHENTICATION_RESULTS = "Authentication-Results"


def plan(
    decision: Decision,
    message: Message,
    host: str,
    *,
    trusted: bool = False,
    mark: bool = True,
    unkept: Mapping[bytes, int] | None = None,
) -> tuple[Edit, ...]:
    """Give all changes; none for a mail that is not kept.

    Args:
        decision: whose verdict to carry out.
        message: the message as it came.
        host: our name, the authserv-id.
        trusted: the client may bring Authentication-Results in our name.
        mark: remove and add Authentication-Results at all.
        unkept: how many fields of each name, lower case, are below those in `message`, unread: of
            Authentication-Results all go, and rules that remove or replace fields reach them too.

    Raises:
        Unlawful: a rule asks for what no mail may hold, or there are too many forged fields to take out, or nobody
            knows where those are that a rule asks to take out.
    """
    if decision.verdict.disposition not in KEPT:
        return ()
    edits: list[Edit] = []
    if mark and not trusted:
        edits += _forged(message, host, unkept or {})
    if decision.verdict.actions:
        edits += _asked(decision, message, edits, unkept or {})
    if mark:
        # RFC 7208 section 9.1: above all that the mail came with
        own = [field for finding in decision.findings for field in finding.header]
        edits += [InsertHeader(0, name, field_value(name, value)) for name, value in own]
        results = [result for finding in decision.findings for result in finding.authres]
        if results:
            edits.append(InsertHeader(0, AUTHENTICATION_RESULTS, render(host, results)))  # RFC 8601 section 4.1
    if decision.verdict.disposition is Disposition.QUARANTINE:
        edits.append(Quarantine(one_line(f"{decision.verdict.rule or 'quarantine'} {decision.id}")))
    return tuple(edits)


def _forged(message: Message, host: str, unkept_names: Mapping[bytes, int]) -> Sequence[DeleteHeader]:
    """Fields that bear our name, the last one first: Postfix counts anew after each."""
    seen: Counter[bytes] = Counter()
    found: list[DeleteHeader] = []
    for name, value in message.headers:
        if is_authentication_results(name):
            seen[name.lower()] += 1
            if claims(value, host):
                found.append(DeleteHeader(name.decode("utf-8", "surrogateescape"), seen[name.lower()]))
    unkept = {name: number for name, number in unkept_names.items() if is_authentication_results(name)}
    if (count := len(found) + sum(unkept.values())) > BOUNDS.removals:
        raise Unlawful(f"{count:,} Authentication-Results fields to take out")
    for name, number in unkept.items():
        shown = name.decode("utf-8", "surrogateescape").title()
        found += [DeleteHeader(shown, seen[name] + each) for each in range(1, number + 1)]
    return found[::-1]


def _asked(  # noqa: C901, PLR0912 - one case for each kind of action
    decision: Decision, message: Message, before: Sequence[Edit], unkept: Mapping[bytes, int]
) -> Iterator[Edit]:
    header = _Header(message, before, unkept)
    recipients: dict[str, dict[str, None]] = {}  # as they were given: the MTA tells upper from lower case
    for address in message.envelope.recipients:
        recipients.setdefault(compared(address).lower(), {})[address] = None
    sender: ChangeSender | None = None
    body: ReplaceBody | None = None
    content = False
    for action in decision.verdict.actions:
        match action.kind:
            case ActionKind.ADD_HEADER:
                yield header.add(action.name, action.value)
            case ActionKind.SET_HEADER:
                yield from header.set(action.name, action.value)
            case ActionKind.REMOVE_HEADER:
                yield from header.remove_nth(action.value, action.nth) if action.nth else header.remove(action.value)
            case ActionKind.ADD_RECIPIENT:
                if (key := compared(action.value).lower()) not in recipients:
                    recipients[key] = {action.value: None}
                    yield AddRecipient(lawful_address(action.value))
            case ActionKind.REMOVE_RECIPIENT:
                yield from map(RemoveRecipient, recipients.pop(compared(action.value).lower(), ()))
            case ActionKind.CHANGE_SENDER:
                sender = ChangeSender(lawful_address(action.value) if action.value else "")
            case ActionKind.REPLACE_BODY:
                encoding, data = plain_text(action.value)
                body = ReplaceBody(data)
                yield from header.set("MIME-Version", "1.0")
                yield from header.set("Content-Type", "text/plain; charset=utf-8")
                yield from header.set("Content-Transfer-Encoding", encoding)
            case ActionKind.TAG_SUBJECT:
                pass  # below
            case ActionKind.BANNER | ActionKind.REPLACE_ATTACHMENTS:
                content = True  # worked out at once for all of them, see `elemta_milter.rewrite`
            case ActionKind.LABEL | ActionKind.ADD_TO_SET:
                pass  # nothing of the mail
    if (subject := _subject(decision.verdict.actions, message)) is not None:
        yield from header.set("Subject", subject, folded_value)
    if content and body is None:
        rewritten = _rewritten(decision)
        for name, value in rewritten.fields.items() if rewritten else ():
            yield from header.remove(name) if value is None else header.set(name, value)
        body = ReplaceBody(rewritten.octets()) if rewritten else None
    if sender is not None:
        yield sender
    if body is not None:
        yield body


def _subject(actions: Sequence[Action], message: Message) -> str | None:
    """Give the subject with its tags; None where none is added."""
    value = next(iter(message.header("subject")), b"")
    new: str | None = None
    tags: list[str] = []  # what rules put before the one that is replaced by Rspamd's, say
    for action in actions:
        if action.kind is ActionKind.TAG_SUBJECT:
            tags.append(action.value)
            new = tagged(value, action.value) or new
            value = value if new is None else new.encode()
        elif action.kind is ActionKind.SET_HEADER and action.name.lower() == "subject":
            value, new = action.value.encode("utf-8", "replace"), None
            tags = tags if action.rule.startswith("check:") else []
            for tag in tags:
                new = tagged(value, tag) or new
                value = value if new is None else new.encode()
        elif action.kind is ActionKind.REMOVE_HEADER and action.value.lower() == "subject" and not action.nth:
            value, new, tags = b"", None, []
    return new


def _rewritten(decision: Decision) -> Change | None:
    """Give what becomes of the content."""
    unseen = Rewritten(impossible="the mail was not looked through for them")
    asked = any(action.kind is ActionKind.REPLACE_ATTACHMENTS for action in decision.verdict.actions)
    found = next((each.detail for each in decision.findings if isinstance(each.detail, Rewritten)), unseen)
    if asked and found.impossible:
        raise Unlawful(f"attachments cannot be taken out: {found.impossible}")
    return found.change


class _Header:
    """How many fields of each name there are while edits are planned."""

    def __init__(self, message: Message, before: Sequence[Edit], unkept: Mapping[bytes, int]) -> None:
        self._came = Counter(name.decode("utf-8", "surrogateescape").lower() for name, _ in message.headers)
        for name, number in unkept.items():
            self._came[name.decode("utf-8", "surrogateescape")] += number
        self._nameless = unkept.get(NAMELESS, 0)
        self._count = self._came.copy()
        self._gone: defaultdict[str, set[int]] = defaultdict(set)  # of the fields that it came with, by number
        for edit in before:
            if isinstance(edit, DeleteHeader):
                self._count[edit.name.lower()] -= 1
                self._gone[edit.name.lower()].add(edit.nth)

    def add(self, name: str, value: str) -> AddHeader:
        self._count[lawful_name(name).lower()] += 1
        return AddHeader(name, field_value(name, value))

    def remove(self, name: str, keep: int = 0) -> Iterator[DeleteHeader]:
        last = self._count[self._known(name)]
        if last - keep > BOUNDS.header_fields:
            raise Unlawful(f"{last - keep:,} fields {name} to take out")
        for nth in range(last, keep, -1):
            yield DeleteHeader(name, nth)
        self._count[name.lower()] = min(last, keep)
        self._gone[name.lower()].update(range(1, self._came[name.lower()] + 1))  # one that is set is the mail's no more

    def remove_nth(self, name: str, nth: int) -> Iterator[DeleteHeader]:
        """Take out one field; `nth` counts those that the mail came with, from the end if negative."""
        came = self._came[self._known(name)]
        nth = came + 1 + nth if nth < 0 else nth
        gone = self._gone[name.lower()]
        if 1 <= nth <= came and nth not in gone:
            yield DeleteHeader(name, nth - sum(each < nth for each in gone))
            gone.add(nth)
            self._count[name.lower()] -= 1

    def _known(self, name: str) -> str:
        """`name` in lower case, under which all fields of that name are counted."""
        key = lawful_name(name).lower()
        if self._nameless:
            raise Unlawful(f"nobody knows which of {self._nameless:,} header fields are called {name}")
        return key

    def set(self, name: str, value: str, lawful: Callable[[str, str], str] = field_value) -> Iterator[Edit]:
        yield from self.remove(name, keep=1)
        if self._count[name.lower()]:
            yield ChangeHeader(name, 1, lawful(name, value))
        else:
            yield self.add(name, value)
