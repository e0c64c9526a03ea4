"""Stand-ins for the CTK widgets that the panel uses, on PySide6."""

from __future__ import annotations

from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Property, Qt, Signal

_SHOWN = "shownBeforeCollapse"


class ctkCollapsibleButton(QtWidgets.QAbstractButton):
    contentsCollapsed = Signal(bool)
    H = 24

    def __init__(self, *a):
        parent = a[-1] if a and isinstance(a[-1], QtWidgets.QWidget) else None
        super().__init__(parent)
        self._collapsed = False
        if a and isinstance(a[0], str):
            self.setText(a[0])
        self.setContentsMargins(0, self.H, 0, 0)
        self.setCheckable(True)
        self.setChecked(True)
        self.toggled.connect(lambda on: self._apply(not on))
        self.setSizePolicy(QtWidgets.QSizePolicy.Preferred, QtWidgets.QSizePolicy.Preferred)

    def _apply(self, c):
        if c == self._collapsed:
            return
        self._collapsed = c
        for ch in self.children():
            if isinstance(ch, QtWidgets.QWidget):
                self._hide(ch) if c else ch.setVisible(ch.property(_SHOWN) is not False)
        self.setMaximumHeight(self.H if c else 16777215)
        self.updateGeometry()
        self.contentsCollapsed.emit(c)

    def childEvent(self, e):
        super().childEvent(e)
        if (
            self.__dict__.get("_collapsed")
            and e.type() == QtCore.QEvent.ChildPolished
            and isinstance(e.child(), QtWidgets.QWidget)
        ):
            self._hide(e.child())

    @staticmethod
    def _hide(child):
        """What the code hid stays hidden when the section opens again."""
        child.setProperty(_SHOWN, not (child.isHidden() and child.testAttribute(Qt.WA_WState_ExplicitShowHide)))
        child.setVisible(False)

    def getCollapsed(self):
        return self._collapsed

    def setCollapsed(self, c):
        self.setChecked(not c)
        self._apply(bool(c))

    collapsed = Property(bool, getCollapsed, setCollapsed)

    def hitButton(self, pos):
        return pos.y() < self.H

    def minimumSizeHint(self):
        layout = self.layout()
        return QtCore.QSize(80, self.H) if self._collapsed or layout is None else layout.totalMinimumSize()

    def sizeHint(self):
        layout = self.layout()
        s = layout.sizeHint() if layout and not self._collapsed else QtCore.QSize(80, 0)
        return QtCore.QSize(s.width(), self.H if self._collapsed or not layout else s.height())

    def paintEvent(self, e):
        p = QtGui.QPainter(self)
        o = QtWidgets.QStyleOptionButton()
        o.initFrom(self)
        o.rect = QtCore.QRect(0, 0, self.property("width"), self.H)
        o.text = ("\u25b8 " if self._collapsed else "\u25be ") + self.property("text")
        self.style().drawControl(QtWidgets.QStyle.CE_PushButton, o, p, self)
        p.end()


class ctkSliderWidget(QtWidgets.QWidget):
    valueChanged = Signal(float)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._sl = QtWidgets.QSlider(Qt.Horizontal, self)
        self._sp = QtWidgets.QDoubleSpinBox(self)
        self._sp.setRange(0, 99)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._sl)
        layout.addWidget(self._sp)
        self._sync()
        self._sl.valueChanged.connect(
            lambda i: self._sp.setValue(self._sp.property("minimum") + i * (self._sp.property("singleStep") or 1))
        )
        self._sp.valueChanged.connect(self._on)

    def _sync(self):
        b = self._sl.blockSignals(True)
        st = self._sp.property("singleStep") or 1
        self._sl.setRange(
            0, min(10**6, max(0, round((self._sp.property("maximum") - self._sp.property("minimum")) / st)))
        )
        self._sl.setValue(round((self._sp.property("value") - self._sp.property("minimum")) / st))
        self._sl.blockSignals(b)

    def _on(self, v):
        self._sync()
        self.valueChanged.emit(v)

    def setValue(self, v):
        self._sp.setValue(v)

    def setMinimum(self, v):
        self._sp.setMinimum(v)
        self._sync()

    def setMaximum(self, v):
        self._sp.setMaximum(v)
        self._sync()

    def setRange(self, a, b):
        self.setMinimum(a)
        self.setMaximum(b)

    def setSingleStep(self, v):
        span = self._sp.property("maximum") - self._sp.property("minimum")
        if span and not 0 < v <= span:  # CTK warns and keeps the step it has
            return
        self._sp.setSingleStep(v)
        self._sync()

    def setPageStep(self, v):
        self._sl.setPageStep(int(v))

    def setDecimals(self, v):
        self._sp.setDecimals(int(v))
        self._sync()

    value = Property(float, lambda s: s._sp.property("value"), setValue)
    minimum = Property(float, lambda s: s._sp.property("minimum"), setMinimum)
    maximum = Property(float, lambda s: s._sp.property("maximum"), setMaximum)
    singleStep = Property(float, lambda s: s._sp.property("singleStep"), setSingleStep)
    pageStep = Property(float, lambda s: float(s._sl.property("pageStep")), setPageStep)
    decimals = Property(int, lambda s: s._sp.property("decimals"), setDecimals)
    tracking = Property(bool, lambda s: True, lambda s, v: None)


class ctkCheckBox(QtWidgets.QCheckBox):
    pass


class ctkComboBox(QtWidgets.QComboBox):
    pass


class ctkCheckablePushButton(QtWidgets.QPushButton):
    pass


class ctkDoubleSpinBox(QtWidgets.QDoubleSpinBox):
    pass


class ctkDoubleSlider(ctkSliderWidget):
    pass


class ctkRangeWidget(QtWidgets.QWidget):
    pass


class ctkDoubleRangeSlider(ctkRangeWidget):
    pass


class ctkColorPickerButton(QtWidgets.QPushButton):
    pass


class ctkDirectoryButton(QtWidgets.QPushButton):
    pass


class ctkMessageBox(QtWidgets.QMessageBox):
    pass


class ctkPathLineEdit(QtWidgets.QWidget):
    currentPathChanged = Signal(str)

    def __init__(self, parent=None):
        super().__init__(parent)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._e = QtWidgets.QLineEdit(self)
        layout.addWidget(self._e)
        self._e.textChanged.connect(self.currentPathChanged)

    def setCurrentPath(self, p):
        self._e.setText(str(p))

    currentPath = Property(str, lambda s: s._e.property("text"), setCurrentPath)


CTK = {name: value for name, value in list(globals().items()) if name.startswith("ctk")}
