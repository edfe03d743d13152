# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line. (What it does is in test_pod.)"""

from pathlib import Path

import libvirt
import pytest

from turtles import termination
from turtles.launcher import launcher
from turtles.launcher import main as command

from .conftest import VMI_UID

ARGUMENTS = ["--name", "testvm", "--uid", VMI_UID, "--namespace", "default"]


@pytest.fixture
def termination_log(tmp_path, monkeypatch):
    path = tmp_path / "termination-log"
    path.touch()
    monkeypatch.setattr(termination, "TERMINATION_LOG", path)
    return path


def test_termination_log_keeps_to_its_size(termination_log):
    termination.leave("x" * 10000)
    assert len(termination_log.read_text()) == 4096


def test_missing_termination_log_is_no_matter(tmp_path, monkeypatch):
    monkeypatch.setattr(termination, "TERMINATION_LOG", tmp_path / "none")
    termination.leave("x")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("option", ["--kubevirt-share-dir", "--ephemeral-disk-dir"])
def test_folders_are_fixed(option, capsys):
    with pytest.raises(SystemExit):
        command.main([*ARGUMENTS, option, "/elsewhere"])
    assert option in capsys.readouterr().err


def test_a_failure_quotes_no_data(termination_log, monkeypatch, capsys):
    """An exception's representation may hold what it is about, and everybody who may read Pods reads the message."""

    def fail(*_: object, **__: object) -> None:
        "-".join(("only", "the", "guest", "knows", "\ud800")).encode()

    monkeypatch.setattr(command, "Launcher", fail)
    assert command.main(ARGUMENTS) == 1
    assert termination_log.read_text().startswith("virt-launcher failed: UnicodeEncodeError: ")
    assert "only-the-guest" not in termination_log.read_text() + "".join(capsys.readouterr())


class Domain:
    """One whose state changes between two questions."""

    def __init__(self, *answers: bool | int) -> None:
        self.answers = list(answers)

    def isActive(self) -> bool:
        answer = self.answers.pop(0)
        if isinstance(answer, bool):
            return answer
        error = libvirt.libvirtError("no such domain")
        error.err = (answer, 0, "", 0, "", "", "", 0, 0)
        raise error


class Connection:
    def __init__(self) -> None:
        self.domains: list[Domain] = []

    def listAllDomains(self) -> list[Domain]:
        return self.domains


@pytest.fixture
def running(monkeypatch):
    """A launcher that has seen its domain, and has a libvirtd that the test plays."""
    monkeypatch.setattr(launcher, "after", lambda seconds, call: None)
    running = launcher.Launcher(None, 30, Path("/nonexistent"))
    running._supervisor.connection = Connection()
    running._domain_seen = True
    return running


@pytest.mark.parametrize("answers", [(False, True), (True, False)])
def test_a_domain_that_changes_while_it_is_asked_for_is_there(running, answers):
    running._supervisor.connection.domains = [Domain(*answers)]
    active, defined = running._domains()
    assert len(active + defined) == 1
    running._supervisor.connection.domains = [Domain(*answers)]
    running._follow_domain()
    assert running._undefined_at is None
    assert running._exit_status is None


def test_a_domain_that_goes_while_it_is_asked_for_is_not(running):
    running._supervisor.connection.domains = [Domain(libvirt.VIR_ERR_NO_DOMAIN), Domain(True)]
    assert [len(each) for each in running._domains()] == [1, 0]
    running._supervisor.connection.domains = [Domain(libvirt.VIR_ERR_INTERNAL_ERROR)]
    with pytest.raises(libvirt.libvirtError):
        running._domains()


def test_a_domain_that_is_defined_again_is_waited_for(running, monkeypatch):
    now = 100.0
    monkeypatch.setattr(launcher, "monotonic", lambda: now)
    running._follow_domain()
    now += launcher._ANSWER_SECONDS / 2
    running._supervisor.connection.domains = [Domain(False)]
    running._follow_domain()
    running._supervisor.connection.domains = []
    now += launcher._ANSWER_SECONDS
    running._follow_domain()
    assert running._exit_status is None
    now += launcher._ANSWER_SECONDS
    running._follow_domain()
    assert running._exit_status == 0
