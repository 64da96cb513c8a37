"""Whatever stands in the file: settings that can be shown again, or ConfigErrors; never anything else, never slow."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from elemta.config.load import load, loaded_and
from elemta.config.model import Settings
from elemta.config.problems import ConfigErrors, path_text
from elemta.policy import Policy

QUICK = settings(deadline=3000, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
KEYS = st.sampled_from([
    *Settings.model_fields, "include", "<<", "timeout", "budget", "listen", "workers", "path", "file", "dynamic",
    "recipient", "message", "id", "when", "unless", "then", "reply", "class", "percent", "mode", "add_to_set", "name",
    "given", "expect", "all", "any", "not", "in", "glob", "regex", "spf", "dnsbl", "client.address", "header.x",
    "trouble",
])  # fmt: skip
WORDS = st.sampled_from([
    "mx.test", "5s", "1h30m", "unix:/run/x", "inet:[::1]:5", "sqlite:///x", "redis://", "yes", "${HOST}", "${NO}",
    "$${x}", "file:x", "pass", "fail", "accept", "reject", "550 5.7.1 {sender}", "{", "10.0.0.0/8", "(", "*", "", "\0",
    "\u2028", "👤",
])  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=5), inner, max_size=5),
    max_leaves=25,
)
FILES = st.dictionaries(KEYS, VALUES, max_size=8).map(lambda data: {"host": "mx.test", **data})


def read(octets):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "elemta.yaml"
        path.write_bytes(octets)
        try:
            loaded = load(path, {"HOST": "mx.test"})
            assert isinstance(loaded.settings, Settings)
        except ConfigErrors as errors:
            check_problems(errors)
        try:
            for problem in loaded_and(Policy.compile, path, {"HOST": "mx.test"}).run_tests():
                assert path_text(problem.path).startswith("tests[")
        except ConfigErrors as errors:
            check_problems(errors)


def check_problems(errors):
    assert errors.problems
    for problem in errors.problems:
        assert problem.origin.file
        assert problem.message
        assert "\n" not in str(problem)
        assert path_text(problem.path).isprintable()


@QUICK
@given(st.binary(max_size=200))
@example(b"\xff\xfeh\x00")
@example(b"host: \x85x")
@example(b"a: \xe2\x80\xa8 b")
@example(b"? ? ? x")
@example(b"%YAML 9.9\n--- x")
@example(b"--- &a !!map *a")
@example(b"&a x: *a")
@example(b"*a : x")
def test_any_octets(octets):
    read(octets)


@QUICK
@given(st.text(alphabet="ab:-[]{},&*!|>'\"%@`#?<$\\ \t\n\r0.", max_size=120))
def test_any_punctuation(text):
    read(text.encode())


@QUICK
@given(FILES)
def test_any_values(data):
    read(yaml.safe_dump(data, allow_unicode=True).encode())


@QUICK
@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=6), max_size=3), st.sampled_from(["recipient", "message"]))
def test_any_rules(rules, stage):
    read(
        yaml.safe_dump(
            {"host": "mx.test", "checks": {"spf": None}, "rules": {stage: rules}}, allow_unicode=True
        ).encode()
    )


FACTS = st.sampled_from(["size", "client.address", "sender.domain", "subject", "smtputf8", "spf", "class", "header.X"])


@QUICK
@given(st.dictionaries(FACTS, SCALARS | st.lists(SCALARS, max_size=2), max_size=3))
def test_any_facts_in_a_test(facts):
    rules = [
        {"id": f"rule-{number}", "when": when, "then": "reject"}
        for number, when in enumerate([
            {"size": {"ge": 5}}, {"client.address": {"cidr": "10.0.0.0/8"}}, {"sender.domain": {"in": ["a.test"]}},
            {"subject": {"regex": "a"}}, {"smtputf8": True}, {"spf": ["pass", "fail"]}, {"header.x": {"glob": "a*"}},
        ])
    ]  # fmt: skip
    data = {
        "host": "mx.test",
        "checks": {"spf": None},
        "rules": {"message": rules},
        "tests": [{"name": "t", "given": facts, "expect": {"then": "accept"}}],
    }
    read(yaml.safe_dump(data, allow_unicode=True).encode())


@QUICK
@given(st.lists(FILES | st.just({}), min_size=1, max_size=4))
def test_any_includes(files):
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(files):
            Path(folder, f"{number}.yaml").write_text(yaml.safe_dump(data))
        path = Path(folder) / "elemta.yaml"
        path.write_text("host: mx.test\ninclude: '?.yaml'\n")
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            try:
                load(path, {})
            except ConfigErrors as errors:
                check_problems(errors)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "piece", ["[", "{", "- ", "? ", "a: ", "&a ", "*a ", "!x ", "'", '"', "|", "\n ", "x: [", "${", "<<: *a\n"]
)
def test_a_megabyte_of_one_thing_ends_soon(piece):
    read(b"a: &a {b: c}\n" + piece.encode() * ((1 << 20) // len(piece)))
