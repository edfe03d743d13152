# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line. (What it does is in test_pod.)"""

import pytest

from turtles.launcher import main as launcher

from .conftest import VMI_UID

ARGUMENTS = ["--name", "testvm", "--uid", VMI_UID, "--namespace", "default"]


@pytest.fixture
def termination_log(tmp_path, monkeypatch):
    path = tmp_path / "termination-log"
    path.touch()
    monkeypatch.setattr(launcher, "TERMINATION_LOG", path)
    return path


def test_termination_log_keeps_to_its_size(termination_log):
    launcher._write_termination_log("x" * 10000)
    assert len(termination_log.read_text()) == 4096


def test_missing_termination_log_is_no_matter(tmp_path, monkeypatch):
    monkeypatch.setattr(launcher, "TERMINATION_LOG", tmp_path / "none")
    launcher._write_termination_log("x")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("option", ["--kubevirt-share-dir", "--ephemeral-disk-dir"])
def test_folders_are_fixed(option, capsys):
    with pytest.raises(SystemExit):
        launcher.main([*ARGUMENTS, option, "/elsewhere"])
    assert option in capsys.readouterr().err


def test_a_failure_quotes_no_data(termination_log, monkeypatch, capsys):
    """An exception's representation may hold what it is about, and everybody who may read Pods reads the message."""

    def fail(*_: object, **__: object) -> None:
        "-".join(("only", "the", "guest", "knows", "\ud800")).encode()

    monkeypatch.setattr(launcher, "Launcher", fail)
    assert launcher.main(ARGUMENTS) == 1
    assert termination_log.read_text().startswith("virt-launcher failed: UnicodeEncodeError: ")
    assert "only-the-guest" not in termination_log.read_text() + "".join(capsys.readouterr())
