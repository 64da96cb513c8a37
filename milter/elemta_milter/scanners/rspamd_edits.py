"""Rspamd's edits: which changes that it asks for can be made to this mail?

A pure function from its reply to actions, in the order in which its own milter makes them.  Left out, and told in
`problems`, is what no mail may hold and what is ours to say: Authentication-Results in our name, signatures and seals.
What is to be removed is what the mail came with, not what a rule has added.
"""

from __future__ import annotations

from collections.abc import Iterator

from elemta.addresses import is_address
from elemta.facts import Message
from elemta.verdict import Action, ActionKind
from elemta_milter.edits import is_field_name
from elemta_milter.mailauth.authres import claims, is_authentication_results
from elemta_milter.scanners.rspamd_reply import Reply

OURS = ("dkim-signature", "arc-seal", "arc-message-signature", "arc-authentication-results")
"""Header fields that we make ourselves, over the mail as it will be delivered."""
ONE_BY_ONE = 50
"""Fields of one name that are removed by their numbers; where there are more, all go, a rule's too."""


def edits(reply: Reply, action: str, message: Message, host: str, problems: list[str]) -> Iterator[Action]:
    """Give what can be done.

    Args:
        reply: what Rspamd said.
        action: its action.
        message: the mail as it came.
        host: our name.
        problems: where it is told what was left out.
    """
    yield from _removed(reply, message, problems)
    yield from _added(reply, host, problems)
    yield from _envelope(reply, problems)
    for name, value in reply.changes.spam_headers if action == "add header" else ():
        if _named(name, problems):
            yield Action(ActionKind.SET_HEADER, name, value)
    if action == "rewrite subject" and reply.subject:
        yield Action(ActionKind.SET_HEADER, "Subject", reply.subject)
    if reply.signed:
        problems.append("its DKIM signature is left out, since signing is done here: turn its dkim_signing off")


def _removed(reply: Reply, message: Message, problems: list[str]) -> Iterator[Action]:
    for name, nth in reply.changes.remove_headers:
        if _named(name, problems):
            wanted = name.lower().encode()
            count = sum(each.lower() == wanted for each, _ in message.headers)
            if nth or count > ONE_BY_ONE:
                yield Action(ActionKind.REMOVE_HEADER, value=name, nth=nth)
            else:
                for number in range(count, 0, -1):
                    yield Action(ActionKind.REMOVE_HEADER, value=name, nth=number)


def _added(reply: Reply, host: str, problems: list[str]) -> Iterator[Action]:
    for name, value in reply.changes.add_headers:
        if name.lower() in OURS:
            problems.append(f"its {name} is left out, since signing and sealing are done here")
        elif is_authentication_results(name.encode()) and claims(value, host):
            problems.append(f"its {name} in our name is left out: let its milter_headers add none")
        elif _named(name, problems):
            yield Action(ActionKind.ADD_HEADER, name, value)


def _envelope(reply: Reply, problems: list[str]) -> Iterator[Action]:
    changes = reply.changes
    sender = () if changes.sender is None else (changes.sender,)
    for kind, addresses in (
        (ActionKind.CHANGE_SENDER, sender),
        (ActionKind.ADD_RECIPIENT, changes.add_recipients),
        (ActionKind.REMOVE_RECIPIENT, changes.remove_recipients),
    ):
        for address in addresses:
            bare = address.removeprefix("<").removesuffix(">")
            if is_address(bare) or (not bare and kind is ActionKind.CHANGE_SENDER):  # the null sender
                yield Action(kind, value=bare)
            else:
                problems.append(f"{address!r} is no address")


def _named(name: str, problems: list[str]) -> bool:
    if not is_field_name(name):
        problems.append(f"{name!r} is no header field's name")
        return False
    return True
