# SPDX-License-Identifier: GPL-3.0-or-later
"""The launcher's only kind of failure."""


class LaunchError(Exception):
    """The VM can't be started in this Pod, and trying again in the same Pod won't help.

    The message is for the user of the VM: it names the volume or interface, what is wrong, and what to do. It becomes
    the Pod's termination message and from there an event of the VM.
    """
