# SPDX-License-Identifier: GPL-3.0-or-later
"""Why an import ends without a disk. Messages are for the user of the DataVolume: what is wrong, and what to do."""

#: Exit statuses, by which the controller tells failures apart (:mod:`turtles.controller.data_volume.plan`).
FAILED, SCRATCH_NEEDED, REFUSED = 1, 42, 65


class ImportFailed(Exception):
    """It didn't work this time; another attempt may."""

    exit_status = FAILED


class ImportRefused(ImportFailed):
    """The content can't be imported; no other attempt will change that."""

    exit_status = REFUSED


class ScratchNeeded(ImportFailed):
    """The content has to be stored before it can be converted, and there is no scratch space."""

    exit_status = SCRATCH_NEEDED


class SourceChanged(ImportFailed):
    """The source isn't what the first part of the disk came from: the next attempt begins at the beginning."""
