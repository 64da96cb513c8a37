"""Trial: do the tests inside the configuration hold?

Each test gives facts and expects a verdict, a rule, or both; it is judged by the very function that judges mail.  Facts
not given are neutral: absent, and a check not named has not run.  A rule with `percent` is read as if it were 100.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from elemta.config.model import Settings
from elemta.config.problems import Problem, unknown
from elemta.config.rule_model import TestModel
from elemta.decision import StageName
from elemta.facts import Envelope
from elemta.findings import Finding, Result
from elemta.rules.catalogue import Catalogue
from elemta.rules.given import given
from elemta.rules.judge import Meaning, judge
from elemta.rules.ruleset import Ruleset
from elemta.rules.view import Given, View


class Tried(Protocol):
    """What a trial wants of a policy."""

    @property
    def catalogue(self) -> Catalogue:
        """Every fact."""
        ...

    @property
    def checks(self) -> Sequence[Meaning]:
        """The enabled checks."""
        ...

    @property
    def rules(self) -> Mapping[StageName, Ruleset]:
        """The rules by stage."""
        ...

    def weighing(self, stage: StageName) -> Sequence[Meaning]:
        """The checks whose trouble weighs in at a stage."""
        ...

    def klass(self, view: View) -> str:
        """The class of a mail."""
        ...


def run_tests(policy: Tried, tests: Sequence[TestModel]) -> list[Problem]:
    """Run `tests`; a problem for each that fails."""
    failed = []
    for index, test in enumerate(tests):
        complaint = _complaint(policy, test)
        if complaint:
            failed.append(Problem(("tests", index), f'test "{test.name}" failed: {complaint}'))
    return failed


def wrong_tests(settings: Settings, facts: Catalogue, unclassified: str) -> list[Problem]:
    """What is wrong with the tests themselves: unknown rules and facts, and what no mail can give."""
    problems = []
    rules = {rule.id for rule in (*settings.rules.recipient, *settings.rules.message)}
    for index, test in enumerate(settings.tests):
        if test.expect.rule is None and test.expect.then is None:
            problems.append(Problem(("tests", index, "expect"), "nothing is expected; write then, rule, or both"))
        if test.expect.rule is not None and test.expect.rule not in rules:
            problems.append(unknown(("tests", index, "expect", "rule"), "rule", test.expect.rule, rules, "value"))
        for name, told in test.given.items():
            place = ("tests", index, "given", name)
            try:
                fact = facts.find(name)
            except KeyError as error:
                problems.append(Problem(place, str(error.args[0]), "key"))
                continue
            try:
                value = given(fact, told)
            except ValueError as error:
                problems.append(Problem(place, str(error)))
                continue
            if fact.name == "class" and value not in (None, unclassified, *settings.classes):
                problems.append(unknown(place, "class", str(value), settings.classes, "value"))
    return problems


def _complaint(policy: Tried, test: TestModel) -> str:
    """What was not as expected; "" when all was."""
    view = Given(Envelope())
    for name, told in test.given.items():
        fact = policy.catalogue.find(name)
        view[fact.name] = given(fact, told)
    for check in policy.checks:
        word = view.get(check.name)
        if word is not None:
            view.findings[check.name] = Finding(check.name, Result(str(word)), trouble=word == "temperror")
    view.klass = str(view.get("class") or policy.klass(view))
    view["class"] = view.klass
    stage = _stage(policy, test)
    verdict, judgement = judge(policy.rules[stage], policy.weighing(stage), view, "TEST")
    expect, found = test.expect, []
    if expect.then is not None and verdict.disposition != expect.then:
        found.append(f"expected then: {expect.then}, got {verdict.disposition}")
    if expect.rule is not None and verdict.rule != expect.rule and expect.rule not in judgement.shadow:
        found.append(f"expected rule: {expect.rule}{_silent(policy, expect.rule)}, got {verdict.rule or 'no rule'}")
    if found and verdict.rule:
        found.append(f'rule "{verdict.rule}" decided')
    if found and expect.rule in judgement.shadow:
        found.append(f'rule "{expect.rule}" matched in shadow, without effect; while it is, expect no `then` of it')
    other: StageName = "message" if stage == "recipient" else "recipient"
    if found and test.stage is None and expect.rule not in judgement.shadow and policy.rules[other].rules:
        found.append(f"rules.{stage} were read; `stage: {other}` reads the others")
    return "; ".join(found)


def _silent(policy: Tried, name: str) -> str:
    """Why this rule never decides; "" when it may."""
    rule = next((each for rules in policy.rules.values() for each in rules.rules if each.id == name), None)
    if rule is None:
        return " (it is off)"
    return "" if rule.final else " (it has no then, and decides nothing)"


def _stage(policy: Tried, test: TestModel) -> StageName:
    """Which rules the test reads: as it says, else those that hold the expected rule, else some at all."""
    if test.stage is not None:
        return test.stage
    at_rcpt = any(rule.id == test.expect.rule for rule in policy.rules["recipient"].rules)
    return "recipient" if at_rcpt or not policy.rules["message"].rules else "message"
