"""Where the body of an HTML document begins and ends, whatever hides there."""

from __future__ import annotations

import time
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta_milter.rewriting.html import bottom, top

HERE = "@"


@pytest.mark.parametrize(
    "document",
    [
        "@",
        "@hello",
        "@<p>hello",
        "<body>@hello",
        "<BODY BGCOLOR=red>@hello",
        "<html><head><title>t</title></head><body class='a>b' id=\"c>d\">@hello",
        '<!DOCTYPE html PUBLIC "-//W3C//DTD" "x">\n<html>\n<head>\n<meta charset=utf-8>\n</head>\n<body>@\nhello',
        '<?xml version="1.0"?><html><body/>@hello',
        "<html><!-- <body> --><body>@hello",
        "<!--[if mso]><body class=mso><![endif]--><![if !mso]><body>@hello",
        "@<!--><body>hello --><body>",
        "<html>@<!---><body>hello --><body>",
        "@<!-- --!><body><body>hello --><body>",
        "<html><style><body></stylex><body></style ><body>@hello",
        "<html>@<title><body></title><body>",
        "<html><title>a > b</title><body>@",
        "<head><title>a</title>@<script><!--<script></script><body></script><body>hello",
        "<head>@<noscript><body></noscript></head><body>",
        "<head>@<template><body></template></head><body>",
        "@<div style='display:none'><body>hello",
        "<html>@words<body>hello",
        "<html>@<svg><body>hello",
        "@<bodyx>hello",
        "@</body><body>hello",
        "@</ head><body>",
        "@<!-- never ends <body>hello",
        "@<style> never ends <body>hello",
        "@<title> never ends",
        "<body>@<!-- c -->hello",
        "<html>@<body never ends",
        "<html @",
        '<html><meta content="never ends>@hello',
        "\ufeff@hello",
        "\ufeff<html><body>@hello",
        "<base href=x><link rel=y></link><body>@",
    ],
)
def test_the_top(document):
    before, _, after = document.partition(HERE)
    assert top((before + after).encode()) == (len(before.encode()) if document != "<html @" else 0)


@pytest.mark.parametrize(
    "document",
    [
        "@",
        "hello@",
        "hello@</body></html>",
        "<html>hello@</html>",
        "<!-- head --><p>hello@</body>",
        "hello</body>@</BODY ></html>",
        "hello@</body><!-- </body> -->",
        "hello@</html><!-- </body> --><!-- </body>",
        "hello<!-- </body>@",
    ],
)
def test_the_bottom(document):
    before, _, after = document.partition(HERE)
    assert bottom((before + after).encode()) == len(before.encode())


pieces = st.lists(
    st.sampled_from([
        "<html>", "<head>", "<body>", "<body a='>'>", "</body>", "</html>", "<!--", "-->", "--!>", "<style>",
        "</style>", "<title>", "</title>", "<script>", "</script>", "<div hidden>", "text", " ", "\n", "<", ">", "'",
        '"', "<meta x>", "<template>", "</", "<!", "<?",
    ]),
    max_size=12,
).map("".join)  # fmt: skip


class _Shown(HTMLParser):
    """Whether the mark is a tag of the document, and before all of its text."""

    def __init__(self):
        super().__init__()
        self.found = self.late = False

    def handle_starttag(self, tag, attributes):
        self.found = self.found or tag == "mark"

    def handle_data(self, data):
        self.late = self.late or (not self.found and bool(data.strip()) and self.lasttag not in ("style", "title"))


@given(pieces)
def test_what_is_put_at_the_top_is_a_tag_before_all_text(document):
    place = top(document.encode())
    parser = _Shown()
    parser.feed(document[:place] + "<mark>" + document[place:])
    parser.close()

    assert parser.found
    assert not parser.late


@given(pieces)
def test_the_bottom_is_a_place_in_the_document(document):
    assert 0 <= bottom(document.encode()) <= len(document)


@pytest.mark.parametrize(
    "document",
    ["<html>" * 150_000, "<" * 1_000_000, '<meta "' * 150_000, "<meta '\"" * 120_000, "<!--" * 250_000,
     "<style>" * 140_000, "<style></style>" * 60_000, "<!-- </body> " * 80_000, "<!--</body>-->" * 70_000,
     " " * 1_000_000],
    ids=lambda each: each[:10],
)  # fmt: skip
def test_hostile_documents_cost_little(document):
    octets = document.encode()
    began = time.process_time()
    top(octets)
    bottom(octets)

    assert time.process_time() - began < 2
