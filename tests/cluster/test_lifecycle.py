# Copyright: (c) 2026, turtles.kubevirt contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The life of a virtual machine, seen from the API and from inside the guest."""

from lifecycle import (
    test_a_declared_vm_answers_to_ssh,
    test_acpi_shutdown_is_graceful_and_ends_with_the_grace_period,
    test_cloud_init_data_from_secrets,
    test_deleting_the_instance_of_a_running_vm_starts_another,
    test_empty_disk_and_persistent_volume,
    test_guest_shutdown_under_always_starts_a_new_instance,
    test_guest_shutdown_under_rerun_on_failure_is_final_until_started,
    test_orphan_deletion_leaves_the_instance,
    test_run_strategies,
    test_stop_start_restart_and_delete,
    test_ten_at_once,
    test_the_guest_reaches_another_guest,
)

__all__ = [
    "test_a_declared_vm_answers_to_ssh",
    "test_acpi_shutdown_is_graceful_and_ends_with_the_grace_period",
    "test_cloud_init_data_from_secrets",
    "test_deleting_the_instance_of_a_running_vm_starts_another",
    "test_empty_disk_and_persistent_volume",
    "test_guest_shutdown_under_always_starts_a_new_instance",
    "test_guest_shutdown_under_rerun_on_failure_is_final_until_started",
    "test_orphan_deletion_leaves_the_instance",
    "test_run_strategies",
    "test_stop_start_restart_and_delete",
    "test_ten_at_once",
    "test_the_guest_reaches_another_guest",
]
