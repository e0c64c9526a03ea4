"""`medvae evaluate`: folders of cases with experts' masks in, tables with the baselines beside every figure out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial as bound
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..bundle import DEFAULT_ANOMALY_BUNDLE
from ..listening import cancelled_by_signals
from ..outputs import json_text
from ..progress import CancelToken, Progress
from . import evaluate_skull, latent_compare
from .detect import ModalityChoice
from .folder_task import OutputOption, finish, folder_task
from .listeners import progress_listener
from .options import BundleOption, DebugOption, DeviceOption, ProgressKind, ProgressOption

if TYPE_CHECKING:
    from ..anomaly.result import Detection
    from ..evaluation.anomaly import Detect
    from ..scan import Scan

app = typer.Typer(no_args_is_help=True, help=(
    "Score a folder of cases with expert masks, the simple baseline beside every figure; score models of images.\n\n"
    "Example:  medvae evaluate anomaly CASES_DIR --output DIR"))
app.command("skull")(evaluate_skull.skull)
app.command("hc18")(evaluate_skull.hc18)
app.command("generative")(latent_compare.generative)

CasesArgument = Annotated[Path, typer.Argument(
    metavar="CASES_DIR", show_default=False,
    help="Folder with one folder per case: flair.nii.gz or dwi.nii.gz, mask.nii.gz, optionally brainmask.nii.gz.")]
ModalityOption = Annotated[ModalityChoice, typer.Option(help="Kind of scan; 'auto' decides from each image.")]


@app.command("anomaly")
def anomaly(
    cases_dir: CasesArgument,
    output: OutputOption,
    bundle: BundleOption = None,
    score: Annotated[str, typer.Option(metavar="NAME", help="Anomaly score, as in 'medvae detect'.")] = "zscore",
    modality: ModalityOption = ModalityChoice.auto,
    leave_out: Annotated[list[str] | None, typer.Option(
        "--not-in-mean", metavar="CASE", show_default=False,
        help="A case to score and list but not to average, for example one whose mask is unreliable; repeatable.")
    ] = None,
    autoencoders: Annotated[list[str] | None, typer.Option(
        "--autoencoder", metavar="BUNDLE", show_default=False,
        help="An image autoencoder (of 'medvae train' with task images) to score on the same voxels; repeatable.")
    ] = None,
    device: DeviceOption = "auto",
    progress: ProgressOption = ProgressKind.bar,
    debug: DebugOption = False,
) -> None:
    """AP, Dice, lesion-wise F1 and false positives of the detector and of plain intensity, with intervals.

    Writes table.md, cases.csv, results.json and one picture per case into DIR.

    Examples:

        medvae evaluate anomaly shared/data/brain/flair --output evaluation

        medvae evaluate anomaly shared/data/brain/flair --autoencoder vae-8 --autoencoder runs/x/bundle/x -o evaluation
    """
    from ..evaluation.anomaly import evaluate_cases
    from ..evaluation.anomaly_tables import DEFINITIONS, anomaly_markdown, case_rows, means
    from ..evaluation.autoencoders import AutoencoderScores
    from ..evaluation.cases import find_cases
    from ..evaluation.pictures import write_case_picture
    from ..latent.model import load_latent_model

    cases, left_out = find_cases(cases_dir), leave_out or []
    unknown = sorted(set(left_out) - {case.name for case in cases})
    if unknown:
        raise typer.BadParameter(f"there is no case {', '.join(unknown)} in {cases_dir}.", param_hint="--not-in-mean")
    settings = {"cases": str(cases_dir), "bundle": bundle or DEFAULT_ANOMALY_BUNDLE, "score": score,
                "modality": modality.value, "device": device, "not_in_mean": left_out,
                "autoencoders": autoencoders or []}
    pictures = {case.name: f"{case.name}.png" for case in cases}
    names = ("table.md", "cases.csv", "results.json", *pictures.values())
    with folder_task(output, progress, "evaluation: anomaly", names) as run:
        run.settings = settings
        detect = _detector(bundle, device, score, run.cancel)
        models = [load_latent_model(name, device) for name in autoencoders or []]
        others = AutoencoderScores(models, run.cancel) if models else None
        if others:
            others.check(case.scan for case in cases)
        results = evaluate_cases(
            cases, detect, modality.value, progress=run.progress, cancel=run.cancel, others=others,
            look=lambda case, found, truth: write_case_picture(found, truth, case.name,
                                                               run.folder / pictures[case.name]))
        rows = case_rows(results)
        text = anomaly_markdown(results, left_out, _notes(settings, [r.provenance for r in results]))
        run.write("table.md", text)
        run.write_rows("cases.csv", rows)
        run.write("results.json", json_text({
            "settings": settings, "definitions": DEFINITIONS, "means": means(results, left_out), "cases": rows,
            "provenance": {r.case.name: r.provenance for r in results}}))
    finish(text, output, progress, [r.case.name for r in results if r.failure], len(results))


@app.command("brain")
def brain(
    cases_dir: CasesArgument,
    output: Annotated[Path | None, typer.Option(
        "--output", "-o", metavar="DIR", show_default=False, help="Folder for the table, if it is to be kept.")] = None,
    bundle: BundleOption = None,
    modality: ModalityOption = ModalityChoice.auto,
    device: DeviceOption = "auto",
    progress: ProgressOption = ProgressKind.bar,
    debug: DebugOption = False,
) -> None:
    """Dice of the detector's brain mask and of a template's carried over by registration, on cases with a head.

    Example:  medvae evaluate brain shared/data/brain/flair
    """
    from ..evaluation.brain_mask import brain_markdown, evaluate_brains
    from ..evaluation.cases import find_cases
    from ..preprocessing.template_brain import template_brain_mask

    cases = find_cases(cases_dir)
    settings = {"cases": str(cases_dir), "bundle": bundle or DEFAULT_ANOMALY_BUNDLE,
                "modality": modality.value, "device": device}
    with folder_task(output, progress, "evaluation: brain", ("brain.md", "brain.csv", "brain.json")) as run:
        run.settings = settings
        detect = _detector(bundle, device, "zscore", run.cancel)
        template = bound(template_brain_mask, cancel=run.cancel)
        results = evaluate_brains(cases, detect, template, modality.value, run.progress, run.cancel)
        text = brain_markdown(results, _notes(settings, []))
        rows = [{"case": r.case.name} | {k: v for k, v in asdict(r).items() if k != "case"} for r in results]
        run.write("brain.md", text)
        run.write_rows("brain.csv", rows)
        run.write("brain.json", json_text({"settings": settings, "cases": rows}))
    finish(text, output, progress, [r.case.name for r in results if r.skipped.startswith("failed")], len(results))


@app.command("make-cases")
def make_cases(
    label_maps: Annotated[Path, typer.Argument(metavar="LABEL_MAPS", show_default=False,
                                               help="Folder of FreeSurfer-numbered label maps of whole heads.")],
    output: OutputOption,
    modality: Annotated[ModalityChoice, typer.Option(help="flair or dwi.")] = ModalityChoice.flair,
    lesions: Annotated[Path | None, typer.Option(
        metavar="DIR", show_default=False, help="Folder of real lesion masks in MNI space; without it, healthy scans.")
    ] = None,
    names: Annotated[list[str] | None, typer.Option("--name", metavar="LABEL_MAP", show_default=False,
                                                    help="A label map to use; repeatable, by default all.")] = None,
    scans: Annotated[int, typer.Option(min=1, help="How many.")] = 10,
    seed: Annotated[int, typer.Option(min=0, help="Number of the first scan; the same number, the same scan.")] = 0,
    progress: ProgressOption = ProgressKind.bar,
    debug: DebugOption = False,
) -> None:
    """Make synthetic cases with known lesions (or none), for 'medvae evaluate anomaly'.

    Example:  medvae evaluate make-cases label_maps --lesions stroke_masks --modality dwi --output cases
    """
    from ..training.synthesis.cases import write_cases

    if modality is ModalityChoice.auto:
        raise typer.BadParameter("choose flair or dwi.", param_hint="--modality")
    with cancelled_by_signals() as cancel, progress_listener(progress) as listener:
        write_cases(label_maps, output, modality.value, scans, lesions, names, seed=seed, progress=listener,
                    cancel=cancel)


def _detector(bundle: str | None, device: str, score: str, cancel: CancelToken) -> Detect:
    """The shipped (or named) detector, loaded once for all cases."""
    from ..anomaly.detect import detect_anomalies
    from ..anomaly.detector import Detector

    loaded = Detector.load(bundle, device)

    def detect(scan: Scan, progress: Progress) -> Detection:
        return detect_anomalies(scan, detector=loaded, score=score, progress=progress, cancel=cancel)

    return detect


def _notes(settings: Mapping[str, object], provenance: Sequence[Mapping[str, object]]) -> list[str]:
    """What a table needs above it to be read later: how it was made."""
    from .. import __version__

    used = next((f"{p['bundle']} (SHA-256 {str(p.get('bundle_sha256', ''))[:12]}…)" for p in provenance
                 if p.get("bundle")), settings["bundle"])
    return [f"Cases: `{settings['cases']}`. Bundle: {used}. MedVAE {__version__}, "
            + ", ".join(f"{key} {settings[key]}" for key in ("score", "modality", "device") if key in settings) + "."]
