# SPDX-License-Identifier: GPL-3.0-or-later
"""XML of somebody who isn't trusted."""

import tracemalloc

import pytest

from turtles.domain.xml import MAX_DEPTH, MAX_LENGTH, MAX_NODES, AnswerError, parse


def test_a_document() -> None:
    root = parse("<?xml version='1.0'?><a x='1'><!-- c --><b>text &amp; &#x41;</b><ns:c xmlns:ns='u'/></a>", "it")
    assert root.get("x") == "1"
    assert root.findtext("b") == "text & A"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("<!DOCTYPE a><a/>", "document type"),
        ("<!DOCTYPE a SYSTEM 'file:///etc/passwd'><a/>", "document type"),
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "document type"),
        ("<a>&b;</a>", "not XML"),
        ("<a>" * MAX_DEPTH + "<a/>" + "</a>" * MAX_DEPTH, "levels"),
        ("<a>" + "<b/>" * MAX_NODES + "</a>", "exceeds 20000 elements"),
        ("<a>" + "<b c='' d=''/>" * 10_000 + "</a>", "elements and attributes"),
        ("<a>" + "x" * MAX_LENGTH + "</a>", "at most 262144 are accepted"),
        ("<a>", "not XML"),
        ("", "not XML"),
        ("<a/><b/>", "not XML"),
        ("<a>\0</a>", "not XML"),
    ],
)
def test_what_is_refused(text: str, word: str) -> None:
    with pytest.raises(AnswerError, match=f"^it .*{word}"):
        parse(text, "it")


def test_the_most_that_is_taken_is_little() -> None:
    text = "<a>" + "<b/>" * (MAX_NODES - 1) + "</a>"
    tracemalloc.start()
    try:
        parse(text, "it")
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()
