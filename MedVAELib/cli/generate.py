"""`medvae generate`: new images from a trained model, with a table of them for augmenting a data set."""

from __future__ import annotations

from typing import Annotated

import typer

from ..csv_files import write_csv
from ..progress import scaled
from .evaluation_output import OutputOption, evaluation_task, finish
from .latent_images import BundleChoice, write_image
from .options import DebugOption, DeviceOption, ProgressKind, ProgressOption, new_app

app = new_app()
TABLE_FILE = "images.csv"


@app.command("generate")
def generate(
    bundle: BundleChoice,
    output: OutputOption,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=100000, help="Images, of each label if any.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same images.")] = 0,
    label: Annotated[list[str] | None, typer.Option(
        "--label", metavar="LABEL", show_default=False,
        help="Draw from the latents of this label's training images; repeatable. By default from the Gaussian of all "
             "training images' latents if the model has one, else from its prior.")] = None,
    nifti: Annotated[bool, typer.Option(
        "--nifti", help="Write NIfTI, unrounded, also for a model of 8-bit pictures; all others do.")] = False,
    device: DeviceOption = "auto",
    progress: ProgressOption = ProgressKind.bar,
    debug: DebugOption = False,
) -> None:
    """Draw new images as the model takes them: NIfTI, or PNG of 8-bit pictures; and images.csv that lists them.

    The table has the columns that 'medvae train' and 'medvae latent encode' read, every image a patient of its own in
    the split "train"; generated images belong in no validation or test part.

    Example:  medvae generate --bundle runs/vae-8/bundle/vae-8 --count 20 --label ms --label healthy --output generated
    """
    with evaluation_task(output, progress, "generate") as run:
        from ..latent.model import load_latent_model
        from ..reporting.latent_pictures import write_strips
        from ..scan import safe_name
        from ..training.image_listing import GENERATED_BY, OVERVIEW_FILE

        model = load_latent_model(bundle, device)
        kinds: list[str | None] = list(dict.fromkeys(label)) if label else [None]
        for kind in kinds:
            if kind is not None:
                model.draw(1, seed, kind)  # an unknown label is told before hours of work
        rows, shown, prefixes = [], {}, set()
        for turn, kind in enumerate(kinds):
            prefix = f"{safe_name(kind)}_" if kind else ""
            while prefix in prefixes:  # two labels may differ in signs that no file name takes
                prefix += "_"
            prefixes.add(prefix)
            told = scaled(run.progress, turn / len(kinds), (turn + 1) / len(kinds))
            number = 0
            for made in model.samples(count, seed, kind, told, run.cancel):
                shown.setdefault(kind or model.bundle.name, made)
                for image in made:
                    run.cancel.check()
                    name = f"{prefix}{number:0{len(str(count - 1)) + 1}d}"
                    path = write_image(model, image, run.folder / f"generated_{name}", f"generated, seed {seed}", nifti)
                    case = f"generated_{name}"
                    rows.append({"file": path.name, "case": case, "patient": case, "label": kind or "",
                                 "split": "train", GENERATED_BY: model.bundle.name})
                    number += 1
        write_csv(run.folder / TABLE_FILE, rows, list(rows[0]))
        write_strips(shown, run.folder / OVERVIEW_FILE)
        run.used(model, count=count, seed=seed, labels=label or [], preparation=model.preparation)
    finish(f"{len(rows)} images: {output / TABLE_FILE}", None, progress, [], len(rows))
