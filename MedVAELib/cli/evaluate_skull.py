"""`medvae evaluate skull` and `medvae evaluate hc18`: predicted heads against known ones, and on real planes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..bundle import MIN_SKULL_SAMPLES, SKULL_SAMPLES
from ..outputs import json_text
from ..progress import CancelToken
from ..resources import resource_dir
from .folder_task import OutputOption, Run, finish, folder_task
from .options import BundleOption, DebugOption, DeviceOption, ProgressKind, ProgressOption

if TYPE_CHECKING:
    from ..evaluation.hc18 import PlaneScore
    from ..evaluation.hc18_pictures import Sheet
    from ..evaluation.skull import Case, Predict, Score
    from ..evaluation.skull_planes import Examination
    from ..skull.predictor import SkullPredictor


class Outlines(str, Enum):
    found = "found"
    given = "given"


class Split(str, Enum):
    """Of HC18, by the examination's number modulo 5: 0 test, 1 validation, the rest train."""

    test = "test"
    validation = "validation"
    train = "train"
    all = "all"


OutlineBundleOption = Annotated[str | None, typer.Option(
    metavar="NAME|DIR", show_default=False, help="Network that finds the outlines; by default the one shipped.")]
SamplesOption = Annotated[int, typer.Option(min=MIN_SKULL_SAMPLES, help="Samples per prediction.")]
SeedOption = Annotated[int, typer.Option(min=0, help="The same number gives the same heads, planes and samples.")]


def skull(
    heads_dir: Annotated[Path, typer.Argument(
        metavar="HEADS_DIR", show_default=False,
        help="Folder of NIfTI masks of heads, or of brains beside a parcellation; NAME/mask.nii.gz or NAME.nii.gz.")],
    output: OutputOption,
    bundle: BundleOption = None,
    compare: Annotated[list[str] | None, typer.Option(
        "--compare", metavar="NAME|DIR", show_default=False, help="A further model on the same planes; repeatable.")
    ] = None,
    outline_bundle: OutlineBundleOption = None,
    outlines: Annotated[Outlines, typer.Option(
        help="'found' in simulated images, as a user's are, or 'given' as they are, to tell their errors apart.")
    ] = Outlines.found,
    names: Annotated[list[str] | None, typer.Option(
        "--name", metavar="NAME", show_default=False,
        help="A head to use; repeatable. By default all that the shipped models were not trained or chosen on.")
    ] = None,
    views: Annotated[int, typer.Option(min=1, help="How often planes are placed in each head of the folder.")] = 1,
    heads: Annotated[int, typer.Option(
        min=0, help="Heads drawn besides from the population of these shapes, abnormal kinds in turn.")] = 0,
    misplacement: Annotated[float, typer.Option(
        min=0.0, help="1: planes up to ±10°, ±7 pixels and ±3 mm off; 0: exactly the standard planes.")] = 1.0,
    samples: SamplesOption = SKULL_SAMPLES,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    progress: ProgressOption = ProgressKind.bar,
    debug: DebugOption = False,
) -> None:
    """Dice, distances and volume of heads predicted from every subset of planes, beside the mean head.

    Cuts planes from heads of known shape, as misplaced as by hand, images them, finds their outlines and predicts, with
    the bundle, those compared and the mean training head scaled to the outlines. Writes table.md, cases.csv,
    results.json, summary.png and a picture per head into DIR.

    Example:  medvae evaluate skull shared/data/fetal/head_atlases --heads 30 --output evaluation
    """
    from ..evaluation.skull import evaluate_heads
    from ..evaluation.skull_planes import Examination, drawn_cases, held_back_names, mask_cases

    chosen = held_back_names(heads_dir, training_heads(), names or ())
    files = ("table.md", "cases.csv", "results.json", "summary.png")
    with folder_task(output, progress, "evaluation: skull", files) as run:
        predictors = _predictors([bundle, *(compare or [])], device, outline_bundle)
        first = next(iter(predictors.values()))
        examination = Examination(first.outline if outlines is Outlines.found else None, misplacement)
        cases = chain(mask_cases(heads_dir, chosen, views, examination, seed),
                      drawn_cases(heads_dir, chosen, heads, examination, seed) if heads else ())
        methods = _methods(predictors, samples, seed, run.cancel)
        scores = evaluate_heads(cases, methods, len(chosen) * views + heads, look=_picture_of_each(run.folder),
                                progress=run.progress, cancel=run.cancel)
        run.settings = {"heads": str(heads_dir), "names": chosen, "views": views, "drawn": heads,
                        "outlines": outlines.value, "misplacement": misplacement, "samples": samples, "seed": seed}
        text = _write_skull(run, scores, predictors, examination)
    failed = list(dict.fromkeys(s.case for s in scores if s.failure))
    finish(text, output, progress, failed, len({s.case for s in scores}))


def hc18(
    planes_dir: Annotated[Path, typer.Argument(
        metavar="DIR", show_default=False, help="Folder of the HC18 set: images/ and pixel_size_and_HC.csv.")],
    output: OutputOption,
    split: Annotated[Split, typer.Option(
        help="Examinations, told apart by their number: 'test' trained nothing.")] = Split.test,
    bundle: BundleOption = None,
    outline_bundle: OutlineBundleOption = None,
    limit: Annotated[int | None, typer.Option(
        "--planes", min=1, show_default=False, help="Only so many planes, evenly spread over the split.")] = None,
    samples: SamplesOption = SKULL_SAMPLES,
    seed: SeedOption = 0,
    device: DeviceOption = "auto",
    progress: ProgressOption = ProgressKind.bar,
    debug: DebugOption = False,
) -> None:
    """Head circumference of the skull predicted from real axial planes, against the drawn one and beside baselines.

    Writes table.md, planes.csv, results.json, and worst.png and planes.png with the outlines drawn on the planes.

    Example:  medvae evaluate hc18 shared/data/fetal/hc18 --output evaluation
    """
    from ..evaluation.hc18 import evaluate_planes, read_drawn_plane
    from ..evaluation.hc18_pictures import Sheet
    from ..evaluation.mean_head import MeanHead
    from ..skull.predict import predict_skull
    from ..training.hc18 import plane_names

    chosen = plane_names(planes_dir, None if split is Split.all else split.value)
    chosen = chosen[:: max(1, len(chosen) // limit)][:limit] if limit else chosen
    files = ("table.md", "planes.csv", "results.json", "worst.png", "planes.png")
    with folder_task(output, progress, "evaluation: hc18", files) as run:
        method, predictor = next(iter(_predictors([bundle], device, outline_bundle).items()))
        sheet = Sheet()
        scores = evaluate_planes(
            [lambda name=name: read_drawn_plane(planes_dir, name) for name in chosen], method,
            lambda image: predict_skull({"axial": image}, predictor=predictor, samples=samples, seed=seed,
                                        cancel=run.cancel),
            MeanHead.shipped(), sheet.keep, run.progress, run.cancel)
        run.settings = {"planes": str(planes_dir), "split": split.value, "samples": samples, "seed": seed}
        text = _write_hc18(run, scores, predictor, sheet)
    finish(text, output, progress, [s.name for s in scores if s.failure], len(scores))


def training_heads() -> list[str]:
    """Names of the heads that the shipped models were trained, or chosen, on."""
    from ..skull.config import SkullRun
    from ..training.config import read_config

    data = read_config(resource_dir() / "configs" / "fetal-skull.yaml", SkullRun).data
    return [*data.train, *data.validation]


def _predictors(bundles: Sequence[str | None], device: str, outline_bundle: str | None) -> dict[str, SkullPredictor]:
    """By the model's name, or the bundle's folder where two are of one kind; the first is ours."""
    from ..skull.predictor import SkullPredictor

    found: dict[str, SkullPredictor] = {}
    for bundle in bundles:
        predictor = SkullPredictor.load(bundle, device, outline_bundle)
        name = predictor.bundle.model
        found[name if name not in found else f"{name}, {predictor.bundle.path}"] = predictor
    return found


def _methods(predictors: Mapping[str, SkullPredictor], samples: int, seed: int,
             cancel: CancelToken) -> dict[str, Predict]:
    from ..evaluation.mean_head import MeanHead
    from ..evaluation.skull import MEAN_HEAD
    from ..evaluation.skull_methods import mean_head_method, model_method

    methods = {name: model_method(predictor, samples, seed, cancel) for name, predictor in predictors.items()}
    return methods | {MEAN_HEAD: mean_head_method(MeanHead.shipped())}


def _picture_of_each(folder: Path) -> Callable[[Case, object, Mapping], None]:
    from ..evaluation.skull_pictures import write_head_picture
    from ..scan import safe_name

    return lambda case, seen, guesses: write_head_picture(case, seen, guesses,
                                                          folder / f"{safe_name(case.name)}.png")


def _write_skull(run: Run, scores: Sequence[Score], predictors: Mapping[str, SkullPredictor],
                 examination: Examination) -> str:
    from ..evaluation.skull_pictures import write_summary_plot
    from ..evaluation.skull_tables import DEFINITIONS, score_rows, skull_markdown, summary

    notes = list(_notes(run.settings, predictors))
    if examination.engine is None:
        notes.append("**Outlines are given, not found**: what the outline network would add in error is left out.")
    text = skull_markdown(scores, notes)
    run.write("table.md", text)
    run.write_rows("cases.csv", score_rows(scores))
    run.write("results.json", json_text({
        "settings": run.settings, "definitions": DEFINITIONS, **summary(scores), "cases": score_rows(scores),
        "provenance": {name: predictor.describe() for name, predictor in predictors.items()}}))
    if any(not s.failure for s in scores):
        write_summary_plot(scores, run.folder / "summary.png")
    return text


def _write_hc18(run: Run, scores: Sequence[PlaneScore], predictor: SkullPredictor, sheet: Sheet) -> str:
    from ..evaluation.hc18_tables import DEFINITIONS, WORST, hc18_markdown, plane_rows, summary, worst_first

    text = hc18_markdown(scores, list(_notes(run.settings, {predictor.bundle.model: predictor})))
    run.write("table.md", text)
    run.write_rows("planes.csv", plane_rows(scores))
    run.write("results.json", json_text({
        "settings": run.settings, "definitions": DEFINITIONS, "summary": summary(scores), "planes": plane_rows(scores),
        "provenance": predictor.describe()}))
    sheet.write(worst_first(scores)[:WORST], run.folder / "worst.png")
    sheet.write(sorted(scores, key=lambda s: s.name), run.folder / "planes.png")
    return text


def _notes(settings: Mapping[str, object], predictors: Mapping[str, SkullPredictor]) -> Iterator[str]:
    from .. import __version__

    used = "; ".join(f"{name}: {p.bundle.name} (SHA-256 {p.bundle.sha256[:12]}…)" for name, p in predictors.items())
    stated = ", ".join(f"{key} {value if not isinstance(value, list) else ', '.join(value)}"
                       for key, value in settings.items())
    yield f"Settings: {stated}."
    yield f"Bundles: {used}. MedVAE {__version__}."
