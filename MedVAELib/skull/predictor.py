"""The skull's two bundles on a device, loaded once for many cases."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..bundle import DEFAULT_SKULL_BUNDLE, OUTLINE_BUNDLE, Bundle, load_bundle
from ..errors import BundleError
from ..preprocessing.outlines import MARGIN, SIZE
from ..standard_planes import SUBSETS, named
from .biometry import AS_FOUND, UNITS, Drawn
from .engine import OutlineEngine, ShapeEngine

OUTLINE_MODEL = "head_outline"
_MOST_MM = 5.0  # that an outline may be off by


@dataclass
class SkullPredictor:
    """A shape model on a device, kept warm; the outline network joins it when the first image comes."""

    bundle: Bundle
    shape: ShapeEngine
    temperatures: Mapping[str, float]
    widenings: Mapping[str, Mapping[str, float]]
    device: str = "auto"
    outline_bundle: Bundle | str | Path = OUTLINE_BUNDLE
    _outline: OutlineEngine | None = field(default=None, repr=False)

    @classmethod
    def load(
        cls, bundle: Bundle | str | Path | None = None, device: str = "auto",
        outline_bundle: Bundle | str | Path | None = None,
    ) -> SkullPredictor:
        """Raises BundleError for a bundle that is missing, damaged or made for another task, UsageError for a device
        that is not there."""
        bundle = load_bundle(bundle or DEFAULT_SKULL_BUNDLE)
        try:
            temperatures = {named(seen): float(bundle.calibration["temperatures"][named(seen)]) for seen in SUBSETS}
            widenings = {named(seen): _factors(bundle.calibration.get("measures", {}).get(named(seen), {}))
                         for seen in SUBSETS}
            grid = bundle.metadata["medvae"]["grid"]
            usable = all(0 <= each < 100 for each in temperatures.values())
            usable = usable and all(0 < each < 100 for factors in widenings.values() for each in factors.values())
            usable = usable and list(grid["shape_zyx"]) == [SIZE] * 3 and float(grid["edge_over_ofd"]) == MARGIN
        except (AttributeError, KeyError, TypeError, ValueError):
            usable = False
        if not usable:
            raise BundleError(f"Bundle '{bundle.name}' is no model of fetal skulls: choose another with --bundle.")
        shape = ShapeEngine(device).load(bundle.network())
        return cls(bundle, shape, temperatures, widenings, device, outline_bundle or OUTLINE_BUNDLE)

    def temperature(self, planes: Iterable[str]) -> float:
        """What the standard deviations of the priors are multiplied by where these planes are seen."""
        return self.temperatures[named(planes)]

    def measure_widening(self, planes: Iterable[str]) -> Mapping[str, float]:
        """By measure, what its standard deviation over samples is multiplied by where these planes are seen."""
        return self.widenings[named(planes)]

    @property
    def outline(self) -> OutlineEngine:
        """Raises BundleError when the bundle that finds heads on images is missing or damaged."""
        if self._outline is None:
            self.outline_bundle = load_bundle(self.outline_bundle)
            self._outline = load_outline_engine(self.outline_bundle, self.device)
        return self._outline

    @property
    def drawn(self) -> Drawn:
        """How sonographers draw on real planes, against the outlines that are found. Raises BundleError."""
        return drawn_by(self.outline_bundle) if self.outline else AS_FOUND

    @property
    def steps(self) -> list[str]:
        """The steps down the memory ladder of both models so far."""
        return [*self.shape.steps, *(f"outlines: {step}" for step in (self._outline.steps if self._outline else ()))]

    def describe(self) -> dict[str, object]:
        """Bundles and device, for the provenance."""
        found = self.outline_bundle
        outline = {"outline_bundle": found.name, "outline_bundle_sha256": found.sha256} if self._outline else {}
        return {"bundle": self.bundle.name, "bundle_sha256": self.bundle.sha256, **outline, **self.shape.describe(),
                "memory_steps": self.steps}


def load_outline_engine(bundle: Bundle, device: str) -> OutlineEngine:
    """Raises BundleError for a bundle made for another task."""
    if bundle.model != OUTLINE_MODEL:
        raise BundleError(f"Bundle '{bundle.name}' does not find heads on images: use '{OUTLINE_BUNDLE}'.")
    drawn_by(bundle)
    return OutlineEngine(device).load(bundle.network())


def drawn_by(bundle: Bundle) -> Drawn:
    """What an outline network's bundle says of the outlines that sonographers draw; zeros where it says nothing."""
    try:
        stated = bundle.calibration
        errors = stated.get("axis_error_mm", {})
        drawn = Drawn(float(stated.get("drawn_outside_mm", 0.0)), float(errors.get("BPD", 0.0)),
                      float(errors.get("OFD", 0.0)))
        usable = abs(drawn.outside) < _MOST_MM and all(0 <= e < _MOST_MM for e in (drawn.bpd_error, drawn.ofd_error))
    except (AttributeError, TypeError, ValueError):
        usable = False
    if not usable:
        raise BundleError(f"Bundle '{bundle.name}' has an impossible calibration: get it again.")
    return drawn


def _factors(stated: Mapping[str, float]) -> dict[str, float]:
    return {name: float(stated.get(name, 1.0)) for name in UNITS}
