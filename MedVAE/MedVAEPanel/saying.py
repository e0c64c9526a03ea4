"""How the panel says what happened, or what is wrong, in a label."""

from __future__ import annotations

BAD = "#d9534f"
"""The colour of what is wrong."""


def say(label, text: str, bad: bool = False) -> None:
    label.text = text
    label.setStyleSheet(f"color: {BAD}" if bad else "")
