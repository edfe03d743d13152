# SPDX-License-Identifier: GPL-3.0-or-later
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turtles.api import conditions, quantity


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("64M", 64_000_000),
        ("1Gi", 2**30),
        ("100m", Fraction(1, 10)),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1E", 10**18),
        ("1.5Ki", 1536),
        (".5", Fraction(1, 2)),
        ("-1", -1),
        ("9" * 40, 2**63 - 1),
        ("-16E", 1 - 2**63),
        (7, 7),
        (0.5, Fraction(1, 2)),
    ],
)
def test_quantity(text, value):
    assert quantity.parse(text) == value


@pytest.mark.parametrize("text", ["", "M", "1 M", "1mi", "1KiB", "1e", "0x1", "1e9999", True, None, [], "1" * 200])
def test_no_quantity(text):
    with pytest.raises(quantity.QuantityError):
        quantity.parse(text)


@given(st.text() | st.floats() | st.integers())
def test_quantity_never_fails_otherwise(value):
    try:
        quantity.to_int(value)
        quantity.to_milli(value)
    except quantity.QuantityError:
        pass


@given(st.integers(min_value=0, max_value=2**63 - 1))
def test_binary_format_is_exact(count):
    assert quantity.to_int(quantity.format_binary(count)) == count


def test_milli_format():
    assert [quantity.format_milli(count) for count in (100, 1000, 1500)] == ["100m", "1", "1500m"]


def test_condition_keeps_transition_time_while_status_stays():
    found: list[dict] = []
    assert conditions.set_condition(found, "Ready", "False", "PodNotExists", "no Pod", "t1")
    assert not conditions.set_condition(found, "Ready", "False", "PodNotExists", "no Pod", "t2")
    assert conditions.set_condition(found, "Ready", "False", "GuestNotRunning", "", "t3")
    assert found == [
        {
            "type": "Ready",
            "status": "False",
            "reason": "GuestNotRunning",
            "lastProbeTime": None,
            "lastTransitionTime": "t1",
        }
    ]
    assert conditions.set_condition(found, "Ready", "True", now="t4")
    assert conditions.is_true(found, "Ready")
    assert found[0]["lastTransitionTime"] == "t4"
    assert conditions.remove_condition(found, "Ready")
    assert not conditions.remove_condition(found, "Ready")
    assert conditions.get_condition(None, "Ready") is None
