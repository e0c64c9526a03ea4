"""MedVAE: where a scan departs from healthy anatomy, and where a skull is, with the uncertainty of both.

The public names load what they need when they are first used: importing this package imports neither torch nor
SimpleITK.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .anomaly.detect import detect_anomalies
    from .bundle import load_bundle
    from .scan import Scan
    from .skull.planes import PlaneImage
    from .skull.predict import predict_skull

__version__ = "0.1.0"
__all__ = ["PlaneImage", "Scan", "__version__", "detect_anomalies", "load_bundle", "predict_skull"]

_HOMES = {
    "PlaneImage": ".skull.planes", "Scan": ".scan", "detect_anomalies": ".anomaly.detect", "load_bundle": ".bundle",
    "predict_skull": ".skull.predict",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
