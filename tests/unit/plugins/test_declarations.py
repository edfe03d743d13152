# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What users write: user data and keys, YAML text, and fields in the wrong place."""

from __future__ import annotations

import base64
import datetime
import gzip

import pytest
import yaml
from ansible_collections.turtles.kubevirt.plugins.module_utils import _cloud_init, _values, _yaml
from ansible_collections.turtles.kubevirt.plugins.module_utils._errors import KubeError

WEB = {"name": "web", "namespace": "default", "image": "example.com/web:1", "memory": "64Mi", "wait": False}
KEY, OTHER = "ssh-ed25519 AAAAC3Nz one@example.com", "ssh-rsa AAAAB3Nz two@example.com"
SOME_BASE64 = base64.b64encode(b"#cloud-config\n").decode()


def seed(run, **options):
    """The text of the user data of a machine with these options; None where it has no seed."""
    done = run("vm", **{**WEB, **options})
    assert not done.get("failed"), done
    volumes = done["result"]["spec"]["template"]["spec"]["volumes"]
    return next((v["cloudInitNoCloud"]["userData"] for v in volumes if v["name"] == "cloudinitdisk"), None)


def keys_of(text):
    assert text.startswith("#cloud-config\n")
    return yaml.safe_load(text)["ssh_authorized_keys"]


@pytest.mark.parametrize(
    ("user_data", "keys"),
    [
        ({"ssh_authorized_keys": OTHER}, [OTHER, KEY]),
        ({"ssh_authorized_keys": "# all\n%s\n\n%s\n" % (OTHER, KEY)}, [OTHER, KEY]),
        ({"ssh_authorized_keys": [OTHER]}, [OTHER, KEY]),
        ({"ssh_authorized_keys": None}, [KEY]),
        ("#cloud-config\nssh_authorized_keys: %s\n" % OTHER, [OTHER, KEY]),
        ("#cloud-config\nssh_authorized_keys: [%s]\n" % OTHER, [OTHER, KEY]),
        ("\n  #Cloud-Config\r\npackages: [vim]\n", [KEY]),
        ("#cloud-config", [KEY]),
        ("#cloud-config # only a comment", [KEY]),
        ("", [KEY]),
        (" \n\t", [KEY]),
        ({}, [KEY]),
        (None, [KEY]),
    ],
)
def test_keys_are_added_to_cloud_config_in_any_form(run, user_data, keys):
    assert keys_of(seed(run, cloud_init={"user_data": user_data}, ssh_keys=[KEY])) == keys


def test_keys_as_text_without_ssh_keys_become_a_list(run):
    assert keys_of(seed(run, cloud_init={"user_data": {"ssh_authorized_keys": OTHER}})) == [OTHER]


@pytest.mark.parametrize("empty", ["", " \n"])
def test_empty_data_is_as_good_as_none(run, empty):
    assert seed(run, cloud_init={"user_data": empty, "network_data": empty}) is None


@pytest.mark.parametrize(
    ("user_data", "words"),
    [
        ("#cloud-config-jsonp\n[]", "a JSON patch of cloud-config (begins with #cloud-config-jsonp)"),
        ("#cloud-config-archive\n- {}", "a cloud-config archive"),
        ("#cloud-config-other\n", "text that begins with '#cloud-config-other'"),
        ("Content-Type: multipart/mixed; boundary=x\n", "a MIME message"),
        ("MIME-Version: 1.0\n", "a MIME message"),
        ("## template: jinja\n#cloud-config\n", "a template"),
        ("#!/bin/sh\n", "a script"),
        ("#include\nhttps://example.com/a\n", "a list of URLs to include"),
        ("#part-handler\n", "a part handler"),
        ("#cloud-boothook\n", "a boothook"),
        (SOME_BASE64, "in base64"),
        (base64.b64encode(gzip.compress(b"#cloud-config\n", mtime=0)).decode(), "compressed and in base64"),
        ("packages: [vim]\n", "text that begins with 'packages: [vim]'"),
    ],
)
def test_data_that_keys_cannot_be_added_to_is_named(api, run, user_data, words):
    failed = run("vm", ssh_keys=[KEY], cloud_init={"user_data": user_data}, **WEB)
    assert "only if that is cloud-config" in failed.msg
    assert words in failed.msg
    assert "a script" not in failed.msg or "script" in words
    assert api.written() == []


@pytest.mark.parametrize(
    ("user_data", "words"),
    [
        (
            {"ssh_authorized_keys": 5},
            "user_data.ssh_authorized_keys: must be a list of public keys, but is the number 5",
        ),
        ({"ssh_authorized_keys": {"a": "b"}}, "ssh_authorized_keys: must be a list of public keys, but is a mapping"),
        ({"ssh_authorized_keys": [["a"]]}, "ssh_authorized_keys[0]: must be a public key as text, but is of type list"),
        ("#cloud-config\n- a\n", "cloud_init.user_data: cloud-config must be a mapping, but is a list"),
        ("#cloud-config\na: 1\nb: 2\na: 3\n", "cloud_init.user_data: line 4: the key a is given twice"),
        ("#cloud-config\na: [b\n", "cloud_init.user_data isn't valid YAML"),
        (["packages"], "cloud_init.user_data must be text or a mapping, but is a list"),
        (7, "cloud_init.user_data must be text or a mapping, but is the number 7"),
        (True, "cloud_init.user_data must be text or a mapping, but is the boolean true"),
    ],
)
@pytest.mark.parametrize("how", [{"ssh_keys": [KEY]}])
def test_wrong_user_data_is_told_in_users_words(api, run, user_data, words, how):
    failed = run("vm", cloud_init={"user_data": user_data}, **how, **WEB)
    assert words in failed.msg
    assert api.written() == []


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize(
    ("key", "words"),
    [
        (
            "~/.ssh/id_ed25519.pub",
            "looks like a path. Give the content of the file: \"{{ lookup('ansible.builtin.file'",
        ),
        ("/root/.ssh/id_rsa", "looks like a path"),
        ("id_rsa.pub", "looks like a path"),
        ("hello", "'hello' isn't a public key"),
        ("ssh-ed25519", "isn't a public key"),
        ("", "ssh_keys[0]: is empty"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0", "ssh_keys[0]: is a private key"),
    ],
)
def test_what_is_no_public_key_is_refused(api, run, key, words, check):
    failed = run("vm", check=check, ssh_keys=[key], **WEB)
    assert words in failed.msg
    assert "c2VjcmV0" not in failed.msg
    assert api.written() == []


@pytest.mark.parametrize(
    "key",
    [
        'command="echo a b",no-pty ssh-rsa AAAAB3Nz',
        "ecdsa-sha2-nistp256 AAAAE2Vj== me",
        "sk-ssh-ed25519@openssh.com AAAAGnNr me",
        "ssh-ed25519-cert-v01@openssh.com AAAAIHNz me",
    ],
)
def test_public_keys_of_all_types(run, key):
    assert keys_of(seed(run, ssh_keys=[key])) == [key]


def test_a_file_with_several_keys(run):
    assert keys_of(seed(run, ssh_keys=["%s\n# mine\n%s\n" % (KEY, OTHER), KEY])) == [KEY, OTHER]


MACHINE = """
kind: VirtualMachine
metadata: {name: web}
spec:
  template:
    spec:
      domain:
        memory:
          guest: 64Mi
          guest: 128Mi
"""


@pytest.mark.parametrize("module", ["vm", "manifest"])
@pytest.mark.parametrize("inline", [True, False])
def test_a_key_given_twice_is_named_with_its_lines(api, run, tmp_path, module, inline):
    path = tmp_path / "web.yaml"
    path.write_text(MACHINE)
    source = {"definition": MACHINE} if inline else {"src": str(path)}
    failed = run(module, **source)
    assert "line 10: the key guest is given twice in one mapping, first in line 9" in failed.msg
    assert ("definition" if inline else str(path)) in failed.msg
    assert api.written() == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"a": 1, "b": {"c": 1,\n"c": 2}}', 2),
        ("---\na: 1\n---\nb: 1\nb: 1\n", 5),
        ("a:\n- b: 1\n  'b': 2\n", 3),
        ("1: a\n'1': b\n", 2),
        ("yes: a\ntrue: b\n", 2),
        ("a: &x {b: 1}\nc:\n  <<: *x\n  d: 1\n  d: 2\n", 5),
        ("? [a]\n: {b: 1,\nb: 2}\n", 3),
    ],
)
def test_keys_given_twice_anywhere(text, line):
    with pytest.raises(KubeError, match="text: line %d: the key " % line):
        _yaml.load_all(text, "text")


def test_merge_keys_and_anchors_are_no_repetition():
    text = "a: &a {x: 1, y: 1}\nb: &b\n  <<: *a\n  x: 2\nc:\n  <<: [*a, *b]\n  y: 3\nd: *b\n"
    assert _yaml.load(text, "text") == {
        "a": {"x": 1, "y": 1},
        "b": {"x": 2, "y": 1},
        "c": {"x": 1, "y": 3},
        "d": {"x": 2, "y": 1},
    }


def test_dates_stay_text_as_in_kubernetes(api, run):
    metadata = "{name: c, annotations: {built: 2026-01-31}}"
    text = "{apiVersion: v1, kind: ConfigMap, metadata: %s, data: {d: 2026-99-99}}" % metadata
    assert not run("manifest", definition=text, namespace="default").get("failed")
    assert api.get("configmaps", "default", "c")["metadata"]["annotations"] == {"built": "2026-01-31"}
    definition = {"metadata": {"annotations": {"built": datetime.date(2026, 1, 31)}}}
    done = run("vm", definition=definition, **WEB)
    assert done["result"]["metadata"]["annotations"] == {"built": "2026-01-31"}


@pytest.mark.parametrize(
    ("definition", "words"),
    [
        (
            {"spec": {"template": {"metadata": {"spec": {"domain": {}}}}}},
            ("template.metadata.spec", "spec.template.spec"),
        ),
        ({"metadata": {"spec": {"template": {}}}}, ("metadata.spec", "belongs in spec.")),
        ({"metadata": {"spec": {"domain": {}}}}, ("metadata.spec", "belongs in spec.template.spec.")),
        ({"spec": {"template": {"domain": {}}}}, ("spec.template.domain", "spec.template.spec.domain")),
        ({"spec": {"domain": {}}}, ("spec.domain", "spec.template.spec.domain")),
        ({"spec": {"spec": {"domain": {}}}}, ("spec.spec", "belongs in spec.template.spec.")),
        ({"spec": {"spec": {"running": True}}}, ("spec.spec", "belongs in spec.")),
        ({"spec": {"metadata": {"labels": {}}}}, ("spec.metadata", "metadata or spec.template.metadata")),
        ({"spec": {"template": {"spec": {"metadata": {}}}}}, ("template.spec.metadata", "in spec.template.metadata")),
        ({"spec": {"template": {"spec": {"spec": {}}}}}, ("spec.template.spec.spec", "in spec.template.spec.")),
        ({"spec": {"template": {"template": {}}}}, ("spec.template.template", "belongs in spec.template.")),
        ({"spec": {"template": {"running": True}}}, ("spec.template.running", "belongs in spec.running.")),
        ({"running": True}, ("running is in", "belongs in spec.running.")),
        ({"template": {}}, ("template is in", "belongs in spec.template.")),
        ({"domain": {}}, ("domain is in", "belongs in spec.template.spec.domain.")),
        ({"spec": {"labels": {}}}, ("spec.labels", "belongs in metadata.labels.")),
        ({"spec": {"template": {"labels": {}}}}, ("spec.template.labels", "belongs in spec.template.metadata.labels.")),
        ({"spec": {"template": {"spec": {"disks": []}}}}, ("spec.disks", "domain.devices.disks.")),
        ({"spec": {"template": {"spec": {"domain": {"volumes": []}}}}}, ("domain.volumes", "template.spec.volumes.")),
        ({"spec": {"template": {"spec": {"memory": {}}}}}, ("spec.memory", "spec.template.spec.domain.memory.")),
        ({"spec": {"template": {"spec": {"domain": {"devices": {"cpu": {}}}}}}}, ("devices.cpu", "domain.cpu.")),
        ({"spec": {"template": [{}]}}, ("spec.template: must be a mapping, but is a list",)),
        ({"spec": {"template": "x"}}, ("spec.template: must be a mapping, but is the text 'x'",)),
        ({"spec": {"template": {"spec": {"domain": 2}}}}, ("domain: must be a mapping, but is the number 2",)),
        ({"metadata": {"labels": {"app": 5}}}, ("metadata.labels.app: must be text, but is the number 5", '"5"')),
        ({"metadata": {"labels": {5: "app"}}}, ("metadata.labels: the name 5 is a number",)),
        (
            {"metadata": {"annotations": {"on": True}}},
            ("metadata.annotations.on: must be text, but is the boolean true",),
        ),
        ({"metadata": {"annotations": {True: "x"}}}, ("metadata.annotations: the name true is a boolean",)),
        ({"metadata": {"labels": ["app"]}}, ("metadata.labels: must be a mapping, but is a list",)),
        (
            {"spec": {"template": {"metadata": {"labels": {"app": 1.5}}}}},
            ("spec.template.metadata.labels.app: must be text, but is the number 1.5",),
        ),
        (
            {"spec": {"template": {"spec": {"nodeSelector": {"zone": 1}}}}},
            ("spec.template.spec.nodeSelector.zone: must be text, but is the number 1",),
        ),
        (
            {"spec": {"template": {"metadata": {"labels": {"a": {"b": "c"}}}}}},
            ("labels.a: must be text, but is a mapping",),
        ),
    ],
)
@pytest.mark.parametrize("module", ["vm", "manifest"])
def test_a_field_in_the_wrong_place_is_named_with_where_it_belongs(api, run, definition, words, module):
    metadata = {"name": "web", **definition.get("metadata", {})}
    whole = {"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", **definition, "metadata": metadata}
    failed = run(module, definition=whole)
    assert failed.get("failed")
    for word in words:
        assert word in failed.msg
    assert failed.msg.startswith("definition")
    assert api.written() == []


@pytest.mark.parametrize("module", ["vm", "manifest"])
def test_what_is_deleted_only_needs_a_name(run, module):
    metadata = {"name": "web", "namespace": "default", "labels": {"app": 5}}
    definition = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachine",
        "metadata": metadata,
        "spec": {"domain": {}},
    }
    assert not run(module, state="absent", definition=definition).get("failed")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (
            {"domain": {"cpu": {"cores": 1}}, "volumes": []},
            "has domain and volumes of its template. Write {template: {spec: {domain: …}}}. (In kubevirt.core",
        ),
        ({"metadata": {}, "spec": {"domain": {}}}, "is in the wrong place"),
        ({"apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "spec": {}}, "spec: is a whole manifest"),
        ({"template": {"spec": {"nodeSelector": {"a": 1}}}}, "nodeSelector.a: must be text, but is the number 1"),
    ],
)
def test_the_option_spec_given_at_another_level(api, run, spec, words):
    assert words in run("vm", name="web", spec=spec).msg
    assert api.written() == []


@pytest.mark.parametrize(
    ("definition", "words"),
    [
        ({"kind": "ConfigMap", "data": {"port": 80}}, "data.port: must be text, but is a number. Write it in quotes."),
        ({"kind": "Secret", "stringData": {"pin": 1234}}, "stringData.pin: must be text, but is a number"),
        ({"kind": "Pod", "spec": {"nodeSelector": {1: "a"}}}, "spec.nodeSelector: the name 1 is a number"),
        (
            {"kind": "Deployment", "spec": {"selector": {"matchLabels": {"a": 1}}}},
            "spec.selector.matchLabels.a: must be",
        ),
        ({"kind": "VirtualMachineInstance", "spec": {"template": {"spec": {}}}, "domain": {}}, "in spec.domain"),
    ],
)
def test_other_kinds(api, run, definition, words):
    failed = run("manifest", definition={"apiVersion": "v1", "metadata": {"name": "c"}, **definition})
    assert words in failed.msg
    assert "1234" not in failed.msg
    assert api.written() == []


def test_what_is_removed_or_unknown_is_left_to_the_server(run):
    definition = {"spec": {"domain": None, "template": {"spec": {"domain": {"newField": 1}, "another": {}}}}}
    assert not run("vm", definition=definition, **WEB).get("failed")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "null"),
        ("a", "the text 'a'"),
        (False, "the boolean false"),
        ([1], "a list"),
        ({}, "a mapping"),
        (2, "the number 2"),
    ],
)
def test_values_are_described_in_users_words(value, words):
    assert _values.described(value) == words


def test_marked_values_are_plain_in_cloud_config():
    class Marked(int):
        """As Ansible marks numbers."""

    assert _cloud_init.as_text("o", {"a": Marked(2), "b": datetime.date(2026, 1, 31)}, "") == "a: 2\nb: '2026-01-31'\n"


@pytest.mark.parametrize("memory", ["²", "٣", "1²"])
def test_memory_that_is_no_number(run, memory):
    failed = run("vm", name="a", namespace="default", image="example.com/web:1", memory=memory)
    assert failed["failed"]
    assert failed["msg"].startswith("memory: "), failed["msg"]


def test_memory_without_a_suffix(run):
    assert run("vm", **{**WEB, "memory": "512"}).msg == "memory: 512 means bytes. Write a suffix: 512Mi or 512Gi."
    assert run("vm", **{**WEB, "memory": "67108864"})["changed"]
