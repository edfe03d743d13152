# SPDX-License-Identifier: GPL-3.0-or-later
"""What a user can do about what went wrong, for the end of an event's message. Pure.

Conditions have the words of KubeVirt, of the API server or of the kubelet alone: programs read those, people events.
"""

from turtles.kube.errors import ApiError, Invalid
from turtles.kube.events import MESSAGE_LENGTH

#: Of a claim that doesn't exist.
CLAIM = "create it, or correct the volume's claimName"
#: Of a claim that a DataVolume makes.
DATA_VOLUME = "create a DataVolume of that name, or a PersistentVolumeClaim"
#: Of a Pod of somebody else that has the name of a launcher's.
POD_IN_THE_WAY = "delete that Pod, or give it another name"
#: Of a launcher's Pod that is no more.
POD_GONE = (
    "VirtualMachines with runStrategy Always or RerunOnFailure start a new instance; others have to be started again"
)
#: Of a launcher's Pod that its node didn't take in.
POD_REJECTED = "a new one is created; if this keeps happening, check virt-handler and the free resources on that node"
#: Of a node's agent that doesn't do its part.
AGENT_LATE = "check that virt-handler is running on that node, and its log"

_PULL = (
    "check that the image exists and that the node may pull it (imagePullSecret of the containerDisk); the node keeps "
    "trying"
)
_WAITING = {
    **dict.fromkeys(("ErrImagePull", "ImagePullBackOff", "ImageInspectError", "RegistryUnavailable"), _PULL),
    "InvalidImageName": "correct the image's name",
    "ErrImageNeverPull": "provide the image on the node, or choose another imagePullPolicy",
}


def advised(words: str, remedy: str) -> str:
    """Return an event's message: the words of a refusal, truncated if they are too long, and the remedy."""
    return f"{words[: MESSAGE_LENGTH - len(remedy) - 2]}; {remedy}"


def of_waiting(reason: str, pod: str) -> str:
    """Return what to do about a container that can't start.

    :param reason: the kubelet's, such as ErrImagePull.
    :param pod: the Pod's name.
    """
    return _WAITING.get(reason, f"for details, see the Pod's events: kubectl describe pod {pod}")


def of_refusal(error: ApiError) -> str:
    """Return what to do about an object that the API server doesn't take."""
    if "exceeded quota" in error.message:
        return "raise the quota, or stop machines in the namespace; the engine keeps trying"
    if "failed calling webhook" in error.message:
        server = "virt-api" if "kubevirt.io" in error.message else "the server of this webhook"
        return f"check that {server} is running; the engine keeps trying"
    if isinstance(error, Invalid) and "metadata.annotations: Too long" in error.message:
        return "shorten the machine's annotations: its Pod gets them in addition to the engine's own"
    if isinstance(error, Invalid):
        return "correct the machine's spec"
    return "check what refuses it (permissions, Pod Security, a LimitRange, a webhook); the engine keeps trying"
