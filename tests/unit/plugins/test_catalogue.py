# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Names of images: those of the collection, those of a file, in modules and in the lookup plugin."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.turtles.kubevirt.plugins.module_utils import _catalogue, _vm_spec
from ansible_collections.turtles.kubevirt.plugins.module_utils._errors import KubeError

ROOT = Path(__file__).parents[3]


def images(**options):
    volumes = _vm_spec.declare(options)["spec"]["template"]["spec"]["volumes"]
    return [volume["containerDisk"]["image"] for volume in volumes]


def test_a_name_stands_for_a_distributions_image():
    disks = [{"name": "tools", "image": "ubuntu:24.04"}, {"name": "own", "image": "registry.example.com/own:1"}]
    assert images(image="debian:13", disks=disks) == [
        "quay.io/containerdisks/debian:13",
        "quay.io/containerdisks/ubuntu:24.04",
        "registry.example.com/own:1",
    ]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("debian:7", "image: the catalogue of images has no debian:7; it has debian:12, debian:13. Name one of these"),
        ("cirros:0.6.1", "image: no registry has cirros:0.6.1 as a containerDisk image. Build it by the role"),
    ],
)
def test_a_name_that_stands_for_none(image, message):
    with pytest.raises(KubeError, match=re.escape(message)):
        images(image=image)
    with pytest.raises(KubeError, match=re.escape(message.replace("image:", "disks[0].image:", 1))):
        images(disks=[{"name": "root", "image": image}])


def test_what_has_a_place_is_no_name():
    for image in ("docker.io/library/debian:7", "debian", "debian@sha256:0", "oci-archive:/images/debian:7"):
        assert images(image=image) == [image]


def test_a_file_adds_names_and_replaces_some(tmp_path):
    file = tmp_path / "images.yml"
    file.write_text("debian:13: {container_disk: registry.example.com/debian:13}\nweb: {container_disk: web:1}\n")
    assert images(image="debian:13", image_catalogue=str(file)) == ["registry.example.com/debian:13"]
    assert images(image="web", image_catalogue=str(file)) == ["web:1"]
    assert images(image="debian:12", image_catalogue=str(file)) == ["quay.io/containerdisks/debian:12"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("web: {container_dsk: web:1}", ": web.container_dsk: unknown key. Did you mean container_disk?"),
        ("web: {container_disk: 5}", ": web.container_disk: must be text, but is the number 5"),
        ("web: {user: root}", ": web: has neither container_disk nor disk"),
        ("web: web:1", ": web: must be a mapping, but is the text 'web:1'"),
        ("- web", " must map names to images, but is a list"),
        ("web: {user: a}\nweb: {user: b}", "the key web is given twice"),
        ("\x00", "isn't valid YAML"),
        (None, "can't be read: No such file"),
    ],
)
def test_a_file_that_is_wrong(tmp_path, content, message):
    file = tmp_path / "images.yml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(KubeError) as failed:
        _catalogue.read(str(file))
    assert str(file) in str(failed.value)
    assert message in str(failed.value)


PLAY = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.copy:
        dest: "{{ lookup('ansible.builtin.env', 'KEPT') }}"
        content: "{{ lookup('turtles.kubevirt.image', name) | to_json }}"
        mode: "0600"
"""


def test_the_lookup_plugin(play_file, tmp_path, monkeypatch):
    assert play_file(PLAY, "-e", "name=debian:13")[0]["user"] == "debian"
    with pytest.raises(AssertionError, match=re.escape("the catalogue of images has no web; it has almalinux:10, ")):
        play_file(PLAY, "-e", "name=web")
    (tmp_path / "images.yml").write_text("web: {disk: 'https://images.example.com/web.img'}")
    monkeypatch.setenv("TURTLES_IMAGE_CATALOGUE", str(tmp_path / "images.yml"))
    assert play_file(PLAY, "-e", "name=web")[0] == {"disk": "https://images.example.com/web.img"}


def test_the_page_lists_them():
    page = (ROOT / "docs/guest-images.md").read_text()
    for name, entry in _catalogue.IMAGES.items():
        image = "`%s`" % entry["container_disk"] if "container_disk" in entry else ""
        assert "| `%s` | %s | %s | `%s` |" % (name, image, entry.get("disk", ""), entry["user"]) in page
