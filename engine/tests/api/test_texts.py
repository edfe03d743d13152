# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers and JSON of strangers."""

import pytest

from turtles.api.texts import from_json, to_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("007", 7),
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", None),
        ("0" * 5000 + "5", 5),
        ("9" * 5000, None),
        ("", None),
        ("-1", None),
        ("+1", None),
        (" 1", None),
        ("1\n", None),
        ("1_0", None),
        ("²", None),
        ("٣", None),
    ],
)
def test_numbers(text: str, number: int | None) -> None:
    assert to_number(text) == number


def test_a_number_may_have_a_limit() -> None:
    assert (to_number("100", 100), to_number("101", 100)) == (100, None)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"a":' * 100_000, b"\xff", "9" * 5000])
def test_whatever_is_wrong_with_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        from_json(text)


def test_json() -> None:
    assert from_json(b'{"a": [1]}') == {"a": [1]}
