"""The panel's log, and the report that a user sends when something went wrong: no patient data, no file names."""

from __future__ import annotations

import json
import logging
import platform
import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

_LOG = logging.getLogger("MedVAE")
MAX_LINES = 400
_REPORTED_LINES = 60
_SUFFIX = r"\.(?:nii|nrrd|nhdr|mha|mhd|hdr|img|dcm|ima|mgh|mgz)(?:\.gz)?(?![\w.])"
_START = r"(?:file:/|(?<![a-z0-9])[a-z]:[\\/]|(?<![\w:\\])\\\\|(?<![\w:/])//|~[\\/]|(?<![\w./])/(?![/\s]))"
_FILE_NAME = re.compile(
    # Names of folders may hold blanks and commas: what begins as a path goes on to its closing quote, to the last
    # suffix of an image in the line, or to the line's end.
    rf"""(?<="){_START}[^"\n]*|(?<='){_START}[^\n]*(?=')|{_START}(?:[^\n]*{_SUFFIX}|[^\n]*)"""
    rf"""|[^\s"'<>|:,;]+{_SUFFIX}""", re.I)


class PanelLog:
    """Lines with their time. Listeners hear of every new line; Slicer's own log has it `clean`.

    names(): those of the scans that there are now.
    """

    def __init__(self, names: Callable[[], Iterable[str]] = tuple) -> None:
        self._names = names
        self.lines: deque[str] = deque(maxlen=MAX_LINES)
        self.listeners: list[Callable[[str], None]] = []
        self.secrets: set[str] = set()
        """Names of scans that there were: they can be names of patients, so the report leaves them out."""

    def add(self, text: str) -> None:
        for part in text.splitlines():
            line = f"{time.strftime('%H:%M:%S')}  {part}"
            self.lines.append(line)
            for listener in list(self.listeners):
                listener(line)
        _LOG.info(self.clean(text))

    def tail(self, count: int) -> list[str]:
        return list(self.lines)[-count:]

    def clean(self, text: str) -> str:
        """The text without file names and without names of scans."""
        for secret in sorted({*self.secrets, *self._names()}, key=len, reverse=True):
            if secret.strip():
                text = text.replace(secret, "<scan>")
        return _FILE_NAME.sub("<file>", text)

    def report(self, application: Mapping[str, Any], info: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
        """Text for a bug report. application: name and version; info: the worker's answer to "info"."""
        parts = [
            "MedVAE diagnostic report (no patient data, no file names)",
            f"System: {platform.platform()}, Python {platform.python_version()}",
            "Application: " + ", ".join(f"{name} {value}" for name, value in application.items()),
            "Versions: " + (json.dumps(info.get("versions")) if info else "unknown, the worker has not started"),
            "Missing packages: " + (", ".join(info.get("missing", [])) or "none" if info else "unknown"),
            "Devices: " + (json.dumps(info.get("devices"), ensure_ascii=False) if info else "unknown"),
            "Notes on the device: " + ("; ".join(info.get("reasons", [])) or "none" if info else "unknown"),
            "Settings: " + json.dumps(dict(settings)),
            f"Last lines of the log ({min(len(self.lines), _REPORTED_LINES)}):",
            *self.tail(_REPORTED_LINES),
        ]
        return self.clean("\n".join(parts)) + "\n"
