"""Rows as Markdown, and figures as text: what the tables of all tasks share."""

from __future__ import annotations

import math
from collections.abc import Sequence


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table: the first column left, the others right."""
    lines = [list(header), ["---"] + ["---:"] * (len(header) - 1), *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def figure(value: float, interval: Sequence[float] = ()) -> str:
    """A figure with its interval, e.g. "0.52 [0.44, 0.61]"; "–" where it is not defined."""
    if not math.isfinite(value):
        return "–"
    if not interval or not all(map(math.isfinite, interval)):
        return f"{value:.3f}"
    return f"{value:.3f} [{interval[0]:.2f}, {interval[1]:.2f}]"


def estimated(estimate: Sequence[float], digits: int, signed: bool = False) -> str:
    """Value and interval (value, low, high), e.g. "0.52 [0.44, 0.61]"."""
    value, low, high = estimate
    text = number(value, digits, signed)
    if not (math.isfinite(low) and math.isfinite(high)):
        return text
    return f"{text} [{number(low, digits, signed)}, {number(high, digits, signed)}]"


def number(value: float, digits: int, signed: bool = False) -> str:
    """"–" where it is not defined."""
    return f"{value:{'+' if signed else ''}.{digits}f}" if math.isfinite(value) else "–"


def percent(value: float) -> str:
    """A share in percent; "–" where it is not defined."""
    return f"{value:.2%}" if math.isfinite(value) else "–"
