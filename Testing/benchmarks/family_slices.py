"""Generators of axial FLAIR slices: samples beside slices of the data, Fréchet distances, and whether it remembers.

The slices are of synthetic healthy FLAIR made from label maps of real heads, in MNI space at 2 mm. Half of the scans of
the training heads are left out of the training: against them it shows whether samples copy the others.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from MedVAELib.cohort.prepare import PrepareCase, PrepareSettings, read_prepare_cases, write_images_table
from MedVAELib.cohort.run import run_cohort
from MedVAELib.evaluation.generative import (
    GenerativeScores,
    Reference,
    evaluate_model,
    nearest_images,
    nearest_neighbours,
    reference,
)
from MedVAELib.evaluation.generative_baselines import baseline_scores
from MedVAELib.evaluation.generative_tables import definitions, generative_table
from MedVAELib.latent.cohort import images_for
from MedVAELib.latent.model import load_latent_model
from MedVAELib.latent.table import TEST, TRAIN
from MedVAELib.preprocessing.slices import SliceSettings
from MedVAELib.reporting.latent_pictures import write_strips
from MedVAELib.training.config import data_path
from MedVAELib.training.image_sets import ImageSet
from MedVAELib.training.synthesis.cohort_files import CohortRequest, write_cohort
from Testing.benchmarks.family import HERE, preset, trained, training_note

SCANS, SIDE, EVERY = 300, 128, 4
PRESET = "slices-introvae-64"
MODELS = {"VAE-64": "vae", "IntroVAE-64": "introvae"}
UNSEEN = "unseen"
_SHOWN, _DPI = 6, 60


def main(work: Path) -> None:
    tables = prepared(work / "slices-cohort", work / "slices")
    models = {name: load_latent_model(trained(f"slices-{name}", config(name, tables["images"]), work))
              for name in MODELS}
    seen, unseen = (images_for(models["VAE-64"], tables[name]) for name in ("images", UNSEEN))
    train, in_training = seen.part(TRAIN).images, seen.part(TRAIN).patients
    if set(unseen.patients) != set(in_training):
        raise RuntimeError("the slices left out of the training are not of the heads that are in it")
    against, heads = (reference(train, held_back.images, patients=held_back.patients, train_patients=in_training)
                      for held_back in (unseen, seen.part(TEST)))
    scores, others = [], []
    strips = {"slices of\nthe data": unseen.images[:: max(1, len(unseen) // _SHOWN)][:_SHOWN]}
    for name, model in models.items():
        score, made = evaluate_model(name, model, against)
        scores.append(score)
        others.append(evaluate_model(name, model, heads)[0])
        strips[f"samples of\n{name}"] = made.samples[:_SHOWN]
        strips[f"training slice\nnearest to {name}"] = nearest_images(made.samples[:_SHOWN], train)
    write_strips(strips, HERE / "slices.png", dpi=_DPI)
    copied = copies_of_a_copier(train, unseen.images)
    (HERE / "slices.md").write_text(page(scores, others, against, heads, copied, seen, work), encoding="utf-8")


def config(name: str, table: Path) -> dict:
    settings = preset(PRESET)
    settings["model"] = {key: value for key, value in settings["model"].items() if key != "variant"}
    settings["model"]["name"] = MODELS[name]  # the introspective one is soft unless it is told otherwise
    settings["data"] = settings["data"] | {"source": str(table.resolve())}
    return settings


def prepared(cohort: Path, output: Path) -> dict[str, Path]:
    """Tables of the slices: what trains, validates and tests, by head, and UNSEEN."""
    source = data_path("brain")
    listed = write_cohort(CohortRequest("flair-healthy", SCANS, 7, 2.0), source / "label_maps",
                          source / "lesion_masks", cohort)
    parts: dict[str, list[PrepareCase]] = {"images": [], UNSEEN: []}
    scans_of: Counter[str] = Counter()
    for case in read_prepare_cases(listed):
        scans_of[case.patient] += 1
        parts["images" if case.split != TRAIN or scans_of[case.patient] % 2 else UNSEEN].append(case)
    tables = {}
    for name, cases in parts.items():
        # The scans are brain-masked: no network is needed.
        settings = PrepareSettings("slices", slices=SliceSettings(size=SIDE, every=EVERY), brain="template")
        rows = run_cohort(cases, output / name, settings, resume=True)
        tables[name] = write_images_table(cases, rows, output / name)
    return tables


def copies_of_a_copier(train: NDArray, unseen: NDArray) -> float:
    """What the check says of a generator that gives back training slices with a little noise."""
    random = np.random.default_rng(0)
    copied = train[random.choice(len(train), 100)] + random.normal(0, 0.03, (100, *train.shape[1:])).astype(np.float32)
    to_train, to_unseen, _ = nearest_neighbours(copied, train, unseen)
    return float((to_train < to_unseen).mean())


def page(scores: list[GenerativeScores], others: list[GenerativeScores], against: Reference, heads: Reference,
         copier: float, seen: ImageSet, work: Path) -> str:
    parts = {name: len(set(seen.part(name).patients)) for name in (TRAIN, TEST)}
    return "\n".join([
        "# Generators of axial slices\n",
        "`python -m Testing.benchmarks.family slices`. VAE and IntroVAE (soft) with 64 latents, as in the preset "
        f"{PRESET}: {SIDE}×{SIDE} pixels by `medvae prepare`, every {EVERY}th slice. Synthetic healthy FLAIR of "
        f"MedVAE, made from label maps of {parts[TRAIN]} real heads; "
        f"{len(against.train)} slices train. Held back: {len(against.held_back)} slices of other scans of these heads, "
        f"and {len(heads.held_back)} of {parts[TEST]} heads that no training saw.\n",
        "Against other scans of the training heads:\n",
        generative_table([*scores, *baseline_scores(against, scores)]),
        "Against heads that no training saw, which cannot tell whether samples are copies: new slices of the training "
        "heads would be nearer to training slices, too:\n",
        generative_table([*others, *baseline_scores(heads, others)]),
        f"FID of as many training slices from these: {against.floor:.2f} and {heads.floor:.2f}. No figures of a source "
        "are known that could stand beside these.\n",
        "## Is it remembered?\n",
        f"A generator that copies nothing has a training slice as the nearest of all slices for {against.chance:.0%} "
        f"of its samples, one that gives training slices back with a little noise for {copier:.0%}. "
        f"Unseen slices lie {scores[0].nearest_real:.3f} from the nearest training slice (median root mean square, "
        "range 1).\n", *(_memory(score, against.chance) for score in scores),
        "\n![Slices of the data, samples, and the training slice nearest to each sample](slices.png)\n",
        "## Trainings\n", *(f"- {name}: {training_note(work / f'slices-{name}')}" for name in MODELS), "",
        "## Definitions\n",
        *(f"- {line}" for line in definitions(against)), "",
    ])


def _memory(score: GenerativeScores, chance: float) -> str:
    value, low, _ = score.nearer
    beside = "more than by chance" if low > chance else "not more than by chance"
    return f"- {score.name}: {value:.0%} of the samples, {beside}; {score.nearest:.3f} from the nearest training slice."
