"""`medvae generate`: new images from a trained model, with a table of them for augmenting a data set."""

from __future__ import annotations

from typing import Annotated

import typer

from ..progress import scaled
from .folder_task import OutputOption, file_names, finish, folder_task
from .latent_images import BundleChoice, image_file, write_image
from .options import DebugOption, DeviceOption, ProgressKind, ProgressOption

TABLE_FILE = "images.csv"


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
    from ..training.image_listing import GENERATED_BY, OVERVIEW_FILE

    with folder_task(output, progress, "generate", (TABLE_FILE, OVERVIEW_FILE)) as run:
        from ..latent.model import load_latent_model
        from ..reporting.latent_pictures import write_strips

        model = load_latent_model(bundle, device)
        for kind in label or ():
            model.draw(1, seed, kind)  # an unknown label is told before hours of work
        kinds: dict[str | None, str] = {kind: f"{name}_" for kind, name in file_names(label or ()).items()}
        digits = len(str(count - 1)) + 1
        cases = {kind: [f"generated_{prefix}{number:0{digits}d}" for number in range(count)]
                 for kind, prefix in (kinds or {None: ""}).items()}
        run.will_write(image_file(model, case, nifti) for of_kind in cases.values() for case in of_kind)
        rows, shown = [], {}
        for turn, (kind, of_kind) in enumerate(cases.items()):
            told = scaled(run.progress, turn / len(cases), (turn + 1) / len(cases))
            names = iter(of_kind)
            for made in model.samples(count, seed, kind, told, run.cancel):
                shown.setdefault(kind or model.bundle.name, made)
                for image in made:
                    run.cancel.check()
                    case = next(names)
                    file = image_file(model, case, nifti)
                    write_image(model, image, run.folder / file, f"generated, seed {seed}")
                    rows.append({"file": file, "case": case, "patient": case, "label": kind or "", "split": "train",
                                 GENERATED_BY: model.bundle.name})
        run.write_rows(TABLE_FILE, rows)
        write_strips(shown, run.folder / OVERVIEW_FILE)
        run.used(model, count=count, seed=seed, labels=label or [], preparation=model.preparation)
    finish(f"{len(rows)} images: {output / TABLE_FILE}", None, progress, [], len(rows))
