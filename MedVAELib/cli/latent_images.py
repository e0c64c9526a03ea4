"""`medvae latent traverse|interpolate|arithmetic|edit`: images decoded on a way through the latent space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import Enum
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError
from .folder_task import OutputOption, Run, finish, folder_task
from .listeners import warn
from .options import DebugOption, DeviceOption, ProgressKind, ProgressOption

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..latent.model import LatentModel
    from ..latent.placing import EncodedImage

_EDIT_VOLUMES = ("reconstruction", "edited", "change")
BundleChoice = Annotated[str, typer.Option(
    "--bundle", metavar="NAME|DIR", show_default=False, help="Model, as 'medvae train' made it for the task images.")]
StepsOption = Annotated[int, typer.Option(min=2, max=101, help="Images from one end to the other.")]


class OrderChoice(str, Enum):
    kl = "kl"
    separation = "separation"


def traverse(
    bundle: BundleChoice,
    output: OutputOption,
    scan: Annotated[Path | None, typer.Option(
        "--scan", metavar="FILE", show_default=False,
        help="Start from this image; by default from the mean of the training images.")] = None,
    latents: Annotated[list[int] | None, typer.Option(
        "--latent", metavar="I", show_default=False, help="Which to move; repeatable, by default the first by --order.")
    ] = None,
    order: Annotated[OrderChoice, typer.Option(
        help="What matters most: what carries most, or sets the labels apart best.")] = OrderChoice.kl,
    count: Annotated[int, typer.Option("--count", min=1, help="How many, where none is named.")] = 5,
    steps: StepsOption = 7,
    extent: Annotated[float, typer.Option(min=0.01, help="Standard deviations to either side of the mean.")] = 2.5,
    device: DeviceOption = "auto",
    progress: ProgressOption = ProgressKind.bar,
    debug: DebugOption = False,
) -> None:
    """Move one latent at a time, all others fixed: a strip of images, and them all: of volumes a series per latent.

    Example:  medvae latent traverse --bundle runs/vae-8/bundle/vae-8 --order separation --output strips
    """
    with folder_task(output, progress, "latent traverse", ("traversal.png",)) as run:
        from ..latent.importance import order_of_latents
        from ..latent.model import load_latent_model
        from ..latent.traverse import check_latent, spread
        from ..latent.traverse import traverse as traversed
        from ..reporting.latent_pictures import write_strips

        model = load_latent_model(bundle, device)
        moments = model.statistics.all
        chosen = latents or order_of_latents(model.statistics, order.value)[:count].tolist()
        for index in chosen:
            check_latent(index, moments.mean.size, model.bundle.name)
        files = {index: _series_files(model, f"latent_{index:04d}", steps) for index in chosen}
        run.will_write(chain.from_iterable(files.values()))
        start = moments.mean if scan is None else _encoded(model, scan, run).mean
        rows = {}
        for done, index in enumerate(chosen):
            run.cancel.check()
            run.progress("decode", done / len(chosen), f"Moving latent {index}")
            values = spread(float(moments.mean[index]), float(moments.std[index]), steps, extent)
            rows[f"latent {index}"] = images = traversed(model, start, index, values)
            _write_series(model, images, run.folder, files[index],
                          f"latent {index} from {values[0]:.3g} to {values[-1]:.3g}")
        titles = [f"{place:+.1f} SD" for place in spread(0.0, 1.0, steps, extent)]
        write_strips(rows, run.folder / "traversal.png", titles)
        run.used(model, scan=_text(scan), latents=chosen, steps=steps, extent=extent)
    finish(f"Latents {', '.join(map(str, chosen))} of {model.bundle.name}, {steps} steps each.", output, progress, [],
           len(chosen))


def interpolate(
    first: Annotated[Path, typer.Argument(metavar="FIRST", show_default=False, help="Image to start from.")],
    second: Annotated[Path, typer.Argument(metavar="SECOND", show_default=False, help="Image to end at.")],
    bundle: BundleChoice,
    output: OutputOption,
    steps: StepsOption = 7,
    device: DeviceOption = "auto",
    progress: ProgressOption = ProgressKind.bar,
    debug: DebugOption = False,
) -> None:
    """Images between two images: on the straight line between their latents.

    Example:  medvae latent interpolate a.nii.gz b.nii.gz --bundle runs/vae-8/bundle/vae-8 --output between
    """
    with folder_task(output, progress, "latent interpolate", ("interpolation.png",)) as run:
        import numpy as np

        from ..latent.model import load_latent_model
        from ..latent.traverse import interpolate as interpolated
        from ..reporting.latent_pictures import write_strips

        model = load_latent_model(bundle, device)
        files = _series_files(model, "interpolation", steps)
        run.will_write(files)
        ends = [_encoded(model, path, run) for path in (first, second)]
        images = model.decode(interpolated(ends[0].mean, ends[1].mean, steps))
        _write_series(model, images, run.folder, files, f"{first.name} to {second.name}")
        shown = np.concatenate([ends[0].image[None], images, ends[1].image[None]])
        titles = [first.name, *(f"{share:.0%}" for share in np.linspace(0, 1, steps)), second.name]
        write_strips({"": shown}, run.folder / "interpolation.png", titles)
        run.used(model, first=str(first), second=str(second), steps=steps)
    finish(f"{steps} images from {first.name} to {second.name}.", output, progress, [], 1)


def arithmetic(
    bundle: BundleChoice,
    output: OutputOption,
    plus: Annotated[list[Path], typer.Option("--plus", metavar="FILE", show_default=False, help="Image to add.")],
    minus: Annotated[list[Path] | None, typer.Option(
        "--minus", metavar="FILE", show_default=False, help="Image to subtract; one fewer than are added.")] = None,
    device: DeviceOption = "auto",
    progress: ProgressOption = ProgressKind.bar,
    debug: DebugOption = False,
) -> None:
    """Add and subtract the latents of images, and decode the sum: result.nii.gz (.png of 8-bit pictures), terms.png.

    Example:  medvae latent arithmetic --plus ill.nii.gz --minus well.nii.gz --plus other.nii.gz --bundle B --output sum
    """
    with folder_task(output, progress, "latent arithmetic", ("terms.png",)) as run:
        import numpy as np

        from ..latent.model import load_latent_model
        from ..latent.traverse import arithmetic as summed
        from ..reporting.latent_pictures import write_strips

        model = load_latent_model(bundle, device)
        file = image_file(model, "result")
        run.will_write([file])
        added, taken = ([_encoded(model, path, run) for path in paths] for paths in (plus, minus or []))
        images = model.decode(summed([e.mean for e in added], [e.mean for e in taken])[None])
        write_image(model, images[0], run.folder / file, "sum of latents")
        terms = [(f"+ {e.name}", e.image) for e in added] + [(f"− {e.name}", e.image) for e in taken]
        shown = np.stack([*(image for _, image in terms), images[0]])
        write_strips({"": shown}, run.folder / "terms.png", [*(title for title, _ in terms), "="])
        run.used(model, plus=list(map(str, plus)), minus=list(map(str, minus or [])))
    finish(f"Sum of {len(plus)} images less {len(minus or [])}.", output, progress, [], 1)


def edit(
    scan: Annotated[Path, typer.Argument(metavar="SCAN", show_default=False, help="Image to change.")],
    bundle: BundleChoice,
    output: OutputOption,
    move: Annotated[list[str] | None, typer.Option(
        "--move", metavar="I=SD", show_default=False,
        help="Move latent I by so many standard deviations of the training images, as in 3=+2; repeatable.")] = None,
    towards: Annotated[str | None, typer.Option(
        "--towards", metavar="FROM:TO[=AMOUNT]", show_default=False,
        help="Add the difference of two labels' mean latents, as in healthy:ms=0.5.")] = None,
    device: DeviceOption = "auto",
    progress: ProgressOption = ProgressKind.bar,
    debug: DebugOption = False,
) -> None:
    """Encode an image, move it in the latent space, and decode it back on its own grid.

    Writes reconstruction, edited and change (edited − reconstruction, so without what the model cannot show), in 0…1 of
    the prepared image, and edit.png.

    Example:  medvae latent edit flair.nii.gz --bundle runs/vae-8/bundle/vae-8 --towards healthy:ms --output changed
    """
    names = (*(f"{name}.nii.gz" for name in _EDIT_VOLUMES), "edit.png")
    with folder_task(output, progress, "latent edit", names) as run:
        import numpy as np
        import SimpleITK as sitk

        from ..files.nifti_files import write_nifti_gz
        from ..latent.model import load_latent_model
        from ..reporting.latent_pictures import write_strips

        model = load_latent_model(bundle, device)
        moved_by = _shift(model, move or [], towards)
        given = _encoded(model, scan, run)
        before, after = model.decode(np.stack([given.mean, given.mean + moved_by]))
        placed = dict(zip(_EDIT_VOLUMES, (before[0], after[0], after[0] - before[0]), strict=True))
        for name, array in placed.items():
            write_nifti_gz(given.to_scan(array), run.folder / f"{name}.nii.gz", sitk.sitkFloat32,
                           f"MedVAE {name}, 0 to 1 as {model.bundle.name} sees it", run.cancel)
        shown = np.stack([given.image, before, after, 0.5 + (after - before)])
        write_strips({"": shown}, run.folder / "edit.png", ["image", "reconstruction", "edited", "change (grey: none)"])
        run.used(model, scan=str(scan), move=move, towards=towards)
    change, place = np.abs(placed["change"])[model.shown(given.image[0])].mean(), "" if model.plain else " in the brain"
    finish(f"{scan.name} edited: mean absolute change{place} {change:.4f} of the range.", output, progress, [], 1)


def image_file(model: LatentModel, stem: str, nifti: bool = False) -> str:
    """The name of a decoded image's file: .png for a picture of a model of 8-bit pictures unless `nifti` says
    otherwise, .nii.gz for all else."""
    picture = len(model.shape) == 2 and model.form.scaling == "byte" and not nifti
    return f"{stem}.png" if picture else f"{stem}.nii.gz"


def write_image(model: LatentModel, image: NDArray, path: Path, description: str) -> None:
    """Writes a decoded image (1, *shape) as the model takes it, as `image_file` has named it: NIfTI in 0…1 on the
    model's own grid. Raises OSError."""
    import SimpleITK as sitk

    from ..files.nifti_files import write_nifti_gz
    from ..latent.placing import own_image, space
    from ..training.image_pictures import save_grey

    if path.suffix == ".png":
        save_grey(image[0], path)
        return
    write_nifti_gz(own_image(model, image[0]), path, sitk.sitkFloat32, f"MedVAE {description}, 0 to 1",
                   space=space(model))


def _encoded(model: LatentModel, path: Path, run: Run) -> EncodedImage:
    from ..latent.placing import encode_file

    given = encode_file(model, path, run.progress, run.cancel)
    warn(given.warnings)
    return given


def _series_files(model: LatentModel, stem: str, count: int) -> list[str]:
    """Names: of one 4D file for volumes, of one file each, numbered, for pictures."""
    if len(model.shape) == 3:
        return [f"{stem}.nii.gz"]
    return [image_file(model, f"{stem}_{step:03d}") for step in range(count)]


def _write_series(model: LatentModel, images: NDArray, folder: Path, files: Sequence[str], description: str) -> None:
    """Decoded images (N, 1, *shape) into the files that `_series_files` has named."""
    import SimpleITK as sitk

    from ..files.nifti_files import write_nifti_gz
    from ..latent.placing import series, space

    if images.ndim == 5:
        write_nifti_gz(series(model, images), folder / files[0], sitk.sitkFloat32, f"MedVAE {description}",
                       space=space(model))
        return
    for step, (image, file) in enumerate(zip(images, files, strict=True)):
        write_image(model, image, folder / file, f"{description}, step {step}")


def _shift(model: LatentModel, move: list[str], towards: str | None) -> NDArray:
    """What is added to the latents, (Z,). Raises UsageError for anything that cannot be read."""
    import numpy as np

    from ..latent.traverse import check_latent
    from ..latent.traverse import towards as moved_towards

    if not move and towards is None:
        raise UsageError("Say how to change the image: --move 3=+2, or --towards healthy:ms.")
    moments, shift = model.statistics.all, np.zeros_like(model.statistics.all.mean)
    for text in move:
        index, _, amount = text.partition("=")
        try:
            place, size = int(index), _finite(amount)
        except ValueError:
            raise UsageError(f"--move {text} cannot be read: write a latent's number and standard deviations, as in "
                             "3=+2.") from None
        check_latent(place, shift.size, model.bundle.name)
        shift[place] += size * moments.std[place]
    if towards is not None:
        labels, _, amount = towards.partition("=")
        source, colon, target = labels.partition(":")
        try:
            size = _finite(amount or "1")
        except ValueError:
            colon = ""
        if not colon:
            raise UsageError(f"--towards {towards} cannot be read: write two labels, as in healthy:ms or "
                             "healthy:ms=0.5.")
        means = {name: part.mean for name, part in model.statistics.labels.items()}
        shift = moved_towards(shift, means, source, target, size)
    return shift


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
