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


class WarmDetector:
    """Loads a detector and prepares scans, unless it still has them."""

    def __init__(self) -> None:
        self._key: Any = None
        self._detector: Detector | None = None
        self._scans: OrderedDict[bytes, PreparedScan] = OrderedDict()

    def detector(self, bundle: Bundle, device: str) -> Detector:
        """Raises what `Detector.load` raises. Files that changed on disk are read again."""
        key = (device, *_bundle_key(bundle))
        if key != self._key or self._detector is None:
            from ..anomaly.detector import Detector

            self.forget()
            self._detector, self._key = Detector.load(bundle, device), key
        return self._detector

    def prepared(
        self, detector: Detector, scan: Scan, progress: Progress, cancel: CancelToken, timer: Timer
    ) -> PreparedScan:
        """The scan as the detector prepares it. Raises what `prepare_scan` raises."""
        key = content_key(scan.image)
        found = self._scans.get(key)
        if found is None:
            from ..anomaly.prepare import prepare_scan

            while len(self._scans) >= MAX_SCANS:  # before, so that there is room for it
                self._scans.popitem(last=False)
            found = prepare_scan(detector, scan, progress, cancel, timer)
            self._scans[key] = found
        self._scans.move_to_end(key)
        return found

    def forget_if_degraded(self) -> None:
        """After running out of memory, the next detection starts on the device that was asked for again."""
        if self._detector is not None and self._detector.engine.steps:
            self.forget()

    def forget(self) -> None:
        self._key = self._detector = None
        self._scans.clear()


def content_key(image: sitk.Image) -> bytes:
    """The same for images with the same voxels in the same place."""
    geometry = np.array([*image.GetSize(), *image.GetSpacing(), *image.GetOrigin(), *image.GetDirection(),
                         image.GetPixelID()])  # fmt: skip
    digest = hashlib.blake2b(geometry.tobytes(), digest_size=16)
    digest.update(sitk.GetArrayFromImage(image).data)
    return digest.digest()


class WarmSkull:
    """Loads a predictor of skulls, unless it still has it."""

    def __init__(self) -> None:
        self._key: Any = None
        self._predictor: SkullPredictor | None = None

    def predictor(self, name: str, device: str) -> SkullPredictor:
        """name: of the bundle, "" for the default. Raises what `SkullPredictor.load` raises, and BundleError without
        the bundle that finds heads on images. Files that changed on disk are read again."""
        bundle, outline = load_bundle(name or DEFAULT_SKULL_BUNDLE), load_bundle(OUTLINE_BUNDLE)
        key = (device, *_bundle_key(bundle), *_bundle_key(outline))
        if key != self._key or self._predictor is None:
            from ..skull.predictor import SkullPredictor

            self._key = self._predictor = None
            self._predictor, self._key = SkullPredictor.load(bundle, device, outline), key
        return self._predictor

    def forget_if_degraded(self) -> None:
        """As `WarmDetector.forget_if_degraded`."""
        if self._predictor is not None and self._predictor.steps:
            self._key = self._predictor = None


@dataclass(frozen=True, eq=False)
class PreparedImage:
    """key: what a client names it by in its next requests."""

    key: str
    prepared: Prepared


class WarmLatents:
    """Loads a latent model and prepares images, unless it still has them."""

    def __init__(self) -> None:
        self._key: Any = None
        self._model: LatentModel | None = None
        self._images: OrderedDict[str, PreparedImage] = OrderedDict()

    def model(self, name: str, device: str) -> LatentModel:
        """name: of the bundle, or its folder. Raises what `load_latent_model` raises. Files that changed on disk are
        read again."""
        bundle = load_bundle(name)
        key = (device, *_bundle_key(bundle))
        if key != self._key or self._model is None or self._model.steps:
            from ..latent.model import load_latent_model

            self._key = self._model = None
            self._images.clear()
            self._model, self._key = load_latent_model(bundle, device), key
        return self._model

    def found(self, key: str) -> PreparedImage | None:
        """An image that the present model still has."""
        return self._images.get(key)

    def prepared(self, image: sitk.Image, prepare: Callable[[], Prepared], timer: Timer) -> PreparedImage:
        """The image as the model takes it, by `prepare`. Raises what that raises."""
        key = content_key(image).hex()
        found = self._images.get(key)
        if found is None:
            while len(self._images) >= MAX_SCANS:
                self._images.popitem(last=False)
            with timer.stage("prepare"):
                found = PreparedImage(key, prepare())
            self._images[key] = found
        self._images.move_to_end(key)
        return found


def _bundle_key(bundle: Bundle) -> tuple[Any, ...]:
    files = (bundle.path / "metadata.json", bundle.weights_path)
    return (bundle.path, bundle.sha256, *(_stamp(file) for file in files))


def _stamp(file: Any) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
