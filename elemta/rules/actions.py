"""Actions: what does a rule ask for besides its verdict, and what is wrong with it?

Turns the actions of a `RuleModel` into functions that make `Action`s of a mail's facts, and collects every mistake with
its place: header names that are none, what needs the whole message, sets that are not dynamic, attachments not told.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from elemta.addresses import is_address
from elemta.check import Stage
from elemta.config.problems import Path, Problem
from elemta.config.rule_model import Banner, ReplaceAttachments, RuleModel
from elemta.findings import Value
from elemta.rules.sets import NamedSet, literal
from elemta.rules.templates import Template
from elemta.verdict import Action, ActionKind

Make = Callable[[Mapping[str, Value]], Action]

ATTACHMENT_NAME = "name"
"""What a notice calls the attachment in whose place it stands; known only when the attachment is taken out."""

_HEADER_NAME = re.compile(r"[!-9;-~]{1,76}")  # RFC 5322 section 3.6.8: printable ASCII but the colon
_EXTENSION = re.compile(r"[^\s./*?]{1,32}")
_MEDIA_TYPE = re.compile(r"[^\s/;]+/[^\s/;]+")
_WITH_HEADER = (ActionKind.ADD_HEADER, ActionKind.SET_HEADER, ActionKind.REMOVE_HEADER)
_WITH_ADDRESS = (ActionKind.ADD_RECIPIENT, ActionKind.REMOVE_RECIPIENT, ActionKind.CHANGE_SENDER)
_WORDS = (ActionKind.LABEL, ActionKind.ADD_TO_SET, ActionKind.TAG_SUBJECT)
_REMOVED = (ActionKind.REMOVE_HEADER, ActionKind.REMOVE_RECIPIENT)
_AT_RCPT = (ActionKind.ADD_HEADER, ActionKind.LABEL, ActionKind.ADD_TO_SET)  # what the policy service can do


class Compile(Protocol):
    """Compiles a template of the rule; None, and a problem, where it cannot be."""

    def __call__(
        self, text: str, path: Path, *, later: tuple[str, ...] = (), escape: Callable[[str], str] = str
    ) -> Template | None:
        """See `elemta.rules.templates.compile_template`."""
        ...


def read_actions(
    model: RuleModel, path: Path, latest: Stage, template: Compile, sets: Mapping[str, NamedSet]
) -> tuple[list[Make], list[Problem]]:
    """Make the actions of the rule at `path` ready; with every mistake found in them.

    Args:
        model: the rule.
        path: where it stands.
        latest: facts known later than this cannot be used.
        template: compiles its templates.
        sets: the named sets.
    """
    made: list[Make] = []
    problems: list[Problem] = []
    for kind, name, text, place in _asked_for(model, path):
        field = text if kind is ActionKind.REMOVE_HEADER else name
        if kind in _WITH_HEADER and not _HEADER_NAME.fullmatch(field):
            problems.append(Problem(place, f'"{field}" is no header field name', "key"))
        problems += _never(kind, text, place)
        if latest < Stage.MESSAGE and kind not in _AT_RCPT:
            problems.append(Problem(place, f"{kind} needs the whole message; move the rule to rules.message"))
            continue
        match kind:
            case ActionKind.BANNER if model.banner is not None:
                make = _banner(model.banner, place, template, model.id)
            case ActionKind.REPLACE_ATTACHMENTS if model.replace_attachments is not None:
                problems += _not_told(model.replace_attachments, place)
                make = _replace_attachments(model.replace_attachments, place, template, model.id)
            case _:
                seconds = model.add_to_set.ttl if kind is ActionKind.ADD_TO_SET and model.add_to_set else 0.0
                escape = literal if kind is ActionKind.ADD_TO_SET else str
                filled = template(text, place, escape=escape)
                make = None if filled is None else _maker(kind, name, filled, seconds, model.id)
        if make is not None:
            made.append(make)
    if model.add_to_set is not None:
        problems += _not_dynamic(model.add_to_set.set, path, sets)
    return made, problems


def _never(kind: ActionKind, text: str, path: Path) -> Iterator[Problem]:
    """What is wrong with a word that is the same for every mail."""
    if "{" in text or "}" in text:
        return
    if kind in _WORDS and not text.strip():
        yield Problem(path, "an empty text stands here; write a word")
    if kind in _REMOVED and "*" in text:
        yield Problem(path, f'"{text}" is a pattern, and only what is called so would be removed; write each name')
    elif kind in _WITH_ADDRESS and not is_address(text) and (text or kind is not ActionKind.CHANGE_SENDER):
        null = ', or "" for the null sender' if kind is ActionKind.CHANGE_SENDER else ""
        yield Problem(path, f'"{text}" is no address; write one such as archive@example.org{null}')


def _asked_for(model: RuleModel, path: Path) -> Iterator[tuple[ActionKind, str, str, Path]]:
    """(kind, name, template, place) of every action in the model."""
    for kind, mapping in ((ActionKind.ADD_HEADER, model.add_header), (ActionKind.SET_HEADER, model.set_header)):
        yield from ((kind, name, text, (*path, kind.value, name)) for name, text in mapping.items())
    for kind, words in (
        (ActionKind.REMOVE_HEADER, model.remove_header),
        (ActionKind.ADD_RECIPIENT, model.add_recipient),
        (ActionKind.REMOVE_RECIPIENT, model.remove_recipient),
        (ActionKind.LABEL, model.label),
    ):
        yield from ((kind, "", text, (*path, kind.value)) for text in words_of(words))
    for kind, one in (
        (ActionKind.CHANGE_SENDER, model.change_sender),
        (ActionKind.REPLACE_BODY, model.replace_body),
        (ActionKind.TAG_SUBJECT, model.tag_subject),
    ):
        if one is not None:
            yield kind, "", one, (*path, kind.value)
    for kind, section in (
        (ActionKind.BANNER, model.banner),
        (ActionKind.REPLACE_ATTACHMENTS, model.replace_attachments),
    ):
        if section is not None:
            yield kind, "", "", (*path, kind.value)
    if model.add_to_set is not None:
        yield ActionKind.ADD_TO_SET, model.add_to_set.set, model.add_to_set.value, (*path, "add_to_set", "value")


def _maker(kind: ActionKind, name: str, template: Template, seconds: float, rule: str) -> Make:
    return lambda values: Action(kind, name, template(values), seconds, rule)


def _banner(wanted: Banner, path: Path, template: Compile, rule: str) -> Make | None:
    kind, position = ActionKind.BANNER, wanted.position
    text = template(wanted.text, (*path, "text"))
    markup = None if wanted.html is None else template(wanted.html, (*path, "html"), escape=html.escape)
    if text is None or (markup is None and wanted.html is not None):
        return None
    if markup is None:
        return _maker(kind, position, text, 0.0, rule)
    return lambda values: Action(kind, position, text(values), rule=rule, options=(("html", markup(values)),))


def _replace_attachments(wanted: ReplaceAttachments, path: Path, template: Compile, rule: str) -> Make | None:
    notice = template(wanted.notice, (*path, "notice"), later=(ATTACHMENT_NAME,))
    if notice is None:
        return None
    options = tuple((key, word) for key, word in _selected(wanted))
    which = ", ".join(word for _, word in options)
    return lambda values: Action(
        ActionKind.REPLACE_ATTACHMENTS, which, notice(values), rule=rule, options=options
    )  # fmt: skip


def _selected(wanted: ReplaceAttachments) -> Iterator[tuple[str, str]]:
    for key, words in (("extension", wanted.extension), ("type", wanted.type), ("name", wanted.name)):
        yield from ((key, word) for word in words_of(words))


def _not_told(wanted: ReplaceAttachments, path: Path) -> Iterator[Problem]:
    """What is wrong with the choice of attachments."""
    selected = tuple(_selected(wanted))
    if not selected:
        yield Problem(path, "say which: extension, type or name")
    for key, word in selected:
        if key == "extension" and not _EXTENSION.fullmatch(word):
            bare = word.rpartition(".")[2]
            hint = f"; write {bare}" if _EXTENSION.fullmatch(bare) else ""
            yield Problem((*path, key), f'"{word}" is no extension{hint}')
        if key == "type" and not _MEDIA_TYPE.fullmatch(word):
            yield Problem((*path, key), f'"{word}" is no media type; write application/x-msdownload or image/*')


def _not_dynamic(name: str, path: Path, sets: Mapping[str, NamedSet]) -> Iterator[Problem]:
    named = sets.get(name)
    if named is None or not named.dynamic:
        text = f'"{name}" is no dynamic set; write `{name}: {{dynamic: true}}` under sets'
        yield Problem((*path, "add_to_set", "set"), text)


def words_of(words: str | tuple[str, ...]) -> tuple[str, ...]:
    """One word or several, as several."""
    return (words,) if isinstance(words, str) else words
