"""PythonQt's conventions on PySide6: Qt properties are attributes, obj.connect("signal(args)", function)."""

from __future__ import annotations

from PySide6 import QtCore
from PySide6.QtCore import Signal


def patch_properties(cls):
    mo = cls.staticMetaObject
    for i in range(mo.propertyOffset(), mo.propertyCount()):
        p = mo.property(i)
        n = p.name()
        if n in ("sizeHint", "minimumSizeHint", "duration", "totalDuration") or (cls, n) == (
            QtCore.QTimer,
            "singleShot",
        ):
            continue  # virtual readers: Shiboken would take ours for an override -> infinite recursion

        def fget(s, n=n):
            return s.property(n)

        def fset(s, v, n=n):
            if not s.setProperty(n, v):
                raise TypeError(f"cannot set {type(s).__name__}.{n} = {v!r}")

        setattr(cls, n, property(fget, fset if p.isWritable() else None))


def signal(obj, signature):
    name, _, args = signature.partition("(")
    args = args.rstrip(")")
    over = getattr(type(obj), "signalOverloads", {}).get(signature.replace(" ", ""))
    if over:
        return getattr(obj, over)
    norm = QtCore.QMetaObject.normalizedSignature(signature)
    norm = bytes(norm.data()).decode() if hasattr(norm, "data") else str(norm)
    mo = obj.metaObject()
    isPython = "slot_signal_names" in dir(type(obj)) or any(
        isinstance(vars(k).get(name), Signal) for k in type(obj).__mro__
    )
    if not isPython and mo.indexOfSignal(norm) < 0:
        have = sorted(
            bytes(mo.method(i).methodSignature().data()).decode()
            for i in range(mo.methodCount())
            if mo.method(i).methodType() == QtCore.QMetaMethod.Signal
        )
        raise RuntimeError(f"{mo.className()} has no signal {signature}; has {have}")
    inst = getattr(obj, name)
    return inst


def connect(self, name, receiver, *rest):
    signal(self, name).connect(receiver)
    return True


def disconnect(self, name, receiver=None):
    s = signal(self, name)
    return s.disconnect(receiver) if receiver else s.disconnect()
