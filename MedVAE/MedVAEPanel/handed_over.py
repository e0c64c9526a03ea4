"""The file through which the worker gets a scan: written once, as long as the scan stays as it is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from .scan_node import SCAN_FILE, as_request, state, write_scan


class HandedOver:
    """Keeps the last scan's file in a folder of the worker's, and makes it anew if that is gone, as after an
    installation."""

    def __init__(self, worker):
        self._worker = worker
        self._state: tuple | None = None
        self._folder: Path | None = None

    def keep(self, scan) -> dict[str, Any]:
        """The request's "scan", in the file that is kept until another scan's takes its place. Raises OSError."""
        now = (scan.GetID(), *state(scan))
        if now != self._state or not (self._folder / SCAN_FILE).is_file():
            self.drop()
            self._folder = self._worker.folder("scan")
            try:
                write_scan(scan, self._folder)
            except OSError:
                self.drop()
                raise
            self._state = now
        return as_request(scan, self._folder / SCAN_FILE)

    def write(self, scan, folder: Path) -> dict[str, Any]:
        """As `write_scan`, without writing again what was written already: a job gets a link in its own folder, so that
        it goes with the job, and another scan never takes it away from one that waits. Raises OSError."""
        kept = self.keep(scan)
        try:
            os.link(kept["array"], folder / SCAN_FILE)
        except OSError:  # not every file system has links
            return write_scan(scan, folder)
        return as_request(scan, folder / SCAN_FILE)

    def drop(self) -> None:
        """No scan is chosen any more."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._state = self._folder = None
