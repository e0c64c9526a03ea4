"""The tasks of the latent space: what a model is, a scan's latents, latents decoded onto the scan, new ones drawn.

A request names its scan by `scan` and, once it was encoded, by the `key` of the reply: with it the prepared scan that
is still warm is taken, and the file is read again only by a worker that was started meanwhile. For a model of pictures,
a scan is a volume of one slice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BundleError, UsageError
from ..progress import CancelToken, Progress, scaled
from ..timing import Timer
from .requests import field, hand_over
from .server import Job
from .volumes import given_image, given_scan, ijk_to_ras, read_array
from .warm import PreparedImage, WarmLatents

if TYPE_CHECKING:
    import numpy as np
    import SimpleITK as sitk
    from numpy.typing import NDArray

    from ..bundle import Bundle
    from ..latent.model import LatentModel, Prepared

MOST_GENERATED = 64
_SHARE_OF_WRITING = 0.1  # of a task's progress
_WARM = WarmLatents()


def latent_model(job: Job) -> Mapping[str, Any]:
    """What the model of `bundle` is, from its metadata alone: shape, preparation, moments and order of its latents."""
    from ..bundle import load_bundle
    from ..latent.importance import order_of_latents
    from ..latent.statistics import LatentStatistics

    bundle = load_bundle(field(job.request, "bundle", str))
    require_latents(bundle)
    found = LatentStatistics.of_plain(bundle.metadata["medvae"]["latents"], f"The bundle {bundle.name}")
    measures = ("kl", "separation") if len(found.labels) > 1 else ("kl",)
    orders = {by: order_of_latents(found, by).tolist() for by in measures}
    grid, shape = bundle.metadata["medvae"]["grid"], _shape(bundle)
    return {
        "name": bundle.name, "model": bundle.model, "sha256": bundle.sha256, "shape": list(shape),
        "spacing_mm": grid.get("spacing_mm"), "preparation": grid.get("preparation", "plain"),
        "mean": found.all.mean.tolist(), "std": found.all.std.tolist(),
        "kl": None if found.kl is None else found.kl.tolist(), "active": int(found.active.sum()), "orders": orders,
        "labels": {name: {"count": part.count, "mean": part.mean.tolist(), "std": part.std.tolist()}
                   for name, part in found.labels.items()},
        "description": bundle.metadata["description"],
    }


def latent_encode(job: Job) -> Mapping[str, Any]:
    """The latents of `scan`: arrays "mean" and "log_variance" (Z,), and "decoded", what they stand for, on its grid.

    `other`: a second scan, for the array "other" (Z,). "mean_difference": of the prepared scan from what its latents
    stand for, in 0…1, averaged over the brain where "inside_brain".
    """
    request, timer = job.request, Timer()
    report = scaled(job.progress, 0.0, 1.0 - _SHARE_OF_WRITING)
    model = load(request, timer, report)
    with timer.stage("read"):
        scan = _given(model, field(request, "scan", dict))
        other = _given(model, field(request, "other", dict)) if request.get("other") is not None else None
    arrays: dict[str, NDArray] = {}
    warnings: list[str] = []
    if other is not None:
        second, mean, _ = _encoded(job, model, other, scaled(report, 0.1, 0.45), timer)
        arrays["other"] = mean.ravel()
        warnings += [f"Second scan: {warning}" for warning in (*other.warnings, *second.prepared.warnings)]
    image, mean, log_variance = _encoded(job, model, scan, scaled(report, 0.45 if other else 0.1, 0.9), timer)
    with timer.stage("decode"):
        decoded = model.decode(mean)[0, 0]
    arrays |= {"mean": mean.ravel(), "decoded": _values(placed(model, image, decoded))}
    if log_variance is not None:
        arrays["log_variance"] = log_variance.ravel()
    output = Path(field(request, "output", str))
    handed = hand_over(output, arrays.items(), len(arrays), job, scaled(job.progress, 1.0 - _SHARE_OF_WRITING, 1.0))
    prepared = image.prepared.image[0]
    return {
        "arrays": handed, "key": image.key, "inside_brain": not model.plain,
        "mean_difference": float(abs(prepared - decoded)[model.shown(prepared)].mean()),
        "warnings": [*scan.warnings, *image.prepared.warnings, *warnings],
        "provenance": provenance(model, timer) | {"input": {"name": scan.name}},
    }


def latent_decode(job: Job) -> Mapping[str, Any]:
    """The image that `latents` (a `.npy` file, (Z,)) stand for: array "decoded", on the grid of the scan, or without
    one on the model's own, which "ijk_to_ras" then places."""
    request, timer = job.request, Timer()
    model = load(request, timer)
    latents = _given_latents(model, field(request, "latents", str))
    image = _given_image(job, model, timer)
    with timer.stage("decode"):
        decoded = placed(model, image, model.decode(latents[None])[0, 0])
    arrays = hand_over(Path(field(request, "output", str)), [("decoded", _values(decoded))], 1, job, job.progress)
    return {"arrays": arrays, "key": image.key if image else None, "ijk_to_ras": ijk_to_ras(decoded),
            "provenance": provenance(model, timer)}


def latent_draw(job: Job) -> Mapping[str, Any]:
    """"latents": a list (Z,), of the first volume that `latent_generate` makes with the same `seed` and `label`."""
    request, timer = job.request, Timer()
    model = load(request, timer)
    with timer.stage("draw"):
        drawn = model.first_drawn(field(request, "seed", int, 0), field(request, "label", str, "") or None)
    return {"latents": drawn.ravel().tolist(), "provenance": provenance(model, timer)}


def latent_generate(job: Job) -> Mapping[str, Any]:
    """`count` new volumes from `seed`, of `label` if one is given: arrays "sample_1" …, placed as by `latent_decode`.
    """
    request, timer = job.request, Timer()
    count, seed = field(request, "count", int, 1), field(request, "seed", int, 0)
    label = field(request, "label", str, "") or None
    if not 1 <= count <= MOST_GENERATED:
        raise UsageError(f"{count} volumes cannot be generated at once: ask for 1 to {MOST_GENERATED}, or use "
                         "'medvae generate'.")
    report = scaled(job.progress, 0.0, 0.5)
    model = load(request, timer, report)
    image = _given_image(job, model, timer)
    with timer.stage("sample"):
        made = model.sample(count, seed, label, scaled(report, 0.2, 1.0), job.cancel)
    first = placed(model, image, made[0, 0])

    def volumes() -> Iterator[tuple[str, NDArray[np.float32]]]:
        for index in range(count):
            yield f"sample_{index + 1}", _values(placed(model, image, made[index, 0]) if index else first)

    output = Path(field(request, "output", str))
    arrays = hand_over(output, volumes(), count, job, scaled(job.progress, 0.5, 1.0))
    return {"arrays": arrays, "ijk_to_ras": ijk_to_ras(first), "warnings": [],
            "provenance": provenance(model, timer) | {"seed": seed, "label": label, "count": count}}


# --- What the tasks share --------------------------------------------------------------------------------------------


def load(request: Mapping[str, Any], timer: Timer, report: Progress | None = None) -> LatentModel:
    """The model that the request names. Raises BundleError for one that is no autoencoder of images."""
    if report is not None:
        report("load", 0.0, "Loading the model")
    with timer.stage("load"):
        return _WARM.model(field(request, "bundle", str), field(request, "device", str, "auto"))


def require_latents(bundle: Bundle) -> None:
    if "latents" not in bundle.metadata["medvae"]:
        raise BundleError(f"The bundle {bundle.name} holds a {bundle.model}, which has no latent space to look into: "
                          "choose a bundle that 'medvae train' made for the task images.")


def placed(model: LatentModel, image: PreparedImage | None, array: NDArray[np.float32]) -> sitk.Image:
    """An array (*shape) on the grid of the scan, or without one on the model's own; a picture as a volume of one slice.
    """
    import SimpleITK as sitk

    from ..latent.placing import own_image

    made = own_image(model, array) if image is None else image.prepared.to_scan(array)
    return sitk.JoinSeries(made) if made.GetDimension() == 2 else made


def provenance(model: LatentModel, timer: Timer) -> dict[str, Any]:
    from ..made_with import made_with
    from ..outputs import plain

    record = {
        **made_with(), "bundle": model.bundle.name, "bundle_sha256": model.bundle.sha256,
        "model": model.bundle.model, "latents": int(model.statistics.all.mean.size), "preparation": model.preparation,
        "unit": "0 to 1, as the model sees the scan", **model.describe(), "timings_s": timer.seconds,
    }
    return plain(record)


# --- Inside ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Given:
    """An image that a request names. prepare: to what the model takes."""

    name: str
    image: sitk.Image
    warnings: Sequence[str]
    prepare: Callable[[Progress, CancelToken], Prepared]


def _given(model: LatentModel, given: Mapping[str, Any]) -> _Given:
    """A scan of a head where the model's preparation needs one, else an image of anything."""
    if model.plain:
        image, name = given_image(given)
        return _Given(name, image, (), lambda progress, cancel: model.prepare_image(image, name))
    scan = given_scan(given)
    return _Given(scan.name, scan.image, scan.warnings, lambda *how: model.prepare(scan, *how))


def _prepared(job: Job, given: _Given, report: Progress, timer: Timer) -> PreparedImage:
    return _WARM.prepared(given.image, lambda: given.prepare(report, job.cancel), timer)


def _encoded(
    job: Job, model: LatentModel, given: _Given, report: Progress, timer: Timer
) -> tuple[PreparedImage, NDArray[np.float32], NDArray[np.float32] | None]:
    """The image as the model takes it, with mean and log-variance (1, *latent_shape)."""
    job.cancel.check()
    image = _prepared(job, given, report, timer)
    with timer.stage("encode"):
        return image, *model.encode(image.prepared.image[None], cancel=job.cancel)


def _given_image(job: Job, model: LatentModel, timer: Timer) -> PreparedImage | None:
    """The image of the request as the model takes it; None if the request has none."""
    request = job.request
    if request.get("scan") is None:
        return None
    found = _WARM.found(field(request, "key", str, ""))
    if found is not None:
        return found
    return _prepared(job, _given(model, field(request, "scan", dict)), job.progress, timer)


def _given_latents(model: LatentModel, path: str) -> NDArray[np.float32]:
    import numpy as np

    latents, count = read_array(Path(path), (1,)), int(np.prod(model.latent_shape))
    if latents.size != count or not np.isfinite(latents).all():
        raise UsageError(f"{latents.size} latents were given, and the model {model.bundle.name} has {count}.")
    return latents.astype(np.float32)


def _shape(bundle: Bundle) -> tuple[int, ...]:
    return tuple(int(side) for side in bundle.metadata["medvae"]["grid"]["shape"])


def _values(image: sitk.Image) -> NDArray[np.float32]:
    import SimpleITK as sitk

    return sitk.GetArrayFromImage(image)  # a copy: a view would outlive the image that it looks at
