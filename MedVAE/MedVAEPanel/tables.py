"""How the panel's tables look: first column wide, the others as narrow as their text, figures to the right."""

from __future__ import annotations

from collections.abc import Sequence

import qt


def set_columns(table, headers: Sequence[str], tips: Sequence[str]) -> None:
    """The columns of a QTableWidget, each header with its tooltip."""
    table.setColumnCount(len(headers))
    table.setHorizontalHeaderLabels(list(headers))
    for column, tip in enumerate(tips):
        table.horizontalHeaderItem(column).setToolTip(tip)
    header = table.horizontalHeader()
    header.setSectionResizeMode(qt.QHeaderView.ResizeToContents)
    header.setSectionResizeMode(0, qt.QHeaderView.Stretch)


def set_row(table, index: int, texts: Sequence[str], tip: str = "") -> None:
    for column, text in enumerate(texts):
        item = qt.QTableWidgetItem(text)
        item.setToolTip(tip)
        if column:
            item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
        table.setItem(index, column, item)
