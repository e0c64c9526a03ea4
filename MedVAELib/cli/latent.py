"""`medvae latent`: encode a cohort, see what its latents separate, and move through the latent space."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import CohortError, InputError, UsageError
from ..outputs import json_text
from . import latent_compare, latent_images
from .folder_task import OutputOption, file_names, finish, folder_task
from .latent_images import BundleChoice
from .listeners import warn
from .options import DebugOption, DeviceOption, PatientOption, PatternOption, ProgressKind, ProgressOption

if TYPE_CHECKING:
    from ..latent.confound import ConfoundCheck
    from ..latent.table import LatentTable
    from ..progress import CancelToken

app = typer.Typer(no_args_is_help=True, help=(
    "Look into the latent space of an image autoencoder: encode, classify, embed, traverse, interpolate, arithmetic, "
    "edit, compare.\n\nExample:  medvae latent encode images.csv --bundle DIR --output latents"))
for command in (latent_images.traverse, latent_images.interpolate, latent_images.arithmetic, latent_images.edit,
                latent_compare.compare):
    app.command(command.__name__)(command)

TABLE_FILE = "latents"
LatentsArgument = Annotated[Path, typer.Argument(
    metavar="LATENTS", show_default=False, help="Table that 'medvae latent encode' wrote, or its folder.")]
ImagesArgument = Annotated[str, typer.Argument(
    metavar="IMAGES", show_default=False,
    help="Folder, CSV table (columns file, patient, optionally case, label, split, tags), glob or MNIST idx file.")]
SeedOption = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="The same number gives the same result.")]


class TableKind(str, Enum):
    csv = "csv"
    parquet = "parquet"


class MethodChoice(str, Enum):
    pca = "pca"
    tsne = "tsne"
    umap = "umap"


@app.command("encode")
def encode(
    images: ImagesArgument,
    bundle: BundleChoice,
    output: OutputOption,
    table: Annotated[TableKind, typer.Option("--format", help="Kind of table; parquet needs pyarrow.")] = TableKind.csv,
    pattern: PatternOption = "",
    patient: PatientOption = "",
    device: DeviceOption = "auto",
    progress: ProgressOption = ProgressKind.bar,
    debug: DebugOption = False,
) -> None:
    """Encode images into a table: case, patient, label, split, file, tags, mu_0 …, logvar_0 …

    What cannot be encoded is left out (exit code 5). A model of whole brains takes scans as well as prepared images.

    Example:  medvae latent encode prepared/images.csv --bundle runs/vae-8/bundle/vae-8 --output latents
    """
    file = f"{TABLE_FILE}.{table.value}"
    with folder_task(output, progress, "latent encode", (file,)) as run:
        from ..latent.cohort import encode_cohort
        from ..latent.model import load_latent_model
        from ..latent.table import pyarrow_module

        if table is TableKind.parquet:
            pyarrow_module()  # before a whole cohort is encoded
        model = load_latent_model(bundle, device)
        made = encode_cohort(model, images, pattern, patient, run.progress, run.cancel)
        made.table.write(run.folder / file)
        run.used(model, images=images, failed=made.failed)
    count = len(made.table)
    finish(f"{count} images, {made.table.latents} latents: {output / file}", None, progress, [], count)
    warn(made.warnings)
    for case, message in made.failed.items():
        print(f"medvae: {case}: {message}", file=sys.stderr)
    if made.failed:
        raise CohortError(f"{len(made.failed)} of {count + len(made.failed)} images could not be encoded and are not "
                          "in the table: mend or remove them.")


@app.command("classify")
def classify(
    latents: LatentsArgument,
    output: OutputOption,
    label: Annotated[str, typer.Option(metavar="COLUMN", help="What to predict: label, or a tag.")] = "label",
    tags: Annotated[list[str] | None, typer.Option(
        "--tag", metavar="COLUMN", show_default=False,
        help="An acquisition tag for the confound check; repeatable, by default all.")] = None,
    seed: SeedOption = 0,
    progress: ProgressOption = ProgressKind.bar,
    debug: DebugOption = False,
) -> None:
    """Linear discriminant analysis on the training patients, judged on the test patients; confound check beside it.

    Writes table.md, predictions.csv, results.json and classification.png into DIR.

    Example:  medvae latent classify latents --output classes
    """
    from ..evaluation.latent_tables import classification_markdown, prediction_rows
    from ..latent.classify import classify as classified
    from ..reporting.latent_pictures import write_classification

    names = ("table.md", "predictions.csv", "results.json", "classification.png")
    with folder_task(output, progress, "latent classify", names) as run:
        table = _read(latents)
        found = classified(table, label, seed)
        run.cancel.check()
        check, unchecked = _confound(table, label, tags, seed, run.cancel)
        text = classification_markdown(found, check, [f"Latents: `{latents}`."], unchecked)
        run.write("table.md", text)
        run.write_rows("predictions.csv", prediction_rows(found))
        run.write("results.json", json_text(_figures(found, check)))
        write_classification(found, run.folder / "classification.png")
        run.settings = {"latents": str(latents), "label": label, "tags": tags, "seed": seed}
        run.cancel.check()
    finish(text, output, progress, [], len(found.cases))
    if check is not None and check.verdict == "alarm":
        warn([check.sentence])


@app.command("embed")
def embed(
    latents: LatentsArgument,
    output: OutputOption,
    method: Annotated[MethodChoice, typer.Option(help="umap needs umap-learn.")] = MethodChoice.tsne,
    colour: Annotated[list[str] | None, typer.Option(
        "--colour", metavar="COLUMN", show_default=False,
        help="What colours a picture: label or a tag; repeatable, by default the label and every tag.")] = None,
    perplexity: Annotated[float, typer.Option(min=2.0, help="Neighbours kept near.")] = 30.0,
    seed: SeedOption = 0,
    progress: ProgressOption = ProgressKind.bar,
    debug: DebugOption = False,
) -> None:
    """Latents in the plane: embedding.csv, and a picture per colour.

    Example:  medvae latent embed latents --method tsne --colour label --output plane
    """
    from ..latent.embed import embed as embedded
    from ..reporting.latent_pictures import write_embedding

    with folder_task(output, progress, "latent embed", ("embedding.csv",)) as run:
        table = _read(latents)
        columns = {name: table.column(name) for name in colour or ["label", *table.tags]}
        pictures = {name: f"{method.value}_{file}.png" for name, file in file_names(columns).items()}
        run.will_write(pictures.values())
        found = embedded(table.mean, method.value, seed, perplexity)
        rows = zip(table.cases, table.patients, table.labels, *found.points.T, strict=True)
        named = ("case", "patient", "label", "x", "y")
        run.write_rows("embedding.csv", [dict(zip(named, row, strict=True)) for row in rows])
        for name, values in columns.items():
            run.cancel.check()
            write_embedding(found, values, name, run.folder / pictures[name])
        run.settings = {"latents": str(latents), "method": method.value, "perplexity": perplexity, "seed": seed}
        run.cancel.check()
    finish(f"{len(table)} images in the plane by {method.value}.", output, progress, [], len(table))


def _read(path: Path) -> LatentTable:
    from ..latent.table import LatentTable

    if path.is_dir():
        found = [path / f"{TABLE_FILE}.{kind.value}" for kind in TableKind]
        path = next((file for file in found if file.exists()), found[0])
    return LatentTable.read(path)


def _confound(table: LatentTable, label: str, tags: list[str] | None, seed: int, cancel: CancelToken,
              ) -> tuple[ConfoundCheck | None, str]:
    """The check, or why there is none: that does not stop the classification. Tags asked for by name must be there."""
    from ..evaluation.latent_tables import UNCHECKED
    from ..latent.confound import confound_check

    try:
        return confound_check(table, label, tags, seed, cancel), UNCHECKED
    except InputError as error:
        if tags:
            raise UsageError(str(error)) from error
        return None, str(error)


def _figures(found, check: ConfoundCheck | None) -> dict[str, object]:
    return {
        "classes": found.classes, "confusion": found.confusion.tolist(), "precision": found.precision.tolist(),
        "recall": found.recall.tolist(), "accuracy": found.accuracy.record(), "majority": found.majority,
        "balanced_accuracy": found.balanced_accuracy.record(),
        "confounding": None if check is None else {
            "verdict": check.verdict, "sentence": check.sentence, "chance": check.chance, "tags": check.tags.record(),
            "latents": check.latents.record(), "each_tag": {k: v.record() for k, v in check.each_tag.items()}},
    }
