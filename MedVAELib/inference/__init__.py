"""Running a trained network: device, precision, memory, and the moments of its posterior samples."""

from .device import DeviceChoice, select_device
from .engine import Encoded, Engine
from .moments import Moments, posterior_noise

__all__ = ["DeviceChoice", "Encoded", "Engine", "Moments", "posterior_noise", "select_device"]
