# SPDX-License-Identifier: GPL-3.0-or-later
"""Which StorageClass a claim has that names none. Pure."""

from collections.abc import Iterable

from turtles.api.objects import Object, annotations_of

_DEFAULT = "storageclass.kubernetes.io/is-default-class"
_DEFAULT_VIRT = "storageclass.kubevirt.io/is-default-virt-class"


def storage_class_of(name: str | None, classes: Iterable[Object]) -> Object | None:
    """Return the StorageClass of a claim that names this one, or none: then the default one for machines, or for all.

    :param name: may be empty: no class.
    """
    known = list(classes)
    if name is not None:
        return next((each for each in known if each["metadata"]["name"] == name), None)
    for mark in (_DEFAULT_VIRT, _DEFAULT):
        for each in known:
            if annotations_of(each).get(mark) == "true":
                return each
    return None
