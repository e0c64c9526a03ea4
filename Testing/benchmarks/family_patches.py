"""DWI patches of 28×28 pixels in five latents: do they tell stroke from healthy, though no label was ever used?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.decomposition import PCA

from MedVAELib.cohort.prepare import PrepareCase, PrepareSettings, read_prepare_cases, write_images_table
from MedVAELib.cohort.run import run_cohort
from MedVAELib.evaluation.tables import markdown_table
from MedVAELib.latent.cohort import encode_images, images_for
from MedVAELib.latent.embed import embed
from MedVAELib.latent.model import LatentModel, load_latent_model
from MedVAELib.latent.probe import Estimate, Probe, fit_linear, linear_probe
from MedVAELib.latent.table import TEST, TRAIN, LatentTable
from MedVAELib.preprocessing.slices import HEALTHY, LESION, PatchSettings
from MedVAELib.reporting.latent_pictures import scatter
from MedVAELib.training.config import data_path
from MedVAELib.training.image_sets import ImageSet
from MedVAELib.training.synthesis.cohort_files import CohortRequest, write_cohort
from Testing.benchmarks.family import HERE, preset, trained, training_note

SCANS = 80
NAME = "patches-vae-5"
SYNTHETIC = PatchSettings(every=6)
REAL = PatchSettings(every=1)
"""Every sixth slice of 2 mm, every slice of 5 mm."""
_SHOWN = 1200


def main(work: Path) -> None:
    table = synthetic_patches(work)
    model = load_latent_model(trained(NAME, config(table), work))
    images, real = images_for(model, table), images_for(model, real_patches(work))
    latents, seen = encode_images(model, images), encode_images(model, real)
    draw(latents, seen, HERE / "patches.png")
    (HERE / "patches.md").write_text(page(model, images, real, latents, seen, work), encoding="utf-8")


def config(table: Path) -> dict[str, Any]:
    settings = preset(NAME)
    settings["data"] = settings["data"] | {"source": str(table.resolve())}
    return settings


# --- Patches ---------------------------------------------------------------------------------------------------------


def synthetic_patches(work: Path) -> Path:
    """The table of the patches of a synthetic cohort of strokes, made unless it is there."""
    cohort, output = Path("runs/cohorts/dwi-strokes"), work / "patches"
    if not (cohort / "images.csv").exists():
        write_cohort(CohortRequest("dwi-strokes", SCANS, 3, 2.0), data_path("brain/label_maps"),
                     data_path("brain/lesion_masks"), cohort)
    return _prepared(read_prepare_cases(cohort / "images.csv", cohort / "lesions.csv"), SYNTHETIC, output)


def real_patches(work: Path) -> Path:
    """Those of the real scan, whose lesion is what a network found."""
    folder = data_path("brain/dwi/stroke_ads_01")
    case = PrepareCase("stroke_ads_01", folder / "dwi.nii.gz", "stroke_ads_01", "stroke", TEST,
                       folder / "automatic_lesion.nii.gz", folder / "brainmask.nii.gz")
    return _prepared([case], REAL, work / "patches-real")


def _prepared(cases: list[PrepareCase], patches: PatchSettings, output: Path) -> Path:
    # The synthetic scans are brain-masked, the real one brings its mask: no network is needed for either.
    rows = run_cohort(cases, output, PrepareSettings("patches", patches=patches, brain="template"), resume=True)
    return write_images_table(cases, rows, output)


# --- Probes ----------------------------------------------------------------------------------------------------------


def probes(images: ImageSet, real: ImageSet, latents: LatentTable, seen: LatentTable) -> list[list[str]]:
    """AUC of lesion against healthy in test patients, and in the real scan, from latents, from as many principal
    components, and from plain brightness."""
    components = PCA(latents.mean.shape[1], random_state=0).fit(_flat(images.part(TRAIN)))
    features = {"LDA of the 5 latents": (latents.mean, seen.mean),
                "LDA of 5 principal components": (components.transform(_flat(images)),
                                                  components.transform(_flat(real)))}
    for name, figure in (("mean brightness", np.mean), ("95th percentile of brightness", _p95)):
        features[name] = tuple(figure(_flat(part), axis=1)[:, None] for part in (images, real))
    return [[name, str(_auc(latents, ours)), f"{_auc_real(latents, ours, seen, theirs):.2f}",
             str(linear_probe(theirs, seen.labels, _slices(seen)).auc)]
            for name, (ours, theirs) in features.items()]


def _flat(images: ImageSet) -> NDArray:
    return images.images.reshape(len(images), -1)


def _slices(table: LatentTable) -> list[str]:
    """The slice that a patch's name tells: neighbours in a slice are in one fold."""
    return [case.split("patch_")[1].split("_")[0] for case in table.cases]


def _p95(values: NDArray, axis: int) -> NDArray:
    return np.quantile(values, 0.95, axis=axis)


def _fitted(table: LatentTable, features: NDArray):
    labels = np.asarray(table.labels, object)
    rows = (np.asarray(table.split, object) == TRAIN) & (labels != "")
    return fit_linear(features[rows], labels[rows])


def _auc(table: LatentTable, features: NDArray) -> Estimate:
    labels = np.asarray(table.labels, object)
    rows = (np.asarray(table.split, object) == TEST) & (labels != "")
    probability = _fitted(table, features).predict_proba(features[rows].astype(float))
    return Probe((HEALTHY, LESION), labels[rows], probability, np.asarray(table.patients, object)[rows]).auc


def _auc_real(table: LatentTable, features: NDArray, seen: LatentTable, theirs: NDArray) -> float:
    from sklearn.metrics import roc_auc_score

    labels = np.asarray(seen.labels, object)
    known = labels != ""
    probability = _fitted(table, features).predict_proba(theirs[known].astype(float))[:, 1]
    return float(roc_auc_score(labels[known] == LESION, probability))


# --- Picture and page ------------------------------------------------------------------------------------------------


def draw(latents: LatentTable, seen: LatentTable, path: Path) -> None:
    """t-SNE of test patches of the synthetic scans, half of them with lesion where there are enough, and of the real
    scan's, each by itself."""
    figure = Figure(figsize=(11, 5), layout="constrained")
    synthetic = latents.select(np.asarray(latents.split, object) == TEST)
    for axes, (title, table) in zip(figure.subplots(1, 2), (
        ("synthetic DWI, heads and stroke masks held back", synthetic),
        ("real DWI (stroke_ads_01), lesion found by a network", seen)), strict=True):
        table = balanced(table.labelled()[0])
        points = embed(table.mean, "tsne")
        scatter(axes, points.points, table.labels, "patch")
        axes.set(title=title, xlabel=points.axes[0], ylabel=points.axes[1])
    figure.savefig(path, dpi=90)


def balanced(table: LatentTable) -> LatentTable:
    """At most _SHOWN rows, up to half of them with lesion."""
    labels, random = np.asarray(table.labels, object), np.random.default_rng(0)
    parts = [np.flatnonzero(labels == name) for name in (LESION, HEALTHY)]
    return table.select(np.concatenate([random.permutation(rows)[: _SHOWN // 2] for rows in parts]))


def page(model: LatentModel, images: ImageSet, real: ImageSet, latents: LatentTable, seen: LatentTable,
         work: Path) -> str:
    def counted(table: LatentTable, part: str) -> str:
        rows = np.asarray(table.split, object) == part
        labels = np.asarray(table.labels, object)[rows]
        return (f"{int(rows.sum())} ({int((labels == LESION).sum())} lesion, {int((labels == HEALTHY).sum())} healthy, "
                f"{len(set(np.asarray(table.patients, object)[rows]))} heads)")

    test = images.part(TEST).images
    error = float(((model.reconstruct(test) - test) ** 2).mean())
    kl = float(model.kl_per_latent(test).sum(1).mean())
    return "\n".join([
        "# DWI patches in five latents\n",
        "`python -m Testing.benchmarks.family patches`. Non-overlapping patches of 28×28 pixels of 1 mm from axial "
        "slices, at least half of each in the brain; a patch is a lesion's from 5 % of lesion, healthy with none, and "
        "unlabelled between. A VAE with five latents (`patches-vae-5`) learns them without labels. "
        f"Synthetic DWI: {SCANS} scans of MedVAE with masks of real "
        "strokes (SOOP) in label maps of real heads; heads and masks of the test part were in no training. Real DWI: "
        "one scan, whose \"lesion\" is what a network found, not the truth; evaluation only.\n",
        f"Patches: training {counted(latents, TRAIN)}; test {counted(latents, TEST)}; real {len(real)} "
        f"({sum(label == LESION for label in real.labels)} lesion, {sum(label == HEALTHY for label in real.labels)} "
        "healthy).\n",
        markdown_table(["lesion or healthy, from", "AUC, synthetic test heads", "AUC, real scan",
                        "AUC, real scan, fitted in it"], probes(images, real, latents, seen)),
        "Fitted on the labelled training patches alone, for the real scan as well; in the last column on four fifths "
        "of the real scan's slices and judged on the rest. [brackets]: 95 % bootstrap over heads, in the last column "
        "over slices. Brightness is the baseline: acute strokes are bright on DWI, and the latents were not told to "
        "keep what is bright. Patches of this size in five latents are as published; no figures of the source are "
        "known that could stand beside these.\n",
        f"On test patches: mean squared error {error:.4f}, KL {kl:.1f} nats, "
        f"{int(model.statistics.active.sum())} of 5 latents in use.\n",
        "![t-SNE of the latents](patches.png)\n", f"Trained {training_note(work / NAME)}", "",
    ])
