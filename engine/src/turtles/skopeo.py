# SPDX-License-Identifier: GPL-3.0-or-later
"""What skopeo says, for users."""

import re

#: What it says when RLIMIT_FSIZE ends its writing.
EXCEEDED = ("file too large", "short write")


def readable(stderr: str) -> str:
    """Return the message in skopeo's last log line, without its frame."""
    lines = [line for line in stderr.strip().splitlines() if line.strip()]
    fatal = [line for line in lines if "level=fatal" in line] or lines[-1:] or ["skopeo failed without a message"]
    match = re.search(r'msg="((?:[^"\\]|\\.)*)"', fatal[-1])
    return (match[1].replace('\\"', '"').replace("\\n", " ") if match else fatal[-1])[:1000]
