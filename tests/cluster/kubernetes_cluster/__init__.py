# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A real Kubernetes for tests, from Debian's packages alone.

``build`` fetches and builds Kubernetes into a cache and installs nothing on the system. ``Cluster`` runs it: a control
plane, nodes and a registry, each machine of it in namespaces of its own (:mod:`.machine`), so that several clusters
run side by side and ending their processes removes all they made.
"""

from .cluster import Cluster, Node
from .errors import ClusterError, wait_for
from .existing import ExistingCluster
from .registry import Registry
from .settings import Settings

__all__ = ["Cluster", "ClusterError", "ExistingCluster", "Node", "Registry", "Settings", "wait_for"]
