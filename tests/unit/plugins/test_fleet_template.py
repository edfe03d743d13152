# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The module fleet as tasks call it: templates for each machine, progress, another interpreter."""

from __future__ import annotations

import ansible
import pytest

# Before, Ansible itself evaluates what isn't marked.
UNMARKED = tuple(map(int, ansible.__version__.split(".")[:2])) >= (2, 19)
FORMS = ["!unsafe", *(["plain"] if UNMARKED else [])]
TASK = """
- hosts: localhost
  gather_facts: false
  vars:
    size: 64Mi
    hosts_of: [{host: kermit}, {host: piggy}]
    shared:
      name: "web-{{ index }}"
      image: "image:{{ item }}"
      memory: "{{ size }}"
  tasks:
    - turtles.kubevirt.fleet:
        host: "{{ lookup('ansible.builtin.env', 'API') }}"
        api_key: "{{ lookup('ansible.builtin.env', 'TOKEN') }}"
        namespace: default
        %s
      register: result
      ignore_errors: true
    - ansible.builtin.copy:
        dest: "{{ lookup('ansible.builtin.env', 'KEPT') }}"
        content: "{{ result | to_json }}"
        mode: "0600"
      check_mode: false
"""
TEMPLATE = """
        template:
          name: TAG "web-{{ '%02d' % index }}"
          image: x
          memory: TAG "{{ size }}"
          hostname: TAG "{{ nothing | default(omit) }}"
          labels: {host: TAG "{{ item.host }}"}
          cloud_init:
            user_data:
              hostname: TAG "{{ item.host }}"
              runcmd: [TAG "echo {{ index }} of {{ hosts_of | length }}"]
        items: "{{ hosts_of }}"
"""


@pytest.fixture
def task(server, play_file, monkeypatch, tmp_path):
    """Runs a task with the options, written as YAML; gives its result and what was shown."""

    def call(options, *arguments):
        monkeypatch.setenv("API", server.url)
        monkeypatch.setenv("TOKEN", server.api.token)
        return play_file(TASK % options.strip(), *arguments)

    return call


def machine(api, name):
    return api.get("virtualmachines", "default", name)


@pytest.mark.parametrize("form", FORMS)
def test_templates_are_evaluated_for_each_machine(api, task, form):
    options = TEMPLATE.replace("TAG", "" if form == "plain" else form)
    result, _shown = task(options)
    assert result["summary"] == {"created": 2}, result
    assert [vm["name"] for vm in result["vms"]] == ["web-01", "web-02"]
    second = machine(api, "web-02")
    assert second["metadata"]["labels"] == {"host": "piggy"}
    spec = second["spec"]["template"]["spec"]
    assert spec["domain"]["memory"] == {"guest": "64Mi"}
    assert "hostname" not in spec
    user_data = spec["volumes"][-1]["cloudInitNoCloud"]["userData"]
    assert "hostname: piggy" in user_data
    assert "echo 2 of 2" in user_data
    assert task(options)[0]["changed"] is False


@pytest.mark.skipif(not UNMARKED, reason="ansible-core before 2.19")
def test_a_template_may_be_a_variable(api, task):
    result, _shown = task('template: "{{ shared }}"\n        count: 2')
    assert result["summary"] == {"created": 2}, result
    volumes = machine(api, "web-2")["spec"]["template"]["spec"]["volumes"]
    assert volumes[0]["containerDisk"]["image"] == "image:2"


def test_what_others_wrote_isnt_evaluated(api, task, tmp_path):
    (tmp_path / "note").write_text("{{ 1 + 1 }}")
    options = """
        template:
          name: !unsafe "web-{{ index }}"
          image: x
          memory: 64Mi
          annotations: {note: !unsafe "{{ lookup('ansible.builtin.file', '%s') }}"}
        count: 1
    """
    result, _shown = task(options % (tmp_path / "note"))
    assert result["summary"] == {"created": 1}, result
    assert machine(api, "web-1")["metadata"]["annotations"]["note"] == "{{ 1 + 1 }}"


BAD = [
    ("{template: {name: !unsafe 'web-{{ itme.x }}'}, items: [1]}", "template, machine 1:"),
    (
        "{template: {name: !unsafe 'web-{{ index }}', memroy: 1Gi}, count: 2}",
        "template.memroy: unknown key. Did you mean memory?",
    ),
    ("{template: {name: web}}", "template: needs either count or items"),
    ("{template: {name: web}, count: many}", "count: must be a number of machines, but is the text 'many'"),
    ("{template: {name: web}, items: {a: b}}", "items: must be a list with a value for each machine"),
    ("{template: [web], count: 1}", "template: must be a mapping with options of the module vm, but is a list"),
    ("{vms: {name: web}}", "vms: must be a list, but is a mapping"),
]


def test_bad_templates_are_told(api, play_file, server):
    tasks = "".join(
        """
    - turtles.kubevirt.fleet: %s
      register: result_%d
      ignore_errors: true"""
        % (options, number)
        for number, (options, _message) in enumerate(BAD)
    )
    head, _task, tail = TASK.partition("    - turtles.kubevirt.fleet:")
    kept = "[%s]" % ", ".join("result_%d.msg" % number for number in range(len(BAD)))
    keep = "    - ansible.builtin.copy" + tail.partition("    - ansible.builtin.copy")[2].replace("result", kept)
    defaults = "  module_defaults: {group/turtles.kubevirt.kubevirt: {host: '%s', api_key: '%s'}}\n" % (
        server.url,
        server.api.token,
    )
    head = head.replace("  tasks:", defaults + "  tasks:")
    messages, _shown = play_file(head.rstrip() + tasks + "\n" + keep)
    for message, (_options, words) in zip(messages, BAD, strict=True):
        assert words in message
    assert api.written() == []


def test_it_works_where_the_module_runs_elsewhere(api, task):
    result, shown = task(TEMPLATE.replace("TAG", "!unsafe").rstrip() + "\n      async: 60\n      poll: 1")
    assert result["summary"] == {"created": 2}, result
    assert "AnsiballZ_fleet" in shown


def test_progress_is_shown_with_who_is_late_and_why(api, task, monkeypatch):
    api.trouble = "Provisioning"
    result, shown = task("vms: [{name: slow, image: x, memory: 64Mi}]\n        progress: 1\n        wait_timeout: 13")
    assert result["failed"]
    assert "fleet: 0 of 1 machines done, 1 under way\n" in shown
    assert "fleet: 0 of 1 machines done, 1 under way, 1 late: default/slow (10 s, Provisioning: Ready is False" in shown
    assert "fleet: default/slow failed: VirtualMachine default/slow isn't running within 13 seconds" in shown


def test_each_machine_that_changes_has_its_diff(api, task):
    task("vms: [{name: a, image: x, memory: 64Mi}, {name: b, image: x, memory: 64Mi}]")
    options = "vms: [{name: a, image: x, memory: 64Mi}, {name: b, image: x, memory: 96Mi}]"
    result, shown = task(options, "--check", "--diff")
    assert result["summary"] == {"unchanged": 1, "changed": 1}
    assert "+++ after: VirtualMachine default/b" in shown
    assert '-                        "guest": "64Mi"' in shown
    assert "VirtualMachine default/a" not in shown
    assert machine(api, "b")["spec"]["template"]["spec"]["domain"]["memory"]["guest"] == "64Mi"
