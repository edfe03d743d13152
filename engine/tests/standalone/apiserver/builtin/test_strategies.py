# SPDX-License-Identifier: GPL-3.0-or-later
"""Every built-in kind has a strategy, and no strategy is without its kind."""

from turtles.standalone.apiserver.builtin.strategies import STRATEGIES
from turtles.standalone.apiserver.schema.kinds import BUILTIN


def test_every_builtin_kind_has_a_strategy() -> None:
    assert set(STRATEGIES) == {kind.resource for kind in BUILTIN}
