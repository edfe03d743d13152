# SPDX-License-Identifier: GPL-3.0-or-later
"""What all that builds the images reports and runs."""

import subprocess
import sys
from pathlib import Path


class BuildError(Exception):
    """The images can't be built; the message says why and what to do."""


def say(message: str) -> None:
    """Progress for people."""
    print(f"engine_image: {message}", file=sys.stderr, flush=True)


def run(*command: str | Path, env: dict[str, str] | None = None) -> str:
    """Run a program; its output, or a BuildError with what it said."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise BuildError(f"the program {words[0]} is missing: install the role's packages") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:]
        raise BuildError(f"{' '.join(words[:4])} failed with status {done.returncode}: {said}")
    return done.stdout
