"""What stays in memory between two requests: a detector and a latent model, each with the scans it prepared last, and
a skull predictor."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from ..bundle import DEFAULT_SKULL_BUNDLE, OUTLINE_BUNDLE, Bundle, load_bundle
from ..progress import CancelToken, Progress
from ..scan import Scan
from ..timing import Timer

if TYPE_CHECKING:
    from ..anomaly.detector import Detector
    from ..anomaly.prepare import PreparedScan
    from ..latent.model import LatentModel, Prepared
    from ..skull.predictor import SkullPredictor

MAX_SCANS = 2


class Kept:
    """What was loaded last, and what it prepared last, until something else is asked for."""

    def __init__(self) -> None:
        self._key: Any = None
        self._loaded: Any = None
        self._scans: OrderedDict[Any, Any] = OrderedDict()

    def _get(self, key: Any, load: Callable[[], Any]) -> Any:
        """Raises what `load` raises."""
        if key != self._key or self._loaded is None:
            self.forget()
            self._loaded, self._key = load(), key
        return self._loaded

    def _scan(self, key: Any, prepare: Callable[[], Any]) -> Any:
        """Raises what `prepare` raises."""
        if key not in self._scans:
            while len(self._scans) >= MAX_SCANS:  # before, so that there is room for it
                self._scans.popitem(last=False)
            self._scans[key] = prepare()
        self._scans.move_to_end(key)
        return self._scans[key]

    def forget(self) -> None:
        self._key = self._loaded = None
        self._scans.clear()

    def forget_if_degraded(self) -> None:
        """After running out of memory, the next request starts on the device that was asked for again."""
        if self._loaded is not None and self._loaded.steps:
            self.forget()


class WarmDetector(Kept):
    """Loads a detector and prepares scans, unless it still has them."""

    def detector(self, bundle: Bundle, device: str) -> Detector:
        """Raises what `Detector.load` raises. Files that changed on disk are read again."""
        from ..anomaly.detector import Detector

        return self._get((device, *_bundle_key(bundle)), lambda: Detector.load(bundle, device))

    def prepared(
        self, detector: Detector, scan: Scan, progress: Progress, cancel: CancelToken, timer: Timer
    ) -> PreparedScan:
        """The scan as the detector prepares it. Raises what `prepare_scan` raises."""
        from ..anomaly.prepare import prepare_scan

        return self._scan(content_key(scan.image), lambda: prepare_scan(detector, scan, progress, cancel, timer))


def content_key(image: sitk.Image) -> bytes:
    """The same for images with the same voxels in the same place."""
    geometry = np.array([*image.GetSize(), *image.GetSpacing(), *image.GetOrigin(), *image.GetDirection(),
                         image.GetPixelID()])
    digest = hashlib.blake2b(geometry.tobytes(), digest_size=16)
    digest.update(sitk.GetArrayViewFromImage(image).data)
    return digest.digest()


class WarmSkull(Kept):
    """Loads a predictor of skulls, unless it still has it."""

    def predictor(self, name: str, device: str) -> SkullPredictor:
        """name: of the bundle, "" for the default. Raises what `SkullPredictor.load` raises, and BundleError without
        the bundle that finds heads on images. Files that changed on disk are read again."""
        from ..skull.predictor import SkullPredictor

        bundle, outline = load_bundle(name or DEFAULT_SKULL_BUNDLE), load_bundle(OUTLINE_BUNDLE)
        return self._get((device, *_bundle_key(bundle), *_bundle_key(outline)),
                         lambda: SkullPredictor.load(bundle, device, outline))


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """key: what a client names it by in its next requests."""

    key: str
    prepared: Prepared


class WarmLatents(Kept):
    """Loads a latent model and prepares images, unless it still has them."""

    def model(self, name: str, device: str) -> LatentModel:
        """name: of the bundle, or its folder. Raises what `load_latent_model` raises. Files that changed on disk are
        read again."""
        from ..latent.model import load_latent_model

        bundle = load_bundle(name)
        self.forget_if_degraded()
        return self._get((device, *_bundle_key(bundle)), lambda: load_latent_model(bundle, device))

    def found(self, key: str) -> PreparedImage | None:
        """An image that the present model still has."""
        return self._scans.get(key)

    def prepared(self, image: sitk.Image, prepare: Callable[[], Prepared], timer: Timer) -> PreparedImage:
        """The image as the model takes it, by `prepare`. Raises what that raises."""
        key = content_key(image).hex()

        def make() -> PreparedImage:
            with timer.stage("prepare"):
                return PreparedImage(key, prepare())

        return self._scan(key, make)


def _bundle_key(bundle: Bundle) -> tuple[Any, ...]:
    files = (bundle.path / "metadata.json", bundle.weights_path)
    return (bundle.path, bundle.sha256, *(_stamp(file) for file in files))


def _stamp(file: Any) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
