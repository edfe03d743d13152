# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules about SSH keys and passwords that are given to the guest."""

from __future__ import annotations

from turtles.api.configuration import ClusterConfiguration
from turtles.api.kinds.vmi.rules.common import Rule
from turtles.api.language import INVALID, REQUIRED, Cause
from turtles.api.objects import get
from turtles.api.rules import Causes, Spec

#: How keys get to the guest by cloud-init, and the volume that this needs.
_SEEDS = {"noCloud": "cloudInitNoCloud", "configDrive": "cloudInitConfigDrive"}
_TYPES = ("sshPublicKey", "userPassword")


def _access_credentials(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    volumes = spec.get("volumes") or ()
    for index, credential in enumerate(spec.get("accessCredentials") or ()):
        here = f"{path}.accessCredentials[{index}]"
        if (keys := credential.get("sshPublicKey")) is not None:
            method, field = keys["propagationMethod"], f"{here}.sshPublicKey.propagationMethod"
            for seed, volume in _SEEDS.items():
                if method.get(seed) is not None and not any(each.get(volume) is not None for each in volumes):
                    message = f"{here} requires a {seed} volume to exist when the {seed} propagationMethod is in use."
                    yield Cause(INVALID, message, field)
            if method.get("qemuGuestAgent") is not None and not method["qemuGuestAgent"]["users"]:
                message = f"{here} requires at least one user to be present in the users list"
                yield Cause(INVALID, message, f"{field}.qemuGuestAgent.users")
            yield from _source_and_method(keys, f"{here}", "sshPublicKey", (*_SEEDS, "qemuGuestAgent"))
        if (password := credential.get("userPassword")) is not None:
            yield from _source_and_method(password, here, "userPassword", ("qemuGuestAgent",))
        if sum(credential.get(kind) is not None for kind in _TYPES) != 1:
            yield Cause(INVALID, f"{here} must have exactly one access credential type set", here)


def _source_and_method(credential: Spec, here: str, kind: str, methods: tuple[str, ...]) -> Causes:
    if get(credential, "source", "secret") is None:
        yield Cause(INVALID, f"{here} must have exactly one source set", f"{here}.{kind}.source")
    if sum(credential["propagationMethod"].get(method) is not None for method in methods) != 1:
        message = f"{here} must have exactly one propagationMethod set"
        yield Cause(INVALID, message, f"{here}.{kind}.propagationMethod")


def _secrets(spec: Spec, path: str, config: ClusterConfiguration) -> Causes:
    for index, credential in enumerate(spec.get("accessCredentials") or ()):
        for kind in _TYPES:
            if get(credential, kind, "source", "secret", "secretName") == "":
                here = f"{path}.accessCredentials[{index}].{kind}.source.secret.secretName"
                yield Cause(REQUIRED, f"{here} is a required field", here)


RULES: tuple[Rule, ...] = (_access_credentials,)
FUTILE: tuple[Rule, ...] = (_secrets,)
