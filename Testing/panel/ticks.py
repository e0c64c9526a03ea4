"""Whether the interface lives: how often a timer of 20 ms fires while something runs."""

from __future__ import annotations

import time

INTERVAL_MS = 20


class Ticks:
    """`with Ticks() as ticks: …` counts; the event loop must be turned inside."""

    def __enter__(self) -> Ticks:
        import qt

        self._times = [time.monotonic()]
        self._timer = qt.QTimer()
        self._timer.setInterval(INTERVAL_MS)
        self._timer.connect("timeout()", lambda: self._times.append(time.monotonic()))
        self._timer.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._timer.stop()
        self._times.append(time.monotonic())

    @property
    def count(self) -> int:
        return len(self._times) - 2

    @property
    def seconds(self) -> float:
        return self._times[-1] - self._times[0]

    @property
    def longest_pause_s(self) -> float:
        return max(later - earlier for earlier, later in zip(self._times, self._times[1:], strict=False))

    def __str__(self) -> str:
        share = self.count * INTERVAL_MS / 1000 / self.seconds
        return (f"{self.count} ticks of a {INTERVAL_MS} ms timer in {self.seconds:.1f} s ({share:.0%}), "
                f"longest pause {self.longest_pause_s:.2f} s")
