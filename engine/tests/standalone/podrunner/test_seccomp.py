# SPDX-License-Identifier: GPL-3.0-or-later
"""From a list of system calls to a filter."""

import ctypes
import json

import pytest

from turtles.standalone.podrunner import seccomp
from turtles.standalone.podrunner.seccomp import Filters, Rule, SeccompError, read_profile, rules

ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026

#: What Podman's list says is true for Podman only, and conditions of all kinds.
PROFILE = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 38,
    "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]}],
    "syscalls": [
        {
            "names": ["read", "mount", "unshare", "clone", "clone3", "keyctl", "socket", "reboot"],
            "action": "SCMP_ACT_ALLOW",
        },
        {
            "names": ["personality"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 8, "valueTwo": 0, "op": "SCMP_CMP_EQ"}],
        },
        {"names": ["chroot"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_CHROOT"]}},
        {"names": ["chroot"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_SYS_CHROOT"]}, "errnoRet": 1},
        {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {"names": ["future"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "999.0"}},
        {"names": ["foreign"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["vax"]}},
    ],
}


def actions(*capabilities, profile=PROFILE):
    """Return the actions without conditions by system call; the first one counts."""
    found = {}
    for rule in rules(profile, capabilities):
        if not rule.conditions:
            found.setdefault(rule.name, rule.action)
    return found


@pytest.mark.parametrize(
    ("name", "without", "capability"),
    [
        ("mount", EPERM, "SYS_ADMIN"),
        ("unshare", EPERM, "SYS_ADMIN"),
        ("setns", EPERM, "SYS_ADMIN"),
        ("clone3", ENOSYS, "SYS_ADMIN"),
        ("reboot", EPERM, "SYS_BOOT"),
        ("chroot", EPERM, "SYS_CHROOT"),
        ("syslog", EPERM, "SYSLOG"),
        ("pidfd_getfd", EPERM, "SYS_PTRACE"),
        ("mbind", EPERM, "SYS_NICE"),
    ],
)
def test_capabilities_bring_system_calls(name, without, capability):
    assert actions()[name] == without
    assert actions(capability)[name] == ALLOW


def test_what_nobody_gets_and_what_everybody_gets():
    for capabilities in ((), ("SYS_ADMIN", "SYS_BOOT")):
        found = actions(*capabilities)
        assert found["keyctl"] == found["io_uring_setup"] == found["socketcall"] == EPERM
        assert found["read"] == found["ptrace"] == ALLOW
        assert not {"future", "foreign"} & set(found)


def test_flags_of_clone_and_families_of_sockets():
    clone = [rule for rule in rules(PROFILE, ()) if rule.name == "clone"]
    assert clone[0] == Rule("clone", ALLOW, ((0, 7, 0x7E020000, 0),))
    assert {rule.action for rule in clone[1:]} == {EPERM}
    assert actions("SYS_ADMIN")["clone"] == ALLOW
    assert "socket" not in actions("SYS_ADMIN"), "never without a look at the family"
    assert Rule("personality", ALLOW, ((0, 4, 8, 0),)) in list(rules(PROFILE, ()))


def test_one_filter_for_all_that_need_the_same(monkeypatch):
    compiled = []
    monkeypatch.setattr(seccomp, "read_profile", lambda: PROFILE)
    monkeypatch.setattr(seccomp, "compile_filter", lambda profile, key: compiled.append(key) or bytes(8))
    filters = Filters()
    for capabilities in ([], ["NET_BIND_SERVICE"], ["CHOWN", "KILL"], ["SYS_CHROOT"], ["SYS_CHROOT", "KILL"]):
        filters.get(capabilities)
    assert compiled == [frozenset(), frozenset({"SYS_CHROOT"})]


def test_debians_list_compiles():
    filters = Filters()
    plain = filters.get(())
    assert len(plain) % 8 == 0
    # The kernel takes no more (BPF_MAXINSNS).
    assert 100 < len(plain) // 8 <= 4096
    assert filters.get(("SYS_ADMIN",)) != plain


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "install the package golang-github-containers-common"),
        ("{", "can't be read"),
        ("{}", "is not a seccomp"),
    ],
)
def test_a_list_that_is_missing_or_odd(tmp_path, content, words):
    path = tmp_path / "seccomp.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SeccompError, match=words) as caught:
        read_profile(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "entry",
    [
        {"names": ["read"], "action": "SCMP_ACT_NOTIFY"},
        {"names": ["read"], "action": "SCMP_ACT_ALLOW", "includes": {"moon": ["full"]}},
        {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_NEAR"}]},
    ],
)
def test_what_is_not_understood_is_not_passed_over(entry):
    profile = json.loads(json.dumps(PROFILE | {"syscalls": [entry]}))
    with pytest.raises(SeccompError, match="unknown"):
        seccomp.compile_filter(profile, ())


def test_without_libseccomp_the_package_is_named(monkeypatch):
    def missing(_name):
        raise OSError("libseccomp.so.2: cannot open shared object file")

    seccomp._library.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(SeccompError, match="install the package libseccomp2"):
        seccomp.compile_filter(PROFILE, ())
