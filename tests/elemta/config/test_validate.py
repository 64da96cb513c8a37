"""Options that a plugin may have are explained as well as our own."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from ipaddress import IPv4Network
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from elemta.check import Options
from elemta.config.types import Duration, Size
from elemta.config.validate import read_options, validated


class Colour(StrEnum):
    RED = "red"
    GREEN = "green"


class Inner(Options):
    weight: float = 1.0


class Named(Options):
    name: str
    note: str = ""


class Outer(Options):
    colour: Colour = Colour.RED
    network: IPv4Network | None = None
    path: Path | None = None
    names: Annotated[list[str], Field(min_length=1, max_length=2)] = Field(default_factory=lambda: ["x"])
    paths: Annotated[tuple[Path, ...], Field(min_length=1)] = (Path("/x"),)
    word: Annotated[str, Field(min_length=2, max_length=4, pattern="^[a-z]+$")] = "ab"
    percent: Annotated[int, Field(gt=0, lt=100, multiple_of=5)] = 5
    limit: Size = 0
    until: Literal["never"] | Duration = "never"
    strict: bool = False
    inner: dict[str, Inner] | Inner | None = None
    named: Named | None = None


def complaints(**options):
    made, problems = read_options(Outer, options, ("checks", "x"))
    assert made is None
    return [str(problem) for problem in problems]


def test_nothing_is_the_defaults():
    assert read_options(Outer, None, ("checks", "x")) == (Outer(), [])


def test_what_is_right():
    made, problems = read_options(
        Outer,
        {
            "colour": "green",
            "network": "10.0.0.0/8",
            "path": "/x",
            "names": ["a"],
            "limit": "1K",
            "strict": True,
            "inner": {"weight": 2},
        },
        ("checks", "x"),
    )
    assert problems == []
    assert (made.colour, made.limit, made.inner) == (Colour.GREEN, 1024, Inner(weight=2))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"colour": "rde"}, 'checks.x.colour: unknown word "rde"; did you mean "red"?'),
        ({"colour": "blue"}, 'checks.x.colour: unknown word "blue"; write "red" or "green"'),
        ({"colour": 5}, 'checks.x.colour: the number 5 stands here; write "red" or "green"'),
        ({"strict": "yes"}, 'checks.x.strict: the text "yes" stands here; write true or false'),
        ({"strict": 1}, "checks.x.strict: the number 1 stands here; write true or false"),
        ({"percent": True}, "checks.x.percent: the boolean true stands here; write a whole number"),
        ({"percent": 2.0}, "checks.x.percent: the number 2.0 stands here; write a whole number"),
        ({"percent": 0}, "checks.x.percent: 0 is too small; write more than 0"),
        ({"percent": 100}, "checks.x.percent: 100 is too big; write less than 100"),
        ({"percent": 7}, "checks.x.percent: the number 7 stands here; input should be a multiple of 5"),
        ({"names": []}, "checks.x.names: 0 entries are too few; write 1 or more"),
        ({"names": ["a", "b", "c"]}, "checks.x.names: 3 entries are too many; write 2 or less"),
        ({"paths": []}, "checks.x.paths: 0 entries are too few; write 1 or more"),
        ({"paths": [1]}, 'checks.x.paths[0]: the number 1 stands here; write text, in quotes: "1"'),
        ({"names": "a"}, 'checks.x.names: the text "a" stands here; write a list'),
        ({"names": [1]}, 'checks.x.names[0]: the number 1 stands here; write text, in quotes: "1"'),
        ({"word": "a"}, 'checks.x.word: "a" is too short; write 2 characters or more'),
        ({"word": "abcde"}, 'checks.x.word: "abcde" is too long; write 4 characters or less'),
        ({"word": "A1"}, 'checks.x.word: "A1" does not look right; write what matches ^[a-z]+$'),
        (
            {"limit": "lots"},
            'checks.x.limit: "lots" is not a size; write octets or a number and K, M or G, such as 25M',
        ),
        ({"until": "5"}, 'checks.x.until: "5" is not a duration; write the unit too, such as 5s or 5m'),
        ({"inner": 5}, "checks.x.inner: the number 5 stands here; write a mapping of `key: value` or a mapping"),
        ({"named": {"name": None}}, "checks.x.named.name: nothing stands here; write text"),
        (
            {"named": {"name": "a", "note": None}},
            "checks.x.named.note: nothing stands here; write text, or remove the key",
        ),
        ({"inner": {"a": {"wieght": 5}}}, 'checks.x.inner.a: unknown key "wieght"; did you mean "weight"?'),
        ({"trouble": "acept"}, 'checks.x.trouble: unknown word "acept"; did you mean "accept"?'),
        (
            {"trouble": {"inbound": "ignore"}},
            'checks.x.trouble.inbound: unknown word "ignore"; write "accept", "defer", "reject" or "quarantine"',
        ),
        (
            {"timeout": "5"},
            'checks.x.timeout: "5" is not a duration; write the unit too, such as 5s or 5m',
        ),
        ({"tiemout": "5s"}, 'checks.x: unknown key "tiemout"; did you mean "timeout"?'),
    ],
)
def test_what_is_wrong(options, text):
    assert complaints(**options) == [text]


def test_kinds_of_pydantic_that_have_no_text_of_ours_still_say_something():
    assert complaints(network="10.0.0.1/8") == ["checks.x.network: 10.0.0.1/8 has host bits set"]
    assert complaints(path=5) == ['checks.x.path: the number 5 stands here; write text, in quotes: "5"']


def test_options_must_be_a_mapping():
    assert [str(each) for each in read_options(Outer, "fast", ("checks", "x"))[1]] == [
        'checks.x: the text "fast" stands here; write a mapping'
    ]


def test_options_without_a_schema_are_still_explained():
    class Odd(Options):
        call: Callable[[], Any] | None = None
        count: int = 0

    assert [str(each) for each in validated(Odd, {"count": "x", "cuont": 1})[1]] == [
        'count: the text "x" stands here; write something else',
        'unknown key "cuont"; remove it',
    ]
