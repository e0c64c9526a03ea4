"""The list of findings in the panel, surest first: a row chosen is a place shown."""

from __future__ import annotations

from collections.abc import Callable

from slicer.i18n import tr as _

from . import display, segments
from .anomaly_results import Result, follow_scans
from .findings_node import position_now, rows
from .silent import silent
from .tables import set_columns, set_row

_POSITION = 4
_SIDES = (("R", "L"), ("A", "P"), ("S", "I"))


class FindingsTable:
    """Fills a QTableWidget from a result. `bring_into_view()` is called before a finding is gone to."""

    def __init__(self, table, summary, bring_into_view: Callable[[], None]):
        self.table, self.summary, self._bring_into_view = table, summary, bring_into_view
        self.result: Result | None = None
        headers = [_("Where"), _("ml"), _("Peak"), _("Mean"), _("Position (mm)")]
        tips = [_("Side and tissue; the rows are ordered by the mean score, surest first."), _("Volume"),
                _("Highest anomaly score"), _("Mean anomaly score"), _("Where the score is highest, in the world")]
        set_columns(table, headers, tips)
        table.connect("itemSelectionChanged()", self._choose)
        table.connect("cellClicked(int,int)", lambda row, column: self._choose())

    def show(self, result: Result | None) -> None:
        """The findings of a result, or none."""
        self.result = result
        node = result.node("findings") if result is not None else None
        self._rows = rows(node) if node is not None else []
        with silent(self.table):
            self.table.clearSelection()
            self.table.setRowCount(len(self._rows))
            for index, (row, place) in enumerate(zip(self._rows, self._positions(), strict=True)):
                where = row["location"]
                where = _("{location} (dark)").format(location=where) if row["polarity"] == "dark" else where
                texts = (where, f"{row['volume_ml']:.2f}", f"{row['peak']:.1f}", f"{row['mean']:.1f}",
                         in_words(place))
                set_row(self.table, index, texts)
        warnings = result.provenance.get("warnings", []) if result is not None else []
        self.summary.text = "\n".join(text for text in (self._summary(node), *warnings) if text)

    def renew_positions(self) -> list[tuple[float, float, float]]:
        """The scan may have been moved. Returns them, world RAS (mm); none if the user deleted the table node."""
        places = self._positions()
        for index, place in enumerate(places):
            self.table.item(index, _POSITION).setText(in_words(place))
        return places

    def _positions(self) -> list[tuple[float, float, float]]:
        node = self.result.node("findings") if self.result is not None else None
        volume = self.result.place if node is not None else None
        return [position_now(node, volume, row) for row in self._rows] if node is not None else []

    def _summary(self, node) -> str:
        if node is None:
            return ""
        if not self._rows:
            return _("Nothing stands out at this false-positive rate. That is no proof that the brain is healthy.")
        total = sum(row["volume_ml"] for row in self._rows)
        one = len(self._rows) == 1
        return (_("One finding, {volume:.1f} ml. Click it to go there.") if one else
                _("{count} findings, {volume:.1f} ml in all, surest first. Click one to go there.")).format(
                    count=len(self._rows), volume=total)

    def _choose(self) -> None:
        chosen = self.table.selectionModel().selectedRows()
        if not chosen or self.result is None:
            return
        index = chosen[0].row()
        row, segmentation = self._rows[index], self.result.node("segmentation")
        follow_scans()
        places = self.renew_positions()
        if places:
            self._bring_into_view()
            display.jump(places[index])
        if segmentation is not None:
            segments.highlight(segmentation, segments.segment_of(segmentation, int(row["label"])))


def in_words(ras) -> str:
    """A position as radiologists read it, e.g. "L23 A4 S41"."""
    return " ".join(f"{sides[value < 0]}{abs(round(value))}" for value, sides in zip(ras, _SIDES, strict=True))
