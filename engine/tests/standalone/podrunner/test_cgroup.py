# SPDX-License-Identifier: GPL-3.0-or-later
"""Limits in control groups of both versions, and in a mixture of them."""

import errno
import logging
from pathlib import Path

import pytest

from turtles.standalone.podrunner import cgroup
from turtles.standalone.podrunner.cgroup import Cgroups, Limits

LIMITS = Limits(500, 2000, 1 << 30, 100)


def line(path, kind, options="rw"):
    """A line as in /proc/self/mountinfo."""
    return f"30 24 0:26 / {path} rw,nosuid - {kind} {kind} rw,{options}\n"


def unified(root, controllers):
    """Make what looks like a hierarchy of version 2."""
    root.mkdir()
    (root / "cgroup.controllers").write_text(controllers)
    return line(root, "cgroup2")


def first(root, *controllers):
    """Make what looks like hierarchies of version 1."""
    text = ""
    for name in controllers:
        (root / name).mkdir()
        text += line(root / name, "cgroup", name)
    return text


def settings(root):
    """Return what is set, by path below root."""
    return {
        str(path.relative_to(root)): path.read_text()
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith("cgroup.")
    }


def test_version_2(tmp_path):
    groups = Cgroups("t", unified(tmp_path / "u", "cpuset cpu memory pids"))
    assert groups.create("pod", LIMITS) == [str(tmp_path / "u/t/pod/cgroup.procs")]
    assert settings(tmp_path) == {
        "u/t/pids.max": str(cgroup.node_pids()),
        "u/t/pod/cpu.weight": "20",
        "u/t/pod/cpu.max": "200000 100000",
        "u/t/pod/memory.max": str(1 << 30),
        "u/t/pod/pids.max": "100",
    }


def test_version_1(tmp_path):
    groups = Cgroups("t", first(tmp_path, "cpu", "memory", "pids") + unified(tmp_path / "u", ""))
    assert groups.create("pod", LIMITS) == [
        str(tmp_path / name / "t/pod/cgroup.procs") for name in ("cpu", "memory", "pids")
    ]
    found = settings(tmp_path)
    assert (found["pids/t/pod/pids.max"], found["pids/t/pids.max"]) == ("100", str(cgroup.node_pids()))
    assert found["memory/t/pod/memory.limit_in_bytes"] == str(1 << 30)
    assert not [path for path in found if path.startswith("u/")]


@pytest.mark.parametrize(
    ("old", "new"),
    [(("cpu", "memory"), "pids"), (("pids",), "cpu memory"), (("cpu", "pids"), "memory"), (("memory",), "cpu pids")],
)
def test_a_hybrid_hierarchy_is_used_as_it_is(tmp_path, caplog, old, new):
    groups = Cgroups("t", first(tmp_path, *old) + unified(tmp_path / "u", new))
    procs = groups.create("pod", LIMITS)
    assert set(procs) == {str(tmp_path / name / "t/pod/cgroup.procs") for name in (*old, "u")}
    found = settings(tmp_path)
    where = {name: tmp_path / name if name in old else tmp_path / "u" for name in ("cpu", "memory", "pids")}
    expected = {
        "cpu": "cpu.shares" if "cpu" in old else "cpu.weight",
        "pids": "pids.max",
        "memory": "memory.limit_in_bytes" if "memory" in old else "memory.max",
    }
    for name, file in expected.items():
        assert f"{where[name].relative_to(tmp_path)}/t/pod/{file}" in found
    assert "cpu.weight" not in found if "cpu" in old else "cpu.shares" not in found
    assert (tmp_path / "u/cgroup.subtree_control").read_text() == f"+{sorted(new.split())[-1]}"
    assert not caplog.records


def test_a_missing_controller_is_named_once(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        groups = Cgroups("t", first(tmp_path, "cpu", "memory"))
        groups.create("pod", LIMITS)
        groups.create("pod2", LIMITS)
    assert [record.controllers for record in caplog.records] == [["pids"]]


@pytest.mark.parametrize("group", ["u", "u/t"])
def test_the_other_controllers_are_used_where_one_cannot_be_enabled(tmp_path, caplog, monkeypatch, group):
    write = Path.write_text

    def refuse(path, text):
        if path == tmp_path / group / "cgroup.subtree_control" and text == "+cpu":
            raise OSError(errno.EINVAL, "Invalid argument")
        return write(path, text)

    monkeypatch.setattr(Path, "write_text", refuse)
    groups = Cgroups("t", unified(tmp_path / "u", "cpu memory pids"))
    groups.create("pod", LIMITS)
    found = settings(tmp_path)
    assert (found["u/t/pod/memory.max"], found["u/t/pod/pids.max"]) == (str(1 << 30), "100")
    assert not [name for name in found if "cpu." in name]
    assert [(r.controllers, r.errors) for r in caplog.records] == [(["cpu"], {"cpu": "[Errno 22] Invalid argument"})]


def test_a_hierarchy_that_cannot_be_written_is_named_once(tmp_path, caplog):
    mounts = first(tmp_path, "cpu", "memory", "pids")
    (tmp_path / "pids/t").write_text("in the way")
    groups = Cgroups("t", mounts)
    assert groups.create("pod", LIMITS) == [str(tmp_path / name / "t/pod/cgroup.procs") for name in ("cpu", "memory")]
    assert [record.controllers for record in caplog.records] == [["pids"]]


def test_no_limit_of_processes(tmp_path):
    groups = Cgroups("t", first(tmp_path, "pids"))
    groups.create("pod", Limits(pids_limit=None))
    assert settings(tmp_path)["pids/t/pod/pids.max"] == "max"


@pytest.mark.parametrize(("content", "limited"), [("100\n", True), ("max\n", False), (None, False)])
def test_joining_tells_whether_processes_are_limited(tmp_path, content, limited):
    if content is not None:
        (tmp_path / "pids.max").write_text(content)
    assert cgroup.join([str(tmp_path / "cgroup.procs")]) is limited
    assert (tmp_path / "cgroup.procs").read_text() == "0"


def test_a_group_that_cannot_be_joined_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        cgroup.join([str(tmp_path / "gone/cgroup.procs")])


def test_all_pods_leave_a_tenth_to_the_machine():
    maximum = min(int(Path("/proc/sys/kernel", name).read_text()) for name in ("pid_max", "threads-max"))
    assert cgroup.node_pids() == maximum * 9 // 10


def test_containers_have_groups_within_their_pods(tmp_path):
    groups = Cgroups("t", first(tmp_path, "pids") + unified(tmp_path / "u", "cpu memory"))
    groups.create("pod", LIMITS)
    procs = groups.create_inner("pod", "main", Limits(memory_limit=5))
    assert procs == [str(tmp_path / f"{base}/t/pod/main/cgroup.procs") for base in ("pids", "u")]
    assert (tmp_path / "u/t/pod/cgroup.subtree_control").exists()
    assert (tmp_path / "u/t/pod/main/memory.max").read_text() == "5"
    assert (tmp_path / "pids/t/pod/main/pids.max").read_text() == "max"


@pytest.mark.parametrize(
    ("file", "content", "kills"),
    [
        ("memory.events", "low 0\noom 3\noom_kill 2\n", 2),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n", 1),
        ("memory.events", "low 0\noom_kill 0\n", 0),
        ("other", "", 0),
    ],
)
def test_who_was_killed_for_its_memory(tmp_path, file, content, kills):
    (tmp_path / file).write_text(content)
    assert cgroup.oom_kills([str(tmp_path / "cgroup.procs")]) == kills
