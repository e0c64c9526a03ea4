"""Generators of axial FLAIR slices: samples beside slices of the data, Fréchet distances, and whether it remembers.

The slices are of synthetic healthy FLAIR made from label maps of real heads, in MNI space at 2 mm. Half of the scans of
the training heads are left out of the training: against them it shows whether samples copy the others.
"""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

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
from MedVAELib.latent.model import load_latent_model
from MedVAELib.reporting.latent_pictures import write_strips
from MedVAELib.training.config import data_path
from MedVAELib.training.image_sets import ImageSet, read_images
from MedVAELib.training.synthesis.cohort_files import CohortRequest, write_cohort
from Testing.benchmarks.family import HERE, preset, trained, training_note

SCANS, SIDE = 300, 96
LEVELS = range(26, 58, 4)
"""Axial planes of a volume of 80×96×80 voxels of 2 mm: from below the ventricles to above them."""
PRESET = "slices-introvae-64"
MODELS = {"VAE-64": "vae", "IntroVAE-64": "introvae"}
UNSEEN = "unseen"
_SHOWN, _DPI = 10, 60


def main(work: Path) -> None:
    table = write_slices(work / "slices-cohort", work / "slices")
    shape = (SIDE, SIDE)
    seen, unseen = read_images(table, shape=shape), read_images(table.with_name(f"{UNSEEN}.csv"), shape=shape)
    train = seen.part("train").images
    if set(unseen.patients) != set(seen.part("train").patients):
        raise RuntimeError("the slices left out of the training are not of the heads that are in it")
    against, heads = (reference(train, held_back.images, patients=held_back.patients)
                      for held_back in (unseen, seen.part("test")))
    scores, others = [], []
    strips = {"slices of\nthe data": unseen.images[:: max(1, len(unseen) // _SHOWN)][:_SHOWN]}
    for name in MODELS:
        model = load_latent_model(trained(f"slices-{name}", config(name, table), work))
        score, made = evaluate_model(name, model, against)
        scores.append(score)
        others.append(evaluate_model(name, model, heads)[0])
        strips[f"samples of\n{name}"] = made.samples[:_SHOWN]
        strips[f"training slice\nnearest to {name}"] = nearest_images(made.samples[:_SHOWN], train)
    write_strips(strips, HERE / "slices.png", dpi=_DPI)
    copied = copies_of_a_copier(train, unseen.images)
    (HERE / "slices.md").write_text(page(scores, others, against, heads, copied, seen, work), encoding="utf-8")


def config(name: str, table: Path) -> dict:
    settings = preset(PRESET, {"shape": [SIDE, SIDE]})
    settings["model"] = {key: value for key, value in settings["model"].items() if key != "variant"}
    settings["model"]["name"] = MODELS[name]  # the introspective one is soft unless it is told otherwise
    settings["data"] = settings["data"] | {"source": str(table.resolve()), "preparation": "plain", "scaling": "byte"}
    return settings


def write_slices(cohort: Path, output: Path) -> Path:
    """The slices as 8-bit PNG with images.csv (what trains, validates and tests, by head) and unseen.csv."""
    tables = {name: output / f"{name}.csv" for name in ("images", UNSEEN)}
    if all(table.exists() for table in tables.values()):
        return tables["images"]
    source = data_path("brain")
    listed = write_cohort(CohortRequest("flair-healthy", SCANS, 7, 2.0), source / "label_maps",
                          source / "lesion_masks", cohort)
    volumes, rows = read_images(listed), {name: [] for name in tables}
    output.mkdir(parents=True, exist_ok=True)
    scans_of: Counter[str] = Counter()
    for index, volume in enumerate(volumes.images):
        scans_of[volumes.patients[index]] += 1
        kept = volumes.splits[index] != "train" or scans_of[volumes.patients[index]] % 2 == 1
        for level in LEVELS:
            name = f"{volumes.cases[index]}_{level}.png"
            sitk.WriteImage(sitk.GetImageFromArray(_picture(volume[0, level])), str(output / name))
            rows["images" if kept else UNSEEN].append((name, name[:-4], volumes.patients[index], volumes.splits[index]))
    for name, table in tables.items():
        with table.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([("file", "case", "patient", "split"), *rows[name]])
    return tables["images"]


def _picture(plane_yx: NDArray) -> NDArray[np.uint8]:
    """Square, anterior up, 0…255."""
    grow = [(SIDE - side) // 2 for side in plane_yx.shape]
    square = np.pad(plane_yx, [(low, SIDE - side - low) for low, side in zip(grow, plane_yx.shape, strict=True)])
    return (square[::-1] * 255).round().astype(np.uint8)


def copies_of_a_copier(train: NDArray, unseen: NDArray) -> float:
    """What the check says of a generator that gives back training slices with a little noise."""
    random = np.random.default_rng(0)
    copied = train[random.choice(len(train), 100)] + random.normal(0, 0.03, (100, *train.shape[1:])).astype(np.float32)
    to_train, to_unseen, _ = nearest_neighbours(copied, train, unseen)
    return float((to_train < to_unseen).mean())


def page(scores: list[GenerativeScores], others: list[GenerativeScores], against: Reference, heads: Reference,
         copier: float, seen: ImageSet, work: Path) -> str:
    parts = {name: len(set(seen.part(name).patients)) for name in ("train", "test")}
    return "\n".join([
        "# Generators of axial slices\n",
        "`python -m Testing.benchmarks.family slices`. VAE and IntroVAE (soft) with 64 latents, model and trainer as "
        f"in the preset {PRESET}, but not its images: those are 128×128 pixels by `medvae prepare`, these are "
        f"{SIDE}×{SIDE} pixels of 2 mm and 8 bits, cut by this script from {len(LEVELS)} axial planes of every scan. "
        "The preset's own images are not measured here. Synthetic healthy FLAIR of MedVAE, made from label "
        f"maps of {parts['train']} real heads; "
        f"{len(against.train)} slices train. Held back: {len(against.held_back)} slices of other scans of these heads, "
        f"and {len(heads.held_back)} of {parts['test']} heads that no training saw.\n",
        "Against other scans of the training heads:\n",
        generative_table([*scores, *baseline_scores(against, scores)]),
        "Against heads that no training saw:\n",
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
    free = score.nearer[1] <= chance + 0.1
    verdict = "does not copy its training slices" if free else "keeps nearer to its training slices than to others"
    return (f"- {score.name}: {score.nearer[0]:.0%} of the samples, {score.nearest:.3f} from the nearest training "
            f"slice. It {verdict}.")
