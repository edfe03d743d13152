# SPDX-License-Identifier: GPL-3.0-or-later
from collections.abc import Iterator
from typing import Any

import pytest

from turtles.launcher import probe


class Agent:
    """A guest's agent whose command ends after some questions."""

    def __init__(self, *statuses: dict[str, Any]) -> None:
        self.statuses: Iterator[dict[str, Any]] = iter(statuses)
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, command: str, arguments: dict[str, Any], seconds: int) -> Any:
        self.asked.append((command, arguments))
        return {"pid": 7} if command == "guest-exec" else next(self.statuses)


def test_the_result_is_the_commands_exit_status() -> None:
    agent = Agent({"exited": False}, {"exited": True, "exitcode": 3})
    assert probe.run(agent, ["cat", "-n", "/x"], 1) == 3
    assert agent.asked[0] == ("guest-exec", {"path": "cat", "arg": ["-n", "/x"], "capture-output": True})
    assert agent.asked[1:] == [("guest-exec-status", {"pid": 7})] * 2


def test_a_command_has_to_end_in_time() -> None:
    times = iter(range(100))
    agent = Agent(*[{"exited": False}] * 9)
    with pytest.raises(probe.ProbeError, match="sleep has not ended in the guest within 2 s"):
        probe.run(agent, ["sleep"], 2, lambda: float(next(times)))


def test_a_command_that_was_killed_is_no_success() -> None:
    with pytest.raises(probe.ProbeError, match="signal 9"):
        probe.run(Agent({"exited": True, "signal": 9}), ["x"], 1)


@pytest.mark.parametrize(
    "status", [5, None, [], "x", {"exited": True, "exitcode": "²"}, {"exited": True, "exitcode": []}]
)
def test_an_agent_that_lies_is_told_of_in_one_line(status: Any) -> None:
    with pytest.raises(probe.ProbeError, match="gave an answer that makes no sense"):
        probe.run(Agent(status), ["x"], 1)


def test_arguments_of_the_command_may_look_like_options() -> None:
    options = probe._parser().parse_args(["--domainName", "d", "--command", "ls", "--", "--timeoutSeconds", "-l"])
    assert (options.command, options.arguments, options.timeoutSeconds) == ("ls", ["--timeoutSeconds", "-l"], 1)


def test_a_probe_without_libvirt_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert probe.main(["--domainName", "d", "--guestAgentPing"]) == probe.FAILED
    assert "libvirt" in capsys.readouterr().err
