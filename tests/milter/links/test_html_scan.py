"""The scanner of HTML: text, hidden text, addresses, in linear time."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elemta_milter.links.html import Anchor, scan


def test_text_and_anchors():
    found = scan("<p>Dear&nbsp;you,<br>see <a href='http://x.test/?a=1&amp;b=2'>our\n <b>shop</b></a> &lt;now&gt;</p>")

    assert "".join(found.shown).split() == ["Dear", "you,", "see", "our", "shop", "<now>"]
    assert found.anchors == [Anchor("http://x.test/?a=1&b=2", "our shop")]


@pytest.mark.parametrize(
    ("entity", "shown"),
    [
        (f"&#{'0' * 10_000}65;", "A"),
        (f"&#x{'0' * 10_000}41;", "A"),
        (f"&#{'0' * 10_000};", "\ufffd"),
        (f"&#{'9' * 10_000};", "\ufffd"),
        ("&#000000065;", "A"),
    ],
)
def test_an_entity_of_any_length(entity, shown):
    assert scan(f"<p>{entity}</p>").shown == [" ", shown, " "]


@pytest.mark.parametrize(
    "html",
    [
        '<a href="http://x.test/">',
        "<A\nHREF = http://x.test/ >",
        "<a/href='http://x.test/'/>",
        '<a title="<b>" href="http://x.test/">',
        "<img src=http://x.test/>",
        '<td background="http://x.test/">',
        '<form action="http://x.test/">',
        "<img srcset='http://x.test/ 2x'>",
        "<link imagesrcset='http://x.test/ 2x'>",
        "<v:imagedata o:href='http://x.test/'>",
        *(f"<svg><{each}><p><a href='http://x.test/'>" for each in ("style", "script", "title", "textarea", "xmp")),
        "<MATH><style><p><a href='http://x.test/'>",
        '<meta http-equiv=refresh content="0; URL=http://x.test/">',
        '<a href="http://x.test/',
        '<a href="&#104;ttp://x.test/">',
        '<a href="http://x.test/" href="http://y.test/">',
        '<![CDATA[<a href="no">]]><a href="http://x.test/">',
        '<!--><a href="http://x.test/">',
        '<!-- <a href="no"> --><a href="http://x.test/">',
        '<script>"<a href=no>"</script><a href="http://x.test/">',
        '<!-- <a href="no"> --!><a href="http://x.test/">',
        '<!--!> <a href="no"> --><a href="http://x.test/">',
        '<!---><a href="http://x.test/">',
        '<style></stylex><!--</style><a href="http://x.test/">',
        '<iframe><!--</iframe><a href="http://x.test/">',
        '<noframes><!--</noframes><a href="http://x.test/">',
        '<noembed><a title="</noembed><a href="http://x.test/">',
        '<noscript><!--</noscript><a href="http://x.test/">',
        '<noscript><a href="http://x.test/"></noscript>',
        '<iframe><a href="http://x.test/"></iframe>',
        '<noframes><a href="http://x.test/">',
        '<noembed><a href="http://x.test/">',
        '<noscript><iframe><!--</iframe><a href="http://x.test/">',
        '<!--[if mso]><a href="http://x.test/"><![endif]-->',
        '<!--[If gte mso 9]><style>--><a href="http://x.test/"><!--</style><![endif]-->',
        '<!--[if mso]><a href="http://x.test/">',
        '<b x=\xa0"><a href="http://x.test/"></b>',
        '<b x=\x0b"><a href="http://x.test/"></b>',
        '<a\xa0href="no"><a href="http://x.test/">',
        '<meta http-equiv=refresh content="0;http://x.test/">',
        "<meta http-equiv=refresh content=\" 0.5 , U&#82;L = 'http://x.test/' no\">",
        '<iframe srcdoc="<a href=http://x.test/>">',
        '<iframe srcdoc="&lt;a href=&quot;http://x.test/&quot;>">',
        '<p style="background:url(http://x.test/)">',
        "<p style=\"background:\\75rl( 'http://x.test/' )\">",
        "<style>@import 'http://x.test/';</style>",
        "<style>@import url(http://x.test/);</style>",
        "<style>@import\nurl( 'http://x.test/' );</style>",
        '<style>a{b:url("\\68 ttp:\\/\\/x.test/")}</style>',
        "<img lowsrc=http://x.test/>",
    ],
)
def test_addresses(html):
    assert scan(html).addresses == ["http://x.test/"]


@pytest.mark.parametrize("style", ['@import url("{}");', "@import '{}';", "a{{background:url({});color:red}}"])
def test_an_address_in_a_style_goes_on_behind_a_semicolon(style):
    address = "https://fonts.test/css2?family=Lato:wght@400;700&display=swap"

    assert scan(f"<style>{style.format(address)}</style>").addresses == [address]


@pytest.mark.parametrize(
    "html",
    [
        "<p style='display: none'>x</p>y",
        "<div style=display:none>x<div>x</div>x</div>y",
        "<span style='font-size:0px'>x</span>y",
        "<span style='font-size:0.0em'>x</span>y",
        "<span hidden>x</span>y",
        "<style>x</style><title>x</title>y",
        "<script>x<b></script>y",
        "<!-- x -->y",
    ],
)
def test_what_nobody_sees(html):
    assert "".join(scan(html).shown).strip() == "y"


def test_what_hides_is_counted_once_where_scripts_would_change_it():
    found = scan("<p hidden>x</p><noscript><!--</noscript><a href=http://x.test/>y</a>-->")

    assert (found.hidden, found.addresses) == (["x"], ["http://x.test/"])


def test_what_is_small_is_seen():
    assert "".join(scan("<p style='font-size:0.8em; opacity:0.5'>x</p>").shown).strip() == "x"


def test_hidden_text_is_no_text_of_an_anchor():
    found = scan("<a href=http://evil.test><i style=display:none>evil.test</i>bank.test</a>")

    assert found.anchors == [Anchor("http://evil.test", "bank.test")]


HOSTILE = [
    *(
        "<",
        "<a ",
        "<a href=",
        '<a href="',
        "<!--",
        "<style>",
        "</a",
        "<a b='c'>",
        "<p style=display:none>",
        "<a href=x>",
    ),
    *(
        "<!--[if a]>",
        "<!--[if ",
        "<noscript>",
        "<iframe>",
        "<iframe srcdoc='",
        "<iframe srcdoc='<!--[if a]>'>",
        "<p style='url(",
        "<style>@import" + " " * 5000,
        "<style>\\",
    ),
    *("<x", "display : ", "&#9999999999;", "&#" + "9" * 5000 + ";", "&#x" + "f" * 5000 + ";"),
]


@pytest.mark.parametrize("piece", HOSTILE, ids=range(len(HOSTILE)))
def test_time_is_linear(piece):
    began = time.process_time()
    scan(piece * (1_000_000 // len(piece)))

    assert time.process_time() - began < 10  # it takes at most one


@given(
    st.lists(
        st.sampled_from(
            [
                "<",
                ">",
                "a",
                " ",
                "href",
                "=",
                '"',
                "'",
                "/",
                "!--",
                "-->",
                "script",
                "&#",
                "x;",
                "style",
                "=display:none",
            ]
        )
    )
)
def test_any_text(pieces):
    text = "".join(pieces)
    found = scan(text)

    assert len("".join(found.shown)) <= 2 * len(text) + 2
