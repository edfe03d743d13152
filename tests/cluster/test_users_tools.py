# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The same virtual machine through kubectl, the modules and the inventory."""

from users_tools import (
    example,
    kubectl,
    test_a_loop_declares_a_fleet,
    test_restarted_gives_another_instance,
    test_states_are_idempotent_and_predicted_by_check_mode,
    test_the_first_manifest_of_kubevirts_users_with_kubectl,
    test_the_first_manifest_of_kubevirts_users_with_the_module,
    test_the_inventory_lists_running_instances_that_answer,
)

__all__ = [
    "example",
    "kubectl",
    "test_a_loop_declares_a_fleet",
    "test_restarted_gives_another_instance",
    "test_states_are_idempotent_and_predicted_by_check_mode",
    "test_the_first_manifest_of_kubevirts_users_with_kubectl",
    "test_the_first_manifest_of_kubevirts_users_with_the_module",
    "test_the_inventory_lists_running_instances_that_answer",
]
