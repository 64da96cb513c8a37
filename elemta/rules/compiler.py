"""Compiling rules: what does each rule of the YAML mean, and what is wrong with it?

Turns `RuleModel`s into a `Ruleset`, and collects every mistake with its place: unknown facts, classes and sets, facts
that are known too late, replies that contradict `then`, actions that cannot be meant, rules that can never be reached.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from elemta.check import Stage
from elemta.config.problems import Path, Problem
from elemta.config.rule_model import RuleModel
from elemta.rules.actions import read_actions, words_of
from elemta.rules.catalogue import Catalogue
from elemta.rules.conditions import Condition, Conditions
from elemta.rules.reach import unreachable_rules
from elemta.rules.ruleset import Rule, Ruleset
from elemta.rules.sets import NamedSet
from elemta.rules.templates import Template, compile_template, names
from elemta.rules.view import Given, View
from elemta.verdict import Disposition

_REPLY = re.compile(r"([245]\d\d) (?:([245])\.\d{1,3}\.\d{1,3} )?\S.*")
_DEFAULT_REPLY: Mapping[Disposition, str] = {
    Disposition.REJECT: "550 5.7.1 Refused by policy. Reference {id}",
    Disposition.DEFER: "451 4.7.1 Not now, please try again later. Reference {id}",
}


@dataclass(frozen=True)
class Surroundings:
    """What rules are compiled against.

    Attributes:
        facts: every fact there is.
        sets: the named sets.
        classes: names of the classes, in order.
        host: our name.
    """

    facts: Catalogue
    sets: Mapping[str, NamedSet]
    classes: Sequence[str]
    host: str


def compile_rules(
    models: Sequence[RuleModel], path: Path, latest: Stage, around: Surroundings
) -> tuple[Ruleset, list[Problem]]:
    """Make the rules at `path` ready; with every mistake found in them.

    Args:
        models: the rules as the file has them.
        path: where they stand, ("rules", "message").
        latest: facts known later than this cannot be used.
        around: facts, sets and classes.
    """
    problems: list[Problem] = []
    rules: list[Rule] = []
    seen: dict[str, int] = {}
    for index, model in enumerate(models):
        here = (*path, index)
        if model.id in seen:
            problems.append(
                Problem((*here, "id"), f'rule "{model.id}" stands already at place {seen[model.id]}; ids are unique')
            )
        seen.setdefault(model.id, index)
        compiler = _RuleCompiler(model, here, latest, around)
        rule = compiler.rule()
        problems += compiler.problems
        if model.mode != "off":
            rules.append(rule)
    problems += unreachable_rules(models, path, around.facts)
    return Ruleset(tuple(rules)), problems


class _RuleCompiler:
    """Compiles one rule and collects its mistakes."""

    def __init__(self, model: RuleModel, path: Path, latest: Stage, around: Surroundings) -> None:
        self.model = model
        self.path = path
        self.around = around
        self.conditions = Conditions(around.facts, around.sets, latest)
        self.problems = self.conditions.problems
        self.durations = frozenset(fact.name for fact in around.facts if fact.unit == "s")
        self.latest = latest
        self.asked: list[str] = []

    def rule(self) -> Rule:
        model = self.model
        tests = (*self._class(), *self._percent(), *self.conditions.read(model.when, (*self.path, "when")))
        unless = self.conditions.read(model.unless, (*self.path, "unless"))
        if unless:
            tests = (*tests, _unless(unless))
        reply = self._reply()
        before = len(self.problems)
        actions, problems = read_actions(model, self.path, self.latest, self._template, self.around.sets)
        self.problems += problems
        if not (model.then or actions or model.mode == "off") and len(self.problems) == before:
            text = "this rule does nothing; write `then:`, an action such as add_header, or mode: off"
            self.problems.append(Problem(self.path, text))
        facts = dict.fromkeys(name for test in tests for name in test.facts)
        facts.update(dict.fromkeys(self.asked))
        return Rule(
            id=model.id,
            tests=tuple(test.test for test in tests),
            texts=tuple(test.text for test in tests),
            facts=tuple(facts),
            final=model.then is not None,
            disposition=Disposition(model.then or "accept"),
            reply=reply,
            actions=tuple(actions),
            shadow=model.mode == "shadow",
        )

    def _class(self) -> tuple[Condition, ...]:
        asked = self.model.class_
        wanted = () if asked is None else words_of(asked)
        if asked == ():
            text = "an empty list names no class; write at least one, or remove the key"
            self.problems.append(Problem((*self.path, "class"), text))
        for name in wanted:
            if name not in self.around.classes:
                text = f'there is no class "{name}"; there are {", ".join(self.around.classes)}'
                self.problems.append(Problem((*self.path, "class"), text))
        if not wanted:
            return ()
        text = f"class is {' or '.join(wanted)}"
        names_ = frozenset(wanted)
        return (Condition(lambda view: view.klass in names_, text, ()),)

    def _percent(self) -> tuple[Condition, ...]:
        percent, rule = self.model.percent, self.model.id
        if percent >= 100:
            return ()
        return (Condition(lambda view: share(rule, view) < percent, f"in the {percent:g} % of messages", ()),)

    def _template(
        self, text: str, path: Path, *, later: tuple[str, ...] = (), escape: Callable[[str], str] = str
    ) -> Template | None:
        """Compile a template, checking the facts it names."""
        given = {"rule": self.model.id, "host": self.around.host}
        before = len(self.problems)
        try:
            for name in names(text):
                if name not in ("id", *given, *later):
                    self._ask(name, path)
            if len(self.problems) == before:
                return compile_template(text, self.durations, given=given, later=later, escape=escape)
        except ValueError as error:
            self.problems.append(Problem(path, str(error)))
        return None

    def _ask(self, name: str, path: Path) -> None:
        """Note that a template asks for this fact, or why it cannot."""
        try:
            misplaced = self.conditions.misplaced(self.around.facts.find(name))
        except KeyError as error:
            misplaced = str(error.args[0])
        if misplaced:
            self.problems.append(Problem(path, misplaced))
        else:
            self.asked.append(name)

    def _reply(self) -> Template | None:
        model, path = self.model, (*self.path, "reply")
        disposition = Disposition(model.then) if model.then else None
        if model.reply is None:
            default = _DEFAULT_REPLY.get(disposition) if disposition else None
            return compile_template(default) if default else None
        if disposition not in _DEFAULT_REPLY:
            then = f"then: {model.then}" if model.then else "a rule without then"
            self.problems.append(Problem(path, f"{then} sends no reply; remove it, or write then: reject or defer"))
            return None
        match = _REPLY.fullmatch(model.reply)
        wanted = "5" if disposition is Disposition.REJECT else "4"
        if match is None:
            lines = "; on one line, without `|`" if "\n" in model.reply else ""
            text = f'write the code, the enhanced code and a text: "{wanted}50 {wanted}.7.1 …"{lines}'
            self.problems.append(Problem(path, text))
        elif match[1][0] != wanted or (match[2] or wanted) != wanted:
            begins = model.reply[:12].strip()
            text = f'"{begins}…" contradicts then: {model.then}, which answers {wanted}xx {wanted}.x.x'
            self.problems.append(Problem(path, text))
        return self._template(model.reply, path)


def _unless(conditions: tuple[Condition, ...]) -> Condition:
    """The rule does not match when all of these hold."""
    tests = tuple(condition.test for condition in conditions)
    text = "unless " + " and ".join(condition.text for condition in conditions)
    facts = tuple(name for condition in conditions for name in condition.facts)
    return Condition(lambda view: not all(test(view) for test in tests), text, facts)


def share(rule: str, view: View) -> float:
    """Where this message falls between 0 and 100 for this rule: the same at every retry and rehearsal.

    A message is known by its Message-ID where it has one, else by sender and recipients.  One that a test in the
    configuration gives is in every share, so that a rule for few messages can be proven.
    """
    if isinstance(view, Given):
        return 0.0
    ids = view.message.header("message-id") if view.message is not None else ()
    key = (
        ids[0].strip()
        if ids
        else "\n".join((view.envelope.sender, *view.envelope.recipients)).encode("utf-8", "replace")
    )
    digest = blake2b(rule.encode() + b"\0" + key, digest_size=8).digest()
    return int.from_bytes(digest) / 2**64 * 100
