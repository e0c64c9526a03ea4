"""Image autoencoders, the detector and a threshold on brightness, all on the same voxels of real FLAIR scans."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from MedVAELib.evaluation.tables import figure, markdown_table
from Testing.benchmarks.family import HERE, preset, trained, training_note

MODELS = ("ae", "vae", "svae", "lvae", "vqvae", "introvae", "cevae")
CASES = Path("brain") / "flair"
BEST_SCORES = {"ae": "excess", "vae": "excess", "svae": "excess", "lvae": "excess", "vqvae": "restoration_excess",
               "introvae": "excess", "cevae": "combined"}
"""The score that each model is published with, for the short table; fixed before anything was measured."""
NOT_IN_MEAN = ("tumour_brainix",)
NAMES = {"medvae": "flagship (healthy-anatomy)", "intensity": "threshold, smoothed intensity",
         "equalised intensity": "threshold, equalised intensity (Meissen et al. 2021)"}
PUBLISHED = (
    ("MSLUB (Ljubljana MS)", "threshold on equalised FLAIR", "0.374", "0.271"),
    ("MSLUB (Ljubljana MS)", "best variants of a VAE", "0.333", "0.275"),
    ("BraTS", "threshold on equalised FLAIR", "0.738", "–"),
    ("BraTS", "ensemble of transformers", "0.759", "–"),
)
"""Data, method, ⌈Dice⌉ and area under the precision-recall curve, as their papers report them."""


def configs() -> dict[str, dict[str, Any]]:
    return {name: preset(f"anomaly-{name}") for name in MODELS}


def main(work: Path) -> None:
    bundles = [trained(f"anomaly-{name}", config, work) for name, config in configs().items()]
    output = work / "anomaly-table"
    evaluate(bundles, output)
    results = json.loads((output / "results.json").read_text(encoding="utf-8"))
    (HERE / "anomaly_family.md").write_text(page(results, work), encoding="utf-8")


def evaluate(bundles: Sequence[Path], output: Path) -> None:
    """`medvae evaluate anomaly` as anyone would call it."""
    from typer.testing import CliRunner

    from MedVAELib.cli import evaluate as command

    cases = Path(os.environ["MEDVAE_DATA"]) / CASES
    options = [option for bundle in bundles for option in ("--autoencoder", str(bundle))]
    options += [option for name in NOT_IN_MEAN for option in ("--not-in-mean", name)]
    done = CliRunner().invoke(command.app, ["anomaly", str(cases), "--output", str(output), "--modality", "flair",
                                            "--progress", "none", "--device", "cpu", *options])
    if done.exit_code:
        raise RuntimeError(done.output) from done.exception


def page(results: Mapping[str, Any], work: Path) -> str:
    means, cases = results["means"], [row["case"] for row in results["cases"] if row["kind"] == "lesions"]
    cases = list(dict.fromkeys(cases))
    ap = {(row["method"], row["case"]): row["ap"] for row in results["cases"] if row["method"]}
    methods = sorted((m for m in means if m != "cases"), key=lambda m: -(means[m]["ap"][0] or 0))
    short = [*NAMES, "intensity, mni-4mm", *(f"anomaly-{name} {score}" for name, score in BEST_SCORES.items())]
    return "\n".join([
        "# Anomaly scores on real FLAIR: the family of autoencoders, the detector, a threshold\n",
        "`python -m Testing.benchmarks.family anomaly`, from the cohort that "
        "`medvae synthesise cohort --kind flair-healthy --count 700 --output runs/cohorts/flair-healthy` makes. "
        "The autoencoders learn healthy brains alone, 455 scans of 13 heads, at 40×48×40 voxels of 4 mm; the table "
        "itself is `medvae evaluate anomaly` with `--autoencoder`.\n",
        "## As published, one score each\n", _table(short, cases, means, ap),
        "The score of each model was chosen before measuring: the one it is published with, and of residuals the "
        "bright part, as lesions are bright in FLAIR. \"intensity, mni-4mm\" is the prepared image itself, which has "
        "learned nothing and has lost the same resolution: what an autoencoder adds shows against this row, what the "
        "4 mm grid costs between it and the threshold.\n",
        "## What the sources report, on their own cases\n",
        markdown_table(["data", "method", "⌈Dice⌉", "AUPRC"], PUBLISHED),
        "⌈Dice⌉ is our \"best Dice\". Their cases are not ours; the order of the rows compares, the figures do not.\n",
        "## All scores of all models\n", _table(methods, cases, means, ap),
        f"Means of {len(means['cases'])} cases ({', '.join(means['cases'])}); {', '.join(NOT_IN_MEAN)} is listed and "
        "not averaged, its outline being rough. [brackets]: 95 % bootstrap over cases. Every method is scored in the "
        "detector's brain mask united with the expert's mask; Dice and F1 flag as many voxels as the detector does.\n",
        "## Training\n", *(f"- {name}: {training_note(work / f'anomaly-{name}')}" for name in MODELS), "",
        "The presets `Resources/configs/anomaly-*.yaml`.", "",
    ])


def _table(methods: Sequence[str], cases: Sequence[str], means: Mapping[str, Any], ap: Mapping) -> str:
    header = ["method", *(f"AP {case}" for case in cases), "mean AP", "mean best Dice", "mean Dice", "mean lesion F1"]
    rows = []
    for method in methods:
        mean = means[method]
        rows.append([NAMES.get(method, method.removeprefix("anomaly-")), *(_figure(ap[method, case]) for case in cases),
                     figure(mean["ap"][0], mean["ap"][1:]), *(_figure(mean[key][0]) for key in
                                                             ("best_dice", "dice", "lesion_f1"))])
    return markdown_table(header, rows)


def _figure(value: float | None) -> str:
    return figure(float("nan") if value is None else value)
