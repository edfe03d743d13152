# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which old backups the playbook backup deletes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

TASKS = Path(__file__).parents[3] / "playbooks/tasks/backup_prune.yml"
#: Days before today.
AGES = (0, 1, 6, 8, 30)
#: What is left, by backup_keep and backup_keep_days.
LEFT = {
    (0, 0): AGES,
    (2, 0): (0, 1),
    (0, 7): (0, 1, 6),
    (0, 30): (0, 1, 6, 8),
    (0, 365): AGES,
    # Both: what either of them deletes
    (2, 7): (0, 1),
    (4, 7): (0, 1, 6),
    (1, 1): (0,),
}


def test_old_backups(run_play: Callable[..., str], tmp_path: Path) -> None:
    now = datetime.now(UTC)
    # A minute older, so that one of a number of days is older than that
    names = {age: f"{now - timedelta(days=age, minutes=1):%Y%m%dT%H%M%SZ}" for age in AGES}
    tasks = []
    for keep, days in LEFT:
        folder = tmp_path / f"backups-{keep}-{days}"
        for name in (*names.values(), "notes", ".20200101T000000Z"):
            (folder / name).mkdir(parents=True)
            (folder / name / "SHA256SUMS").touch()
        settings = {"backup_folder": str(folder), "backup_keep": keep, "backup_keep_days": days}
        tasks.append({"ansible.builtin.include_tasks": str(TASKS), "vars": settings})
    # The newest is kept, however old it is
    old = tmp_path / "old"
    for name in ("20200101T000000Z", "20200102T000000Z"):
        (old / name).mkdir(parents=True)
    settings = {"backup_folder": str(old), "backup_keep": 0, "backup_keep_days": 1}
    tasks.append({"ansible.builtin.include_tasks": str(TASKS), "vars": settings})
    play: dict[str, Any] = {"tasks": tasks}
    run_play(play)
    found = {
        (keep, days): {each.name for each in (tmp_path / f"backups-{keep}-{days}").iterdir()} for keep, days in LEFT
    }
    kept = {"notes", ".20200101T000000Z"}
    assert found == {case: {*kept, *(names[age] for age in left)} for case, left in LEFT.items()}
    assert [each.name for each in old.iterdir()] == ["20200102T000000Z"]
