# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Names of images such as debian:13, and where distributions have them. Users' files have further ones."""

from __future__ import annotations

from . import _yaml
from ._errors import KubeError, why
from ._keys import check_keys
from ._values import described

_CONTAINER_DISKS = "quay.io/containerdisks/"
_DEBIAN = "https://cloud.debian.org/images/cloud/%s/latest/"
_UBUNTU = "https://cloud-images.ubuntu.com/releases/%s/release/"
_LEAP = (
    "https://download.opensuse.org/distribution/leap/15.6/appliances/openSUSE-Leap-15.6-Minimal-VM.x86_64-Cloud.qcow2"
)
_CIRROS = "https://download.cirros-cloud.net/0.6.1/cirros-0.6.1-x86_64-disk.img"
#: What an entry may have: an image for containerDisk volumes; the address of a disk and its checksum, as the module
#: ansible.builtin.get_url has it; the user whom cloud-init gives the keys.
KEYS = ("container_disk", "disk", "checksum", "user")


def _debian(version, release):
    # The kernel of the variant "genericcloud" knows virtio alone.
    return {
        "container_disk": "%sdebian:%s" % (_CONTAINER_DISKS, version),
        "disk": _DEBIAN % release + "debian-%s-generic-amd64.qcow2" % version,
        "checksum": "sha512:" + _DEBIAN % release + "SHA512SUMS",
        "user": "debian",
    }


def _ubuntu(version):
    return {
        "container_disk": "%subuntu:%s" % (_CONTAINER_DISKS, version),
        "disk": _UBUNTU % version + "ubuntu-%s-server-cloudimg-amd64.img" % version,
        "checksum": "sha256:" + _UBUNTU % version + "SHA256SUMS",
        "user": "ubuntu",
    }


def _in_a_registry(name, user):
    return {"container_disk": _CONTAINER_DISKS + name, "user": user}


#: Addresses are the distributions' own, and those of the KubeVirt project's containerdisks.
IMAGES = {
    "almalinux:9": _in_a_registry("almalinux:9", "almalinux"),
    "almalinux:10": _in_a_registry("almalinux:10", "almalinux"),
    "centos-stream:9": _in_a_registry("centos-stream:9", "cloud-user"),
    "centos-stream:10": _in_a_registry("centos-stream:10", "cloud-user"),
    "cirros:0.6.1": {
        "disk": _CIRROS,
        "checksum": "sha256:cc704ab14342c1c8a8d91b66a7fc611d921c8b8f1aaf4695f9d6463d913fa8d1",
        "user": "cirros",
    },
    "debian:12": _debian("12", "bookworm"),
    "debian:13": _debian("13", "trixie"),
    "fedora:42": _in_a_registry("fedora:42", "fedora"),
    "opensuse-leap:15.6": {
        **_in_a_registry("opensuse-leap:15.6", "opensuse"),
        "disk": _LEAP,
        "checksum": "sha256:%s.sha256" % _LEAP,
    },
    "opensuse-tumbleweed:1.0.0": _in_a_registry("opensuse-tumbleweed:1.0.0", "opensuse"),
    "ubuntu:22.04": _ubuntu("22.04"),
    "ubuntu:24.04": _ubuntu("24.04"),
}


def read(path):
    """Return the images that there are, those of a file among them, which come before the others.

    :param path: a YAML file that maps names to entries with KEYS, or None.
    :raises KubeError: it can't be read, or an entry is wrong; names its place.
    """
    if not path:
        return IMAGES
    try:
        with open(path, encoding="utf-8") as file:
            content = _yaml.load(file.read(), path)
    except (OSError, UnicodeDecodeError) as exc:
        raise KubeError("image_catalogue: %s can't be read: %s." % (path, why(exc))) from exc
    if not isinstance(content, dict):
        raise KubeError("image_catalogue: %s must map names to images, but is %s." % (path, described(content)))
    for name, entry in content.items():
        place = "image_catalogue: %s: %s" % (path, name)
        check_keys(place, entry, KEYS)
        for key, value in entry.items():
            if not isinstance(value, str):
                raise KubeError("%s.%s: must be text, but is %s." % (place, key, described(value)))
        if not ("container_disk" in entry or "disk" in entry):
            raise KubeError("%s: has neither container_disk nor disk. Give one of them." % place)
    return {**IMAGES, **{str(name): entry for name, entry in content.items()}}


def find(option, name, images):
    """Return the entry with a name, None where the name is an image's own.

    :raises KubeError: the name is one of a distribution that has other releases here.
    """
    if name in images:
        return images[name]
    family, colon, _release = name.partition(":")
    others = sorted(other for other in images if other.startswith(family + ":"))
    # No registry has disks of virtual machines under such a name: docker.io's are for containers.
    if colon and others:
        raise KubeError(
            "%s: the catalogue of images has no %s; it has %s. Name one of these, or give a full reference, such as "
            "registry.example.com/%s." % (option, name, ", ".join(others), name)
        )
    return None


def container_disk(option, name, images):
    """Return the containerDisk image that a name stands for.

    :raises KubeError: there is none.
    """
    entry = find(option, name, images)
    if entry is None:
        return name
    if "container_disk" not in entry:
        raise KubeError(
            "%s: no registry has %s as a containerDisk image. Build it by the role turtles.kubevirt.guest_image with "
            "guest_image_cloud: %s, and use the role's guest_image_reference." % (option, name, name)
        )
    return entry["container_disk"]
