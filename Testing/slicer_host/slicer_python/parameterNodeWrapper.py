"""Typed parameter nodes: the subset of Slicer's that this module uses (text, numbers, enums, nodes; ranges).

Values are kept as text in a real vtkMRMLScriptedModuleNode, nodes as its node references, so both are saved with
the scene. Widgets are bound through their dynamic property "SlicerParameterName".
"""

import copy
import enum
import typing

import qt
import slicer
import vtk

_MISSING = object()


class WithinRange:
    """Annotation: a number from minimum to maximum, both included."""

    def __init__(self, minimum, maximum):
        self.minimum, self.maximum = minimum, maximum

    def check(self, value):
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"value must lie between {self.minimum} and {self.maximum}, not {value}")


class Default:
    """Annotation: the value of a parameter that nobody set."""

    def __init__(self, value):
        self.value = value


class _Parameter:
    """One typed field: how it is read from and written to the node."""

    def __init__(self, name, hint, default):
        self.name, self.type, self.checks, self.default = name, hint, [], default
        if typing.get_origin(hint) is typing.Annotated:
            self.type, *notes = typing.get_args(hint)
            self.checks = [note for note in notes if hasattr(note, "check")]
            for note in notes:
                self.default = note.value if isinstance(note, Default) else self.default
        if self.default is _MISSING and not self.is_node:
            self.default = next(iter(self.type)) if issubclass(self.type, enum.Enum) else self.type()

    def named(self, name):
        """The same field, kept in the node under another name."""
        other = copy.copy(self)
        other.name = name
        return other

    @property
    def is_node(self):
        return issubclass(self.type, slicer.vtkMRMLNode)

    def read(self, node):
        if self.is_node:
            return node.GetNodeReference(self.name)
        text = node.GetParameter(self.name)
        if text == "" and self.name not in node.GetParameterNames():
            return self.default
        if issubclass(self.type, enum.Enum):
            return self.type[text]
        return text == "True" if self.type is bool else self.type(text)

    def write(self, node, value):
        if self.is_node:
            if value is not None and not isinstance(value, self.type):
                raise TypeError(f"{self.name} must be a {self.type.__name__}")
            node.SetNodeReferenceID(self.name, value.GetID() if value is not None else None)
            node.Modified()
            return
        value = self.type(value)
        for check in self.checks:
            check.check(value)
        node.SetParameter(self.name, value.name if isinstance(value, enum.Enum) else str(value))


def parameterNodeWrapper(cls):
    """Class decorator: instances wrap a node; typed fields become properties kept in it."""
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = {name: _Parameter(name, hint, getattr(cls, name, _MISSING)) for name, hint in hints.items()}

    def __init__(self, node, prefix=""):
        self.parameterNode = node
        self._bindings = {}
        self._fields = {name: field.named(f"{prefix or ''}{name}") for name, field in fields.items()}

    cls.__init__ = __init__
    for name in fields:
        setattr(
            cls,
            name,
            property(
                lambda self, n=name: self._fields[n].read(self.parameterNode),
                lambda self, value, n=name: self._fields[n].write(self.parameterNode, value),
            ),
        )
    cls.connectGui, cls.disconnectGui = _connect_gui, _disconnect_gui
    cls.AddObserver = lambda self, event, function: self.parameterNode.AddObserver(event, function)
    cls.RemoveObserver = lambda self, tag: self.parameterNode.RemoveObserver(tag)
    cls.Modified = lambda self: self.parameterNode.Modified()
    return cls


def _connect_gui(self, ui):
    """Binds every widget of `ui` that names a parameter, both ways. Returns a tag for disconnectGui."""
    pairs = []
    for widget in vars(ui).values():
        name = widget.property("SlicerParameterName") if isinstance(widget, qt.QWidget) else None
        if name:
            pairs.append(_Binding(self, name, widget))
    observer = self.parameterNode.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: [p.to_widget() for p in pairs])
    tag = len(self._bindings) + 1
    self._bindings[tag] = (observer, pairs)
    return tag


def _disconnect_gui(self, tag):
    observer, pairs = self._bindings.pop(tag)
    self.parameterNode.RemoveObserver(observer)
    for pair in pairs:
        pair.connected = False


class _Binding:
    def __init__(self, wrapper, name, widget):
        self.wrapper, self.name, self.widget, self.connected, self.busy = wrapper, name, widget, True, False
        field = self.field = wrapper._fields[name]
        range_check = next((check for check in field.checks if isinstance(check, WithinRange)), None)
        if range_check is not None:
            widget.minimum, widget.maximum = range_check.minimum, range_check.maximum
        if isinstance(widget, qt.QComboBox) and issubclass(field.type, enum.Enum):
            widget.clear()
            for member in field.type:
                widget.addItem(member.label() if hasattr(member, "label") else member.name, member.name)
        self.to_widget()
        widget.connect(self._signal(), lambda *_: self.to_node())

    def _signal(self):
        widget = self.widget
        if isinstance(widget, slicer.qMRMLNodeComboBox):
            return "currentNodeChanged(vtkMRMLNode*)"
        if isinstance(widget, qt.QComboBox):
            return "currentIndexChanged(int)"
        if isinstance(widget, qt.QAbstractButton):
            return "toggled(bool)"
        if isinstance(widget, qt.QLineEdit):
            return "textChanged(QString)"
        return "valueChanged(int)" if isinstance(widget, qt.QSpinBox) else "valueChanged(double)"

    def to_node(self):
        if not self.connected or self.busy:
            return
        widget = self.widget
        if isinstance(widget, slicer.qMRMLNodeComboBox):
            value = widget.currentNode()
        elif isinstance(widget, qt.QComboBox):
            value = (
                self.field.type[widget.currentData] if issubclass(self.field.type, enum.Enum) else widget.currentText
            )
        elif isinstance(widget, qt.QAbstractButton):
            value = widget.checked
        else:
            value = widget.text if isinstance(widget, qt.QLineEdit) else widget.value
        setattr(self.wrapper, self.name, value)

    def to_widget(self):
        if not self.connected or self.busy:
            return
        self.busy = True
        try:
            value, widget = getattr(self.wrapper, self.name), self.widget
            if isinstance(widget, slicer.qMRMLNodeComboBox):
                widget.setCurrentNode(value)
            elif isinstance(widget, qt.QComboBox):
                enumerated = issubclass(self.field.type, enum.Enum)
                found = widget.findData(value.name) if enumerated else widget.findText(value)
                widget.setCurrentIndex(found)
            elif isinstance(widget, qt.QAbstractButton):
                widget.checked = value
            elif isinstance(widget, qt.QLineEdit):
                widget.text = value
            else:
                widget.value = value
        finally:
            self.busy = False
