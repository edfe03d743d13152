# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line and its environment. (What it does is in test_pod.)"""

import json

import pytest

from turtles.launcher import main as launcher

from .conftest import VMI_UID, make_vmi

ARGUMENTS = ["--name", "testvm", "--uid", VMI_UID, "--namespace", "default"]


@pytest.fixture
def termination_log(tmp_path, monkeypatch):
    path = tmp_path / "termination-log"
    path.touch()
    monkeypatch.setattr(launcher, "TERMINATION_LOG", path)
    return path


@pytest.mark.parametrize("value", [None, "", "{", "[]", "{}", '{"metadata": {"name": "testvm"}}'])
def test_environment_without_a_vmi(value, termination_log, monkeypatch):
    monkeypatch.delenv("VIRT_LAUNCHER_VMI", raising=False)
    if value is not None:
        monkeypatch.setenv("VIRT_LAUNCHER_VMI", value)
    assert launcher.main(ARGUMENTS) == 1
    assert "VIRT_LAUNCHER_VMI holds no VMI" in termination_log.read_text()


def test_another_vmi(termination_log, monkeypatch):
    vmi = make_vmi()
    vmi["metadata"]["uid"] = "another"
    monkeypatch.setenv("VIRT_LAUNCHER_VMI", json.dumps(vmi))
    assert launcher.main(ARGUMENTS) == 1
    assert "holds default/testvm (another), the command line says" in termination_log.read_text()


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
