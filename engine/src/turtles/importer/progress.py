# SPDX-License-Identifier: GPL-3.0-or-later
"""How much of an import is done, for those who ask: the controller, and Prometheus (CDI's metric)."""

from collections.abc import Iterator

from turtles.metrics import COUNTER, Description, Sample, Source

METRIC = "kubevirt_cdi_import_progress_total"
#: Part of an import that is the transfer, where a conversion follows.
_TRANSFER = 0.8


class Progress:
    """The part that is done.

    :param owner: uid of the DataVolume.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._share = 0.0
        self._start, self._end = 0.0, 1.0
        self._done: float | None = None

    @property
    def done(self) -> float | None:
        """The part of everything that is done; None if that isn't known."""
        return None if self._done is None else self._start + (self._end - self._start) * self._done

    def restart(self) -> None:
        """Nothing is done, and nothing is known of what there is to do."""
        self._share, self._done = 0.0, None

    def begin(self, start: float, end: float) -> None:
        """What is said from now on is about one step: the part of everything from one point to another."""
        self._share, self._done, self._start, self._end = 0.0, 0.0, start, end

    def expect_conversion(self) -> None:
        """The transfer isn't all."""
        self._share = _TRANSFER

    def transferred(self, position: int, total: int | None) -> None:
        """So many bytes are there."""
        self._share = self._share or 1.0
        self._done = position / total * self._share if total else None

    def converted(self, part: float) -> None:
        """The transfer is done, and so much of the conversion."""
        self._done = self._share + (1 - self._share) * part

    def source(self) -> Source:
        """Return the metric, in per cent; there is none while that isn't known."""

        def samples() -> Iterator[Sample]:
            if self.done is not None:
                yield Sample(METRIC, {"ownerUID": self._owner}, round(100 * self.done, 2))

        return Source((Description(METRIC, "Progress of the import in percent.", COUNTER),), samples)
