"""Where a scan departs from the healthy brain behind it."""

from .detect import detect_anomalies
from .result import Detection, Finding

__all__ = ["Detection", "Finding", "detect_anomalies"]
