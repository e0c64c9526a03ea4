"""Whole brains on 40×48×40 voxels: four models of a synthetic FLAIR cohort, what their latents tell, and of whom."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedVAELib.cohort.prepare import PrepareCase, PrepareSettings, write_images_table
from MedVAELib.cohort.run import run_cohort
from MedVAELib.evaluation.generative import GenerativeScores, Made, Reference, evaluate_model, reference
from MedVAELib.evaluation.generative_baselines import baseline_scores
from MedVAELib.evaluation.generative_tables import definitions, generative_table
from MedVAELib.evaluation.latent_tables import confound_markdown
from MedVAELib.evaluation.tables import markdown_table
from MedVAELib.latent.classify import Classification, classify
from MedVAELib.latent.cohort import encode_images
from MedVAELib.latent.confound import ConfoundCheck, confound_check
from MedVAELib.latent.importance import order_of_latents
from MedVAELib.latent.model import LatentModel, load_latent_model
from MedVAELib.latent.probe import fit_linear
from MedVAELib.latent.table import TEST, TRAIN, LatentTable
from MedVAELib.latent.traverse import spread, traverse
from MedVAELib.reporting.latent_pictures import write_classification, write_strips
from MedVAELib.training.config import data_path
from MedVAELib.training.image_sets import ImageSet, read_images
from MedVAELib.training.synthesis.cohort_files import CohortRequest, write_cohort
from Testing.benchmarks.family import HERE, NO_MODEL, pixels, preset, trained, training_note

COHORTS = Path("runs/cohorts")
PLAIN = CohortRequest("flair-leuko", 2800, 0)
CONFOUNDED = CohortRequest("flair-leuko", 280, 2, confounded=True)
SHIPPED = "vae-8"
"""Its bundle comes with MedVAE as flair-latents, whose config says the same."""
MODELS = (SHIPPED, "vae-512", "introvae-32", "introvae-256")
REAL = ("ms_isbi_01", "ms_isbi_02", "ms_ljubljana_19", "ms_raw_patient01_study1", "ms_raw_patient03_study1",
        "ms_raw_patient04_study1", "ms_raw_patient12_study1", "healthy_kirby21_113")
_SHOWN, _LATENTS, _STEPS, _EXTENT, _DPI = 7, 2, 7, 2.5, 90


def main(work: Path) -> None:
    images, confounded = cohort("flair-leuko", PLAIN), cohort("flair-leuko-confounded", CONFOUNDED)
    train, test, real = images.part(TRAIN), images.part(TEST), real_scans(work)
    against = reference(train.images, test.images, patients=test.patients, train_patients=train.patients)
    scores, made, tables, models = [], {}, {NO_MODEL: pixels(images)}, {}
    for name in MODELS:
        models[name] = model = load_latent_model(trained(f"flair-{name}", configs()[name], work))
        score, made[name] = evaluate_model(name, model, against)
        scores.append(score)
        tables[name] = encode_images(model, images)
    found = {name: classify(table) for name, table in tables.items()}
    scores += baseline_scores(against, scores)
    draw(test, made, models, found)
    checks = [confound_check(encode_images(models["vae-8"], which)) for which in (images, confounded)]
    on_real = real_rows(models, tables, real)
    (HERE / "family_flair.md").write_text(page(scores, against, tables, found, checks, on_real, work), encoding="utf-8")


def configs() -> dict[str, dict[str, Any]]:
    return {name: preset("flair-latents" if name == SHIPPED else name) for name in MODELS}


def cohort(name: str, request: CohortRequest) -> ImageSet:
    """The images of a cohort, made unless it is there."""
    folder = COHORTS / name
    if not (folder / "images.csv").exists():
        write_cohort(request, data_path("brain/label_maps"), data_path("brain/lesion_masks"), folder)
    return read_images(folder / "images.csv")


def real_scans(work: Path) -> ImageSet:
    """Real FLAIR scans, as `medvae prepare` makes them."""
    output = work / "flair-real"
    cases = [PrepareCase(name, data_path(f"brain/flair/{name}/flair.nii.gz"), name, name.split("_")[0], TEST)
             for name in REAL]
    rows = run_cohort(cases, output, PrepareSettings("mni-4mm", device="cpu"), resume=True)
    return read_images(write_images_table(cases, rows, output))


def merged(labels: Sequence[str]) -> list[str]:
    """The grades of leukoencephalopathy as one class."""
    return [label.rstrip("123") for label in labels]


def real_rows(models: dict[str, LatentModel], tables: dict[str, LatentTable], real: ImageSet) -> list[list[str]]:
    """Per real scan: what LDA of each model, fitted on the synthetic training images, takes it for; and how much worse
    it is reconstructed than a synthetic test image."""
    rows = [[case] for case in real.cases]
    for name, table in tables.items():
        train = np.asarray(table.split, object) == TRAIN
        labels = np.asarray(merged(table.labels), object)[train]
        model = fit_linear(table.mean[train], labels)
        latents = pixels(real).mean if name == NO_MODEL else models[name].encode(real.images)[0].reshape(len(real), -1)
        for row, answer in zip(rows, model.predict(latents.astype(float)), strict=True):
            row.append(str(answer))
    return rows


# --- Pictures --------------------------------------------------------------------------------------------------------


def draw(test: ImageSet, made: dict[str, Made], models: dict[str, LatentModel],
         found: dict[str, Classification]) -> None:
    chosen = examples(test)
    rows: dict[str, NDArray] = {"test images": test.images[chosen]}
    for name in MODELS:
        rows[f"{name}\nreconstructed"] = made[name].reconstructions[chosen]
        rows[f"{name}\nsamples"] = made[name].samples[: len(chosen)]
    write_strips(rows, HERE / "family_flair.png", [test.labels[i] for i in chosen],
                 "columns name the test images; samples have no label", dpi=_DPI)
    strips = {}
    for name in MODELS:
        statistics = models[name].statistics
        for index in order_of_latents(statistics, "separation")[:_LATENTS]:
            mean, std = float(statistics.all.mean[index]), float(statistics.all.std[index])
            strips[f"{name}\nlatent {index}"] = traverse(models[name], statistics.all.mean, int(index),
                                                         spread(mean, std, _STEPS, _EXTENT))
    titles = [f"{place:+.1f} SD" for place in spread(0.0, 1.0, _STEPS, _EXTENT)]
    write_strips(strips, HERE / "family_flair_traversals.png", titles, dpi=_DPI)
    write_classification(found["introvae-256"], HERE / "family_flair_lda.png")


def examples(images: ImageSet) -> list[int]:
    """One image of each label, and two more of the first ones."""
    places: dict[str, list[int]] = {}
    for index, label in enumerate(images.labels):
        places.setdefault(label, []).append(index)
    order = [rows[n] for n in range(2) for _, rows in sorted(places.items()) if len(rows) > n]
    return order[:_SHOWN]


# --- The page --------------------------------------------------------------------------------------------------------


def lda_table(found: dict[str, Classification]) -> str:
    """Precision and recall per class, in the published layout, with what was published in the last row."""
    classes = next(iter(found.values())).classes
    header = ["LDA of", *(f"{name}: precision / recall" for name in classes), "balanced accuracy"]
    rows = [[name, *(f"{_share(p)} / {_share(r)}" for p, r in zip(one.precision, one.recall, strict=True)),
             str(one.balanced_accuracy)] for name, one in found.items()]
    published = {"healthy": ".75 / .74", "ms": ".92 / .89"}
    rows.append(["*published: intro-VAE-256, its own real scans*", *(published.get(name, "") for name in classes), ""])
    return markdown_table(header, rows)


def with_merged_labels(tables: dict[str, LatentTable]) -> dict[str, Classification]:
    return {name: classify(LatentTable(t.cases, t.patients, t.mean, None, merged(t.labels), t.split, t.tags))
            for name, t in tables.items()}


def page(
    scores: list[GenerativeScores], against: Reference, tables: dict[str, LatentTable],
    found: dict[str, Classification], checks: list[ConfoundCheck], on_real: list[list[str]], work: Path,
) -> str:
    plain, confounded = checks
    alarm = "raises the alarm" if confounded.verdict == "alarm" else "does NOT raise the alarm"
    splits = tables[NO_MODEL].split
    counts = ", ".join(f"{part} {sum(s == part for s in splits)}" for part in (TRAIN, "validation", TEST))
    return "\n".join([
        "# Whole brains: four models of a FLAIR cohort\n",
        "`python -m Testing.benchmarks.family flair`. **Synthetic** FLAIR of `medvae synthesise cohort --kind "
        f"flair-leuko`: {len(splits)} scans ({counts}) of healthy brains, MS with real lesion masks, and "
        "leukoencephalopathy of grades 1 to 3 grown from the ventricles; 40×48×40 voxels of 4 mm in MNI space. Heads "
        "and lesion masks of the test part were in no training. The presets of "
        "these names.\n",
        "## Reconstructions and samples\n", generative_table(scores),
        "![Reconstructions and samples](family_flair.png)\n",
        "## What the latents tell: LDA, test heads\n", lda_table(found),
        "The grades of leukoencephalopathy as one class:\n", lda_table(with_merged_labels(tables)),
        "The published figures are of real scans, which are not ours: they stand here for the layout, not for the "
        "comparison. The row without a model is LDA of the images' own principal components, fitted on the training "
        "images.\n",
        "![Discriminant axes of introvae-256 and its confusion](family_flair_lda.png)\n",
        "## Latents one by one\n", "The latents that set the labels apart most, all others at their mean:\n",
        "![Traversals](family_flair_traversals.png)\n",
        "## Confound check\n",
        f"On a cohort whose scanner settings follow the label (`--confounded`) the check {alarm}; on the plain one "
        f"it says \"{plain.verdict}\". Latents of vae-8.\n",
        "### Confounded cohort\n", confound_markdown(confounded), "### Plain cohort\n", confound_markdown(plain),
        "## Real scans\n", "What LDA, fitted on synthetic images alone, takes real scans for. All but the last are MS; "
        "they show how far the synthetic cohort carries, no more.\n",
        markdown_table(["real scan", *tables], on_real),
        "## Trainings\n", *(f"- {name}: {training_note(work / f'flair-{name}')}" for name in MODELS), "",
        "## Definitions\n", *(f"- {line}" for line in definitions(against)),
        "- [brackets] of accuracies: 95 % bootstrap over heads.", "",
    ])


def _share(value: float) -> str:
    """Precision of a class that was never predicted is not known."""
    return "–" if np.isnan(value) else f"{value:.2f}"
