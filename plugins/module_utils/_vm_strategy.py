# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The run strategy of a VirtualMachine, in both of its forms: runStrategy and the older running. Pure functions."""

from __future__ import annotations

import copy

RUN_STRATEGIES = ("Always", "Halted", "Manual", "Once", "RerunOnFailure")


def strategy_of(spec):
    """Return the run strategy that a VirtualMachine's spec declares; None where it declares none."""
    if spec.get("runStrategy"):
        return spec["runStrategy"]
    if spec.get("running") is None:
        return None
    return "Always" if spec["running"] else "Halted"


def drop_strategy(spec):
    """Take the run strategy out of a spec."""
    spec.pop("running", None)
    spec.pop("runStrategy", None)


def set_strategy(spec, live_spec, strategy):
    """Declare the run strategy in spec, in the form that spec or the live object uses, and only in that form."""
    older = spec.get("running") is not None or (not spec.get("runStrategy") and live_spec.get("running") is not None)
    drop_strategy(spec)
    if older and strategy in ("Always", "Halted"):
        spec["running"] = strategy == "Always"
        if live_spec.get("runStrategy"):
            spec["runStrategy"] = None
    else:
        spec["runStrategy"] = strategy
        if live_spec.get("running") is not None:
            spec["running"] = None


def resolve_strategy(spec, live_spec, state):
    """Change spec so that its run strategy is what the module's state asks for.

    It is left out where it isn't to change: a subresource then does the start, stop or restart.

    :param live_spec: None for an object that doesn't exist yet.
    """
    declared = strategy_of(spec)
    live = strategy_of(live_spec) if live_spec is not None else None
    wanted = declared
    if state in ("running", "restarted"):
        wanted = declared if declared not in (None, "Halted") else None
        if wanted is None and live_spec is None:
            wanted = "Always"
    elif state == "stopped":
        # Besides Halted, Manual is the only strategy under which a new machine doesn't start by itself.
        wanted = None if live_spec is not None else ("Manual" if declared == "Manual" else "Halted")
    elif wanted is None and live_spec is None:
        wanted = "Halted"
    if wanted is None or wanted == live:
        drop_strategy(spec)
    else:
        set_strategy(spec, live_spec or {}, wanted)


def after_action(vm, action):
    """Return the VirtualMachine as the subresource `action` would leave it, for check mode."""
    vm = copy.deepcopy(vm)
    strategy = strategy_of(vm["spec"])
    if action == "start" and strategy == "Halted":
        set_strategy(vm["spec"], {}, "Always")
    if action == "stop" and strategy in ("Always", "Once"):
        set_strategy(vm["spec"], {}, "Halted")
    return vm
