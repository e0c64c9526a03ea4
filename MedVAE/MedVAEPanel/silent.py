"""Widgets that are changed by the panel, not by the user."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def silent(widget) -> Iterator[None]:
    """The widget tells nobody of what is done to it within."""
    blocked = widget.blockSignals(True)
    try:
        yield
    finally:
        widget.blockSignals(blocked)
