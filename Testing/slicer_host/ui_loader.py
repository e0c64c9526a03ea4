"""Loads .ui files strictly: unknown widgets and properties are errors, MRML connections are honoured."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from PySide6 import QtCore, QtUiTools, QtWidgets

from .ctk_widgets import CTK
from .pythonqt import signal
from .qmrml_widgets import QMRML


class QUiLoader(QtUiTools.QUiLoader):
    strict = True

    def load(self, f, parent=None):
        data = bytes(f.readAll().data()) if isinstance(f, QtCore.QIODevice) else open(f, "rb").read()
        root = ET.fromstring(data)
        known = {**CTK, **QMRML}
        for w in root.iter("widget"):
            c = w.get("class")
            if self.strict and c.startswith(("ctk", "qMRML", "qSlicer")) and c not in known:
                raise RuntimeError(f"no stand-in for {c} ({w.get('name')})")
            cls = known.get(c) or getattr(QtWidgets, c, None)
            if cls is not None and self.strict:
                mo = cls.staticMetaObject
                for p in w.findall("property"):
                    if p.get("stdset") != "0" and mo.indexOfProperty(p.get("name")) < 0:
                        raise RuntimeError(f"{c} {w.get('name')} has no property {p.get('name')}")
        for c in {w.get("class") for w in root.iter("widget")} & known.keys():
            self.registerCustomWidget(known[c])
        conns = [
            (x.findtext("sender"), x.findtext("signal"), x.findtext("receiver"), x.findtext("slot"))
            for x in root.iter("connection")
        ]
        for parentEl in root.findall("connections"):
            root.remove(parentEl)
        buf = QtCore.QBuffer()
        buf.setData(ET.tostring(root))
        buf.open(QtCore.QIODevice.ReadOnly)
        w = super().load(buf, parent)
        if w is None:
            raise RuntimeError(self.errorString())
        byName = {c.objectName: c for c in [w] + w.findChildren(QtCore.QObject)}
        for s, sig, r, slot in conns:
            signal(byName[s], sig).connect(getattr(byName[r], slot.split("(")[0]))
        return w
