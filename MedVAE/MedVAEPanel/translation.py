"""Slicer's `tr`, for the modules that also run where Slicer's application is not: there, the words stay English."""

from __future__ import annotations

import sys

if getattr(sys.modules.get("slicer"), "app", None) is not None:
    from slicer.i18n import tr  # itself, because it looks at who calls it
else:

    def tr(text: str) -> str:
        return text
