"""`medvae latent compare` and `medvae evaluate generative`: models of images measured on images."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial as bound
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError
from ..outputs import json_text
from .folder_task import OutputOption, finish, folder_task
from .listeners import warn
from .options import DebugOption, DeviceOption, PatientOption, PatternOption, ProgressKind, ProgressOption

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..latent.model import LatentModel

BundlesArgument = Annotated[list[str], typer.Argument(
    metavar="BUNDLE…", show_default=False, help="Models of images, by name or folder.")]
ImagesOption = Annotated[str, typer.Option(
    "--images", metavar="IMAGES", show_default=False,
    help="Folder, CSV table, glob or MNIST idx file, with the split of the training, or one is made by patient.")]
SamplesOption = Annotated[int | None, typer.Option(
    min=20, show_default=False, help="Samples to draw; by default as many as there are held-back images.")]
SeedOption = Annotated[int, typer.Option(
    min=0, max=2**32 - 1, help="The same number gives the same samples and split.")]


def compare(
    bundles: BundlesArgument,
    images: ImagesOption,
    output: OutputOption,
    samples: SamplesOption = None,
    pattern: PatternOption = "",
    patient: PatientOption = "",
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    progress: ProgressOption = ProgressKind.bar,
    debug: DebugOption = False,
) -> None:
    """Several models side by side on one data set: figures, pictures, and what the latents know of the label.

    Writes table.md, results.json and pictures into DIR.

    Example:  medvae latent compare runs/a/bundle/a runs/b/bundle/b --images prepared/images.csv --output compared
    """
    _measure("latent compare", "Models compared", bundles, images, output, samples, pattern, patient, seed, device,
             progress, latents=True)


def generative(
    bundles: BundlesArgument,
    images: ImagesOption,
    output: OutputOption,
    samples: SamplesOption = None,
    pattern: PatternOption = "",
    patient: PatientOption = "",
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    progress: ProgressOption = ProgressKind.bar,
    debug: DebugOption = False,
) -> None:
    """MSE, MS-SSIM, FID of reconstructions and samples, KL, active latents, and whether samples are copies.

    FID is in features of a network with fixed random weights: nothing is downloaded, and it compares only with figures
    of the same images. Give the images with the split of the training (split.csv in its output): the held-back ones
    must not have been trained on. Writes table.md, results.json and pictures into DIR.

    Example:  medvae evaluate generative runs/vae-8/bundle/vae-8 --images runs/vae-8/split.csv --output evaluation
    """
    _measure("evaluation: generative", "Reconstructions and samples, measured", bundles, images, output, samples,
             pattern, patient, seed, device, progress, latents=False)


def _measure(task: str, title: str, bundles: list[str], images: str, output: Path, samples: int | None, pattern: str,
             patient: str, seed: int, device: str, progress: ProgressKind, latents: bool) -> None:
    names = ("table.md", "results.json", "reconstructions.png", "samples.png")
    with folder_task(output, progress, task, names) as run:
        from ..evaluation.generative_report import compare_models, comparison_markdown
        from ..evaluation.generative_tables import generative_rows

        models = _models(bundles, device)
        run.will_write(f"{name}_{kind}.png" for name in models for kind in ("reconstructions", "samples"))
        found = compare_models(models, images, run.folder, latents, samples, seed, pattern, patient, run.progress,
                               run.cancel)
        text = comparison_markdown(title, found, [f"Images: `{images}`. Models: {', '.join(map(str, bundles))}."])
        run.settings = {"bundles": bundles, "images": images, "samples": samples, "seed": seed}
        run.write("table.md", text)
        run.write("results.json", json_text({
            "settings": run.settings, "floor": found.against.floor, "blurred": found.against.blurred,
            "models": generative_rows(found.scores), "baselines": generative_rows(found.baselines),
            "classification": {
                name: {"accuracy": c.accuracy.record(), "balanced_accuracy": c.balanced_accuracy.record(),
                       "majority": c.majority} for name, c in found.classes.items()},
            "confounding": {name: check.sentence for name, check in found.checks.items()},
            "unchecked": found.unchecked, "doubts": found.doubts}))
    finish(text, output, progress, [], len(bundles))
    warn(found.doubts)


def _models(bundles: list[str], device: str) -> Mapping[str, Callable[[], LatentModel]]:
    """By name, each loaded when it is its turn. Raises UsageError for two of one name."""
    from ..bundle import load_bundle
    from ..latent.model import load_latent_model

    found = [load_bundle(bundle) for bundle in bundles]
    names = [bundle.name for bundle in found]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UsageError(f"Two of the bundles are called {twice[0]}: give folders with different names.")
    return {bundle.name: bound(load_latent_model, bundle, device) for bundle in found}
