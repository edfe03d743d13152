# SPDX-License-Identifier: GPL-3.0-or-later
import base64
import json

from turtles.domain import credentials


def ssh(secret: str, **method: object) -> dict[str, object]:
    source = {"secret": {"secretName": secret}}
    return {"sshPublicKey": {"source": source, "propagationMethod": method}}


PASSWORD = {
    "userPassword": {"source": {"secret": {"secretName": "pw"}}, "propagationMethod": {"qemuGuestAgent": {}}},
}
CONTENTS = {"one": {"b": b"key b\n\n# note\nkey c\n", "a": b"key a"}, "pw": {"me": b"geheim"}}


def test_agents_get_all_keys_of_a_user_at_once() -> None:
    agent = {"users": ["me", "you"]}
    spec = {
        "accessCredentials": [
            ssh("one", qemuGuestAgent=agent),
            ssh("two", qemuGuestAgent={"users": ["me"]}),
            PASSWORD,
        ]
    }
    assert credentials.by_agent(spec)
    assert credentials.secrets(spec) == ["one", "two", "pw"]
    commands = [json.loads(command) for command in credentials.agent_commands(spec, {**CONTENTS, "two": {"x": b"d"}})]
    assert [(each["execute"], each["arguments"]) for each in commands] == [
        (
            "guest-ssh-add-authorized-keys",
            {"username": "me", "keys": ["key a", "key b", "key c", "d"], "reset": True},
        ),
        ("guest-ssh-add-authorized-keys", {"username": "you", "keys": ["key a", "key b", "key c"], "reset": True}),
        (
            "guest-set-user-password",
            {"username": "me", "password": base64.b64encode(b"geheim").decode(), "crypted": False},
        ),
    ]


def test_seeds_get_the_keys_that_are_theirs() -> None:
    spec = {"accessCredentials": [ssh("one", noCloud={}), ssh("two", configDrive={}), PASSWORD]}
    contents = {**CONTENTS, "two": {"x": b"key x"}}
    assert credentials.seed_keys(spec, "noCloud", contents) == ["key a", "key b", "key c"]
    assert credentials.seed_keys(spec, "configDrive", contents) == ["key x"]
    assert not credentials.by_agent({"accessCredentials": [ssh("one", noCloud={})]})
    assert credentials.agent_commands({}, {}) == []
