# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Draws architecture.svg and way-of-a-vm.svg beside this file; ``make pictures`` runs it."""

from __future__ import annotations

from pathlib import Path

import drawsvg

FONT = "system-ui, sans-serif"
INK, MUTED, PAPER = "#1f2933", "#616e7c", "#ffffff"
USERS, API, ENGINE, PLACE = "#e3f2fd", "#fff3d6", "#e3f5e8", "#f2f4f7"
# Who takes part, from left to right, and what happens between them, from top to bottom: from whom, to whom, what.
LANES = ("task", "API", "virt-api", "virt-controller", "scheduler,\nPod runner", "virt-launcher", "virt-handler")
STEPS = (
    (0, 1, "VirtualMachine"),
    (1, 2, "judge it, fill in defaults"),
    (3, 1, "VirtualMachineInstance: Pending"),
    (3, 1, "Pod virt-launcher-…: Scheduling"),
    (4, 1, "bind the Pod to a node"),
    (4, 5, "start it: namespaces, CNI"),
    (5, 5, "libvirtd, disks, seed, DHCP"),
    (3, 1, "the Pod is ready: Scheduled"),
    (6, 5, "bridge, NAT and tap"),
    (6, 5, "define and start the domain"),
    (6, 1, "Running"),
    (6, 1, "addresses, what the agent says"),
    (1, 0, "ready, as the watch says"),
)


def text(
    picture: drawsvg.Drawing, words: str, x: float, y: float, size: float = 14, clear: bool = False, **style: object
) -> None:
    """Write lines of text around a point; what is below may be cleared away around the letters."""
    given = {"font_family": FONT, "fill": INK, "text_anchor": "middle", "dominant_baseline": "central", **style}
    for number, line in enumerate(lines := words.split("\n")):
        place = (line, size, x, y + (number - (len(lines) - 1) / 2) * size * 1.3)
        if clear:
            picture.append(drawsvg.Text(*place, **{**given, "fill": PAPER, "stroke": PAPER, "stroke_width": 4}))
        picture.append(drawsvg.Text(*place, **given))


def box(picture: drawsvg.Drawing, x: float, y: float, width: float, height: float, colour: str) -> None:
    """Draw a box with round corners."""
    picture.append(drawsvg.Rectangle(x, y, width, height, rx=8, fill=colour, stroke=MUTED, stroke_width=1))


def labelled(
    picture: drawsvg.Drawing, words: str, x: float, y: float, width: float, height: float, colour: str
) -> None:
    """Draw a box with its name in the middle."""
    box(picture, x, y, width, height, colour)
    text(picture, words, x + width / 2, y + height / 2)


def arrow(picture: drawsvg.Drawing, head: drawsvg.Marker, *points: float) -> None:
    """Draw a line with a tip at its end."""
    picture.append(drawsvg.Lines(*points, fill="none", stroke=INK, stroke_width=1.3, marker_end=head))


def canvas(width: int, height: int) -> tuple[drawsvg.Drawing, drawsvg.Marker]:
    """Return an empty picture and the tip of its arrows."""
    picture = drawsvg.Drawing(width, height)
    picture.append(drawsvg.Rectangle(0, 0, width, height, fill=PAPER))
    head = drawsvg.Marker(-8, -4, 0, 4, scale=1, orient="auto")
    head.append(drawsvg.Lines(-8, -4, 0, 0, -8, 4, fill=INK, close=True))
    return picture, head


def architecture() -> drawsvg.Drawing:
    """Who speaks to whom: the same engine on one machine and on a cluster."""
    picture, head = canvas(940, 520)
    for number, name in enumerate(("playbooks:\nmodules, inventory", "kubectl, virtctl", "connections to guests")):
        labelled(picture, name, 20 + number * 305, 20, 290, 60, USERS)
        arrow(picture, head, 165 + number * 305, 80, 165 + number * 305, 116)
    box(picture, 20, 118, 900, 84, API)
    text(picture, "the Kubernetes API", 470, 137, 16, font_weight="bold")
    text(picture, "one machine: the standalone API server, on SQLite", 245, 172)
    text(picture, "a cluster: kube-apiserver", 695, 172)
    parts = (
        ("virt-api", "admission,\nsubresources"),
        ("virt-controller", "VM → VMI → Pod,\nsets, migrations"),
        ("scheduler, Pod runner", "one machine: ours\na cluster: Kubernetes'"),
    )
    for number, (name, what) in enumerate(parts):
        x = 20 + number * 305
        box(picture, x, 240, 290, 84, ENGINE if number < 2 else API)
        text(picture, name, x + 145, 260, 15, font_weight="bold")
        text(picture, what, x + 145, 295, 13, fill=MUTED)
        arrow(picture, head, x + 145, 240, x + 145, 206)
    box(picture, 20, 362, 900, 140, PLACE)
    text(picture, "each node", 70, 382, 13, fill=MUTED)
    labelled(picture, "virt-handler\n(the only privileged part)", 40, 404, 260, 76, ENGINE)
    box(picture, 420, 380, 480, 108, PAPER)
    text(picture, "Pod of a virtual machine: no privileges", 660, 396, 13, fill=MUTED)
    labelled(picture, "virt-launcher", 436, 414, 130, 60, ENGINE)
    labelled(picture, "libvirtd", 596, 414, 120, 60, PAPER)
    labelled(picture, "QEMU: the guest", 746, 414, 138, 60, PAPER)
    arrow(picture, head, 566, 444, 594, 444)
    arrow(picture, head, 716, 444, 744, 444)
    arrow(picture, head, 170, 404, 170, 345, 8, 345, 8, 160, 18, 160)
    arrow(picture, head, 300, 462, 400, 462, 400, 500, 656, 500, 656, 476)
    text(picture, "libvirt's protocol", 352, 450, 12, fill=MUTED)
    arrow(picture, head, 775, 324, 775, 378)
    return picture


def way_of_a_vm() -> drawsvg.Drawing:
    """What happens from the task to the guest that answers."""
    left, lane, top, step = 70, 156, 78, 38
    bottom = top + len(STEPS) * step + 14
    picture, head = canvas(left + lane * (len(LANES) - 1) + 80, bottom + 14)
    for number, name in enumerate(LANES):
        x = left + number * lane
        picture.append(drawsvg.Line(x, 56, x, bottom, stroke=MUTED, stroke_width=1, stroke_dasharray="3 4"))
        labelled(picture, name, x - 62, 12, 124, 44, (USERS, API)[number] if number < 2 else ENGINE)
    for number, (source, target, what) in enumerate(STEPS):
        y, start, end = top + number * step + 14, left + source * lane, left + target * lane
        if source == target:
            arrow(picture, head, start, y - 6, start + 20, y - 6, start + 20, y + 8, start + 3, y + 8)
            text(picture, what, start + 28, y + 1, 12, text_anchor="start", clear=True)
        else:
            arrow(picture, head, start, y, end + (3 if end < start else -3), y)
            text(picture, what, (start + end) / 2, y - 11, 12, clear=True)
    return picture


if __name__ == "__main__":
    for name, drawn in (("architecture", architecture()), ("way-of-a-vm", way_of_a_vm())):
        drawn.save_svg(str(Path(__file__).with_name(f"{name}.svg")))
