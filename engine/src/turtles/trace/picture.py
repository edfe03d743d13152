# SPDX-License-Identifier: GPL-3.0-or-later
"""Draws the steps of a virtual machine along an axis of time, a line for each component, as SVG. Pure."""

import math
from collections.abc import Sequence
from xml.etree.ElementTree import Element, SubElement, tostring

from turtles.trace.steps import Step

#: Pixels: the whole picture's width, where the axis begins and ends, a line's height, a label's height.
_WIDTH, _LEFT, _RIGHT, _LINE, _LABEL = 1200, 170, 40, 26, 15
#: About as many marks as an axis has, and the steps that they may be apart, times a power of ten.
_MARKS, _STEPS = 8, (1, 2, 5, 10)
_COLOURS = ("#2f6db5", "#c2571a", "#3b8a3e", "#8a4fa3", "#a33a4b", "#4d7d86", "#7a6a1f", "#555555")


def draw(title: str, steps: Sequence[Step]) -> str:
    """Return the picture of steps, in the order of time; there must be one.

    Each step is a mark on its component's line, and a labelled row below, so that steps of one moment can be read.
    """
    began, length = steps[0].time, max(steps[-1].time - steps[0].time, 0.001)
    scale = (_WIDTH - _LEFT - _RIGHT) / length
    components = list(dict.fromkeys(step.component for step in steps))
    colours = {component: _COLOURS[number % len(_COLOURS)] for number, component in enumerate(components)}
    axis = 40 + _LINE * len(components)
    height = axis + 30 + _LABEL * len(steps) + 10
    root = Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {_WIDTH} {height}",
            "font-family": "sans-serif",
            "font-size": "12",
        },
    )
    SubElement(root, "rect", width=str(_WIDTH), height=str(height), fill="white")
    _text(root, 10, 20, title, weight="bold")
    for mark in _marks(length):
        x = _LEFT + mark * scale
        _line(root, x, 30, x, height - 10, "#dddddd")
        _text(root, x + 3, axis + 14, f"{mark:g} s", fill="#666666")
    for number, component in enumerate(components):
        y = 40 + _LINE * number + _LINE / 2
        _text(root, 10, y + 4, component, fill=colours[component])
        _line(root, _LEFT, y, _WIDTH - _RIGHT, y, "#eeeeee")
    for number, step in enumerate(steps):
        x = _LEFT + (step.time - began) * scale
        y = 40 + _LINE * components.index(step.component) + _LINE / 2
        row = axis + 30 + _LABEL * number
        colour = colours[step.component]
        circle = SubElement(root, "circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r="5", fill=colour)
        SubElement(circle, "title").text = f"{step.time - began:.3f} s: {step.text()}"
        # Labels of late steps are to the left of their marks, where there is room.
        late = x > _WIDTH * 0.6
        _line(root, x, row - 9, x, row + 3, colour)
        label = f"{step.time - began:.3f} {step.text()}"
        _text(root, x - 5 if late else x + 5, row, label, fill=colour, anchor="end" if late else "start", size="11")
    return tostring(root, encoding="unicode")


def _marks(length: float) -> list[float]:
    """Return round times along an axis."""
    rough = length / _MARKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in _STEPS if power * factor >= rough)
    return [round(number * step, 9) for number in range(int(length / step) + 1)]


def _line(root: Element, x1: float, y1: float, x2: float, y2: float, colour: str) -> None:
    ends = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    SubElement(root, "line", {key: f"{value:.1f}" for key, value in ends.items()} | {"stroke": colour})


def _text(
    root: Element,
    x: float,
    y: float,
    words: str,
    *,
    fill: str = "black",
    anchor: str = "start",
    size: str = "12",
    weight: str = "normal",
) -> None:
    text = SubElement(
        root,
        "text",
        {
            "x": f"{x:.1f}",
            "y": f"{y:.1f}",
            "fill": fill,
            "text-anchor": anchor,
            "font-size": size,
            "font-weight": weight,
        },
    )
    text.text = words
