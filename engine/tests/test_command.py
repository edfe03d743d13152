# SPDX-License-Identifier: GPL-3.0-or-later
"""What all commands do alike."""

import importlib
import json
import os
import signal
import ssl
import threading
import urllib.request
from collections.abc import Iterator

import pytest

from turtles import __version__
from turtles.command import UNUSABLE, Command, Tool
from turtles.errors import ConfigurationError
from turtles.metrics import Description, Sample, Source
from turtles.standalone.main import COMMANDS as SUBCOMMANDS
from turtles.standalone.main import main as virt_standalone

COMMANDS = {
    "turtles.controller.main": [],
    "turtles.handler.main": ["--node-name=n"],
    "turtles.standalone.controller_manager": ["--volumes-dir=/nonexistent"],
    "turtles.virt_api.main": [],
}


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """Leave signals to whom they belonged."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def last_line(capsys: pytest.CaptureFixture[str]) -> dict:
    return json.loads(capsys.readouterr().err.strip().splitlines()[-1])


def test_success_and_the_command_s_own_code() -> None:
    command = Command("virt-thing", "Does things.")
    assert command.run(lambda options: None, []) == 0
    assert command.run(lambda options: 3, []) == 3


def test_what_cannot_be_configured_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def main(options: object) -> None:
        raise ConfigurationError("the file x has no y: add it")

    assert Command("virt-thing", "Does things.", component="thing").run(main, []) == UNUSABLE
    line = last_line(capsys)
    assert (line["component"], line["level"], line["msg"]) == ("thing", "error", "the file x has no y: add it")
    assert "exception" not in line


def test_signals_stop_it() -> None:
    command = Command("virt-thing", "Does things.")

    def main(options: object) -> int:
        threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
        return 0 if command.stopped.wait(60) else 1

    assert command.run(main, []) == 0


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        Command("virt-thing", "Does things.").run(lambda options: None, ["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == __version__


def test_health_is_served_while_it_runs() -> None:
    command = Command("virt-thing", "Does things.")
    command.add_health()

    def main(options: object) -> None:
        things = Source((Description("things", "Things."),), lambda: [Sample("things", {}, 2.0)])
        with command.health(options, lambda: True, (things,)) as server:
            url = f"https://127.0.0.1:{server.port}/metrics"
            with urllib.request.urlopen(url, context=ssl._create_unverified_context()) as answer:
                assert b"\nthings 2.0\n" in answer.read()

    assert command.run(main, ["--health-bind=127.0.0.1", "--health-port=0"]) == 0


def test_an_address_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    command = Command("virt-thing", "Does things.")
    command.add_health()

    def main(options: object) -> None:
        with command.health(options, lambda: True) as first:
            options.health_port = first.port
            with command.health(options, lambda: True):
                pass

    assert command.run(main, ["--health-bind=127.0.0.1", "--health-port=0"]) == UNUSABLE
    assert "can't serve health at 127.0.0.1:" in last_line(capsys)["msg"]


@pytest.mark.parametrize("module", COMMANDS)
def test_a_kubeconfig_that_is_not_there(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    main = importlib.import_module(module).main
    assert main([*COMMANDS[module], "--kubeconfig=/nonexistent/kubeconfig"]) == UNUSABLE
    assert "/nonexistent/kubeconfig" in last_line(capsys)["msg"]


def test_a_tool_prints_its_result(capsys: pytest.CaptureFixture[str]) -> None:
    assert Tool("virt-thing tool", "Does one thing.").report(lambda options: {"done": True}, []) == 0
    assert json.loads(capsys.readouterr().out) == {"done": True}


@pytest.mark.parametrize(
    ("error", "code"), [(OSError("no"), 1), (KeyError("no"), 1), (ConfigurationError("no"), UNUSABLE)]
)
def test_a_tool_that_fails_says_so_in_words(error: Exception, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    def act(options: object) -> dict:
        raise error

    assert Tool("virt-thing tool", "Does one thing.").report(act, [], (KeyError,)) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"virt-thing tool: {error}\n"


@pytest.mark.parametrize("name", sorted(SUBCOMMANDS))
def test_every_subcommand_has_the_common_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        virt_standalone([name, "--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.strip() == __version__
