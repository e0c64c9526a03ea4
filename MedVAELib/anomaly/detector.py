"""A bundle on a device: the engine and the model, loaded once for many scans."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..bundle import DEFAULT_ANOMALY_BUNDLE, Bundle, load_bundle
from ..errors import BundleError
from ..inference import Engine
from ..tissues import TISSUES
from .calibration import ScoreCalibration
from .scores import Emphasis


@dataclass
class Detector:
    """A bundle on a device, kept warm: one engine, one model, many scans."""

    bundle: Bundle
    engine: Engine
    shape: tuple[int, int, int]
    spacing_mm: float

    @property
    def steps(self) -> list[str]:
        """The steps down the memory ladder so far."""
        return self.engine.steps

    @classmethod
    def load(cls, bundle: Bundle | str | Path | None = None, device: str = "auto") -> Detector:
        """Raises BundleError for a bundle that is missing, damaged or made for another task."""
        bundle = load_bundle(bundle or DEFAULT_ANOMALY_BUNDLE)
        try:
            grid = bundle.metadata["medvae"]["grid"]
            shape, spacing_mm = tuple(int(n) for n in grid["shape_zyx"]), float(grid["spacing_mm"])
            settings = bundle.calibration
            usable = len(shape) == 3 and all(n > 0 and n % 16 == 0 for n in shape) and spacing_mm > 0
            usable = usable and len(settings["tissue_weight"]) == len(TISSUES) and isinstance(settings["score"], dict)
            for modality in ("flair", "dwi"):
                Emphasis(**settings["emphasis"][modality])
            for table in (side for score in settings["score"].values() for sides in score.values()
                          for side in sides.values()):
                ScoreCalibration.from_json(table)
            usable = usable and settings["fine_sigma_mm"] >= 0 and settings["coarse_sigma_mm"] >= 0
        except (AttributeError, KeyError, TypeError, ValueError):
            usable = False
        if not usable:
            raise BundleError(f"Bundle '{bundle.name}' is no anomaly detector: its grid or calibration is incomplete.")
        return cls(bundle, Engine(device).load(bundle.network()), shape, spacing_mm)
