# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import base64
import json
import sys
import tempfile
from pathlib import Path

import pytest
from ansible_collections.turtles.kubevirt.plugins.module_utils import _arguments, _configuration, _kubeconfig
from ansible_collections.turtles.kubevirt.plugins.modules import vm

WEB = {"name": "web", "namespace": "default", "image": "x", "memory": "64Mi", "state": "running", "wait_timeout": 10}


@pytest.mark.parametrize("module", ["vm", "vm_info", "vmi_info", "manifest"])
def test_every_module_runs_in_the_controllers_process(play, module):
    options = {
        "vm": WEB,
        "manifest": {"definition": {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}},
    }
    result, shown = play({"turtles.kubevirt.%s" % module: options.get(module, {})})
    assert not result["failed"]
    assert "AnsiballZ_%s" % module not in shown


@pytest.fixture
def python(tmp_path):
    """Another Python, as far as Ansible knows."""
    path = tmp_path / "python"
    path.write_text('#!/bin/sh\nexec "%s" "$@"\n' % sys.executable)
    path.chmod(0o755)
    return str(path)


def test_with_async_it_is_an_ordinary_module(play):
    result, shown = play({"turtles.kubevirt.vm": WEB, "async": 30, "poll": 1})
    assert result["changed"], result
    assert "AnsiballZ_vm" in shown


def test_another_python_does_not_matter_where_nothing_of_it_is_needed(play):
    result, shown = play({"turtles.kubevirt.vm": WEB, "vars": {"ansible_python_interpreter": "/nowhere/python3"}})
    assert result["changed"], result
    assert "AnsiballZ_vm" not in shown


@pytest.mark.parametrize(
    "member", [{"user": {"tokenFile": "token"}}, {"cluster": {"server": "https://127.0.0.1:9"}}], ids=str
)
def test_another_pythons_packages_and_authorities_are_used(play, server, python, tmp_path, member):
    kubeconfig = server.api.credentials()
    kubeconfig["clusters"][0]["cluster"].update(member.get("cluster", {}))
    kubeconfig["users"][0]["user"].update(member.get("user", {}))
    (tmp_path / "kubeconfig").write_text(json.dumps(kubeconfig))
    (tmp_path / "token").write_text(server.api.token)
    options = {"host": None, "api_key": None, "kubeconfig": str(tmp_path / "kubeconfig")}
    result, shown = play({"turtles.kubevirt.vmi_info": options}, ansible_python_interpreter=python)
    assert result["failed"] == ("cluster" in member), result
    assert "AnsiballZ_vmi_info" in shown


@pytest.mark.parametrize(
    ("options", "alone"),
    [
        ({"host": "http://a", "api_key": "x"}, True),
        ({"host": "https://a", "api_key": "x"}, False),
        ({"host": "https://a", "api_key": "x", "ca_cert": "/ca"}, True),
        ({"host": "https://a", "api_key": "x", "validate_certs": False}, True),
        ({"host": "https://a", "api_key": "x", "validate_certs": False, "proxy": "http://b"}, False),
        ({"kubeconfig": "/nowhere"}, False),
    ],
)
def test_what_needs_nothing_but_its_options(options, alone, monkeypatch):
    for name in _kubeconfig._PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    assert _configuration.is_self_contained(options) == alone


def test_check_mode_and_diff(api, play):
    result, shown = play({"turtles.kubevirt.vm": WEB}, extra=("--check", "--diff"))
    assert result["changed"]
    assert '+    "kind": "VirtualMachine"' in shown
    assert api.get("virtualmachines", "default", "web") is None


def test_the_tasks_environment_counts(play, server):
    result, _shown = play(
        {"turtles.kubevirt.vmi_info": {"api_key": None}, "environment": {"K8S_AUTH_API_KEY": "wrong-one"}}
    )
    assert result["failed"]
    assert "doesn't accept the credentials of the environment variable K8S_AUTH_API_KEY" in result["msg"]


def test_wrong_options_have_the_usual_message(play):
    result, _shown = play({"turtles.kubevirt.vm": {"nmae": "x"}})
    assert "Unsupported parameters for (turtles.kubevirt.vm) module: nmae" in result["msg"]


@pytest.mark.parametrize("python", [sys.executable, "/usr/bin/python3"])
def test_a_wrong_type_is_told_in_users_words_wherever_the_module_runs(play, python):
    result, shown = play({"turtles.kubevirt.vm": {"cpu": 2}}, ansible_python_interpreter=python)
    assert result["msg"] == "cpu: must be a mapping such as {cores: 2}, but is the number 2."
    assert "_Ansible" not in shown


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cpu": "two"}, "cpu: must be a mapping such as {cores: 2}, but is the text 'two'."),
        ({"cpu": [2]}, "cpu: must be a mapping such as {cores: 2}, but is a list."),
        ({"cpu": {"cores": "two"}}, "cpu.cores: must be a whole number, but is the text 'two'."),
        ({"interfaces": "default"}, "a list of mappings such as [{name: default}], but is the text 'default'."),
        ({"interfaces": ["default"]}, "interfaces[0]: must be a mapping such as {name: default}, but is the text"),
        ({"interfaces": {"name": "default"}}, "interfaces: must be a list, but is a mapping."),
        ({"interfaces": [{"name": "a", "ports": ["ssh"]}]}, "interfaces[0].ports[0]: must be a whole number"),
        ({"disks": [None]}, "disks[0]: must not be empty."),
        ({"cpu": "[]"}, "cpu: must be a mapping such as {cores: 2}, but is the text '[]'."),
        ({"cpu": "cores=2, a"}, "cpu: must be a mapping such as {cores: 2}, but is the text 'cores=2, a'."),
        ({"cpu": {1: 2}}, "cpu: the name 1 is a number, but must be text. Write it in quotes."),
        ({"disks": [{True: 2}]}, "disks[0]: the name true is a boolean, but must be text. Write it in quotes."),
        ({"labels": {True: "x"}}, "labels: the name true is a boolean, but must be text. Write it in quotes."),
        ({"node_selector": {None: "x"}}, "node_selector: the name null is empty, but must be text."),
        ({"termination_grace_period": "9" * 5000}, "termination_grace_period: must be a whole number, but is the text"),
        ({"kubeconfig": "/tmp/\0"}, "kubeconfig: no file's name has a NUL character, but this one does."),
        ({"memory": {"guest": "1Gi"}}, "memory: must be text, but is a mapping."),
        ({"image": ["a"]}, "image: must be text, but is a list."),
        ({"ssh_keys": [{"a": "b"}]}, "ssh_keys[0]: must be text, but is a mapping."),
        ({"labels": "web"}, "labels: must be a mapping, but is the text 'web'."),
        ({"spec": 5}, "spec: must be a mapping, but is the number 5."),
        ({"wait": "maybe"}, "wait: must be true or false, but is the text 'maybe'."),
        ({"wait_timeout": "soon"}, "wait_timeout: must be a whole number, but is the text 'soon'."),
        ({"verify_ssl": "maybe"}, "verify_ssl: must be true or false"),
        ({"api_key": {"token": "secret"}}, "api_key: must be text, but is a mapping."),
    ],
)
def test_wrong_types(options, words):
    spec = vm.MODULE.arguments()["argument_spec"]
    found = _arguments.wrong_types(spec, options)
    assert words in found
    assert "secret" not in found


@pytest.mark.parametrize(
    "options",
    [
        {"cpu": "cores=2"},
        {"cpu": '{"cores": 2}'},
        {"interfaces": '[{"name": "default"}]'},
        {"ssh_keys": "a,b"},
        {"wait_timeout": "5", "wait": "yes", "memory": 1024, "unknown": {}},
        {"name": None, "cpu": None, "interfaces": []},
        {"definition": ["anything"], "kubeconfig": {"a": "b"}},
        {"labels": {1: "x"}},
    ],
)
def test_types_that_ansible_converts(options):
    assert _arguments.wrong_types(vm.MODULE.arguments()["argument_spec"], options) is None


def test_marked_values_reach_the_guest(play):
    user_data = {"growpart": {"timeout": 5, "ratio": 0.5, "on": True}}
    result, _shown = play({"turtles.kubevirt.vm": {**WEB, "cloud_init": {"user_data": user_data}}})
    assert not result["failed"], result
    volumes = result["result"]["spec"]["template"]["spec"]["volumes"]
    assert "timeout: 5" in volumes[-1]["cloudInitNoCloud"]["userData"]


def test_tokens_are_not_shown(play, server):
    _result, shown = play({"turtles.kubevirt.vm": WEB})
    assert server.api.token not in shown


@pytest.fixture
def temporary(monkeypatch):
    """The folder for temporary files. ansible-core 2.21 has a socket in it, whose path may have 107 characters."""
    with tempfile.TemporaryDirectory(prefix="turtles-") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def test_no_certificate_is_left_in_a_file(play, server, temporary):
    data = base64.b64encode(b"a certificate").decode()
    kubeconfig = {
        "clusters": [{"name": "c", "cluster": {"server": server.url, "certificate-authority-data": data}}],
        "users": [{"name": "u", "user": {"token": server.api.token, "client-key-data": data}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    result, _shown = play({"turtles.kubevirt.vmi_info": {"host": None, "api_key": None, "kubeconfig": kubeconfig}})
    assert not result["failed"], result
    assert not list(temporary.rglob("tmp*"))
