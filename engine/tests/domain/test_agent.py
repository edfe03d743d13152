# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers of guest agents under the names of the KubeVirt API."""

import json

import pytest

from turtles.domain import agent
from turtles.domain.xml import AnswerError

ANSWERS = {
    "guest-info": {
        "version": "9.2.0",
        "supported_commands": [
            {"name": "guest-ping", "enabled": True, "success-response": True},
            {"name": "guest-exec", "enabled": False},
        ],
    },
    "guest-get-host-name": {"host-name": "shop"},
    "guest-get-osinfo": {
        "name": "Debian GNU/Linux",
        "id": "debian",
        "pretty-name": "Debian GNU/Linux 13 (trixie)",
        "version": "13 (trixie)",
        "version-id": "13",
        "kernel-release": "6.12.1",
        "kernel-version": "#1 SMP",
        "machine": "x86_64",
    },
    "guest-get-timezone": {"zone": "CET", "offset": 3600},
    "guest-get-users": [{"user": "root", "login-time": 1700000000.25}, {"user": "bob", "domain": "AD"}],
    "guest-get-fsinfo": [
        {
            "name": "vda1",
            "mountpoint": "/",
            "type": "ext4",
            "used-bytes": 10,
            "total-bytes": 20,
            "disk": [{"bus-type": "virtio", "serial": "abc", "dev": "/dev/vda1"}, {"bus-type": "sata"}],
        },
        {"name": "sr0", "mountpoint": "/seed", "type": "iso9660"},
    ],
    "guest-fsfreeze-status": "thawed",
}


def test_all_of_it():
    assert agent.guest_info(ANSWERS) == {
        "guestAgentVersion": "9.2.0",
        "supportedCommands": [{"name": "guest-ping", "enabled": True}, {"name": "guest-exec"}],
        "hostname": "shop",
        "os": {
            "name": "Debian GNU/Linux",
            "id": "debian",
            "prettyName": "Debian GNU/Linux 13 (trixie)",
            "version": "13 (trixie)",
            "versionId": "13",
            "kernelRelease": "6.12.1",
            "kernelVersion": "#1 SMP",
            "machine": "x86_64",
        },
        "timezone": "CET, 3600",
        "userList": [{"userName": "root", "loginTime": 1700000000.25}, {"userName": "bob", "domain": "AD"}],
        "fsInfo": {
            "disks": [
                {
                    "diskName": "vda1",
                    "mountPoint": "/",
                    "fileSystemType": "ext4",
                    "usedBytes": 10,
                    "totalBytes": 20,
                    "disk": [{"serial": "abc", "busType": "virtio"}, {"busType": "sata"}],
                },
                {
                    "diskName": "sr0",
                    "mountPoint": "/seed",
                    "fileSystemType": "iso9660",
                    "usedBytes": 0,
                    "totalBytes": 0,
                },
            ]
        },
        "fsFreezeStatus": "thawed",
    }


def test_an_agent_that_knows_nothing():
    assert agent.guest_info({}) == {"os": {}, "fsInfo": {"disks": []}}


@pytest.mark.parametrize("nonsense", [None, 7, "text", [], {}, [7, None, [], {}], {"items": 3}, True])
def test_nonsense_is_passed_over(nonsense):
    json.dumps(agent.guest_info(dict.fromkeys(ANSWERS, nonsense)))
    json.dumps([agent.users(nonsense), agent.filesystems(nonsense)])


def test_texts_and_numbers_of_guests_are_bounded():
    (user,) = agent.users([{"user": "a\nb" * 1000, "login-time": True}])
    assert user == {"userName": ("a b" * 1000)[:1024]}
    (found,) = agent.filesystems([{"name": ["x"], "total-bytes": 2**80, "used-bytes": "many"}])
    assert (found["diskName"], found["totalBytes"], found["usedBytes"]) == ("", 0, 0)
    assert len(agent.users([{}] * 5000)) == 1000


def test_few_users_and_file_systems_are_part_of_the_whole():
    info = agent.guest_info({"guest-get-users": [{"user": "u"}] * 50, "guest-get-fsinfo": [{"name": "d"}] * 50})
    assert (len(info["userList"]), len(info["fsInfo"]["disks"])) == (10, 10)


@pytest.mark.parametrize("text", ["", "{", "7", "{}", '{"error": {}}', "[" * 100000])
def test_no_answer(text):
    with pytest.raises(AnswerError, match="guest-info returned an unexpected result"):
        agent.answer(text, "guest-info")
