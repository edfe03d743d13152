# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads untrusted XML: no document type, no entities, and limits on its size. Pure.

The standard library's parsers accept a document type, whose entities may stand for any amount of text, and make
objects of a document of a few megabytes that take hundreds of them.
"""

from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

#: Characters of a document, elements and attributes in it, and how deep they may be in each other. A domain with all a
#: VMI may have takes 60,000, 2,000 and 8.
MAX_LENGTH, MAX_NODES, MAX_DEPTH = 256 * 1024, 20_000, 32


class AnswerError(ValueError):
    """What a Pod has answered can't be used. The message says why."""


def parse(text: str, what: str, *, max_length: int = MAX_LENGTH, max_nodes: int = MAX_NODES) -> Element:
    """Return the document's element.

    :param what: the document is, for messages.
    :raises AnswerError: if it isn't well-formed, has a document type, or is beyond the limits.
    """
    if len(text) > max_length:
        raise AnswerError(f"{what} has {len(text)} characters, but at most {max_length} are accepted")
    builder = TreeBuilder()
    nodes = depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal nodes, depth
        nodes += 1 + len(attributes)
        depth += 1
        if nodes > max_nodes or depth > MAX_DEPTH:
            raise AnswerError(f"{what} exceeds {max_nodes} elements and attributes, or {MAX_DEPTH} levels")
        builder.start(name, attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name)

    def refuse(*_: object) -> None:
        raise AnswerError(f"{what} has a document type, which is not accepted")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise AnswerError(f"{what} is not XML: {error}") from error
    return builder.close()
