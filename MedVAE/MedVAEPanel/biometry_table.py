"""The measures of a predicted head in the panel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from slicer.i18n import tr as _

from .tables import set_columns, set_row


class BiometryTable:
    """Fills a QTableWidget: a row per measure, with its calibrated standard deviation."""

    def __init__(self, table):
        self.table = table
        headers = [_("Measure"), _("Value"), _("SD"), _("Unit"), _("Percentile")]
        tips = ["", _("Mean over the samples"),
                _("Standard deviation, calibrated: what the planes and their outlines leave open"), "",
                _("Of healthy fetuses of the gestational age given, after INTERGROWTH-21st")]
        set_columns(table, headers, tips)

    def show(self, measures: Sequence[Mapping[str, Any]]) -> None:
        self.table.setRowCount(len(measures))
        for index, measure in enumerate(measures):
            percentile = measure["percentile"]
            texts = (measure["title"][:1].upper() + measure["title"][1:], f"{measure['value']:.1f}",
                     f"{measure['std']:.2f}", measure["unit"],
                     _ordinal(percentile) if isinstance(percentile, float) else "–")
            set_row(self.table, index, texts, _interval(measure))


def _interval(measure: Mapping[str, Any]) -> str:
    return _("95 % interval: {low:.1f} to {high:.1f} {unit}").format(
        low=measure["low"], high=measure["high"], unit=measure["unit"])


def _ordinal(percentile: float) -> str:
    if percentile < 1 or percentile > 99:
        return "< 1" if percentile < 1 else "> 99"
    return f"{percentile:.0f}"
