"""Knee radiographs: VAE, SVAE, VQ-VAE and IntroVAE side by side, and what their latents know of osteoarthritis.

The radiographs are for evaluation only: neither weights nor pictures of them are kept, generated pictures alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import spearmanr

from MedVAELib.evaluation.generative import GenerativeScores, Reference, evaluate_model, reference
from MedVAELib.evaluation.generative_baselines import baseline_scores
from MedVAELib.evaluation.generative_tables import definitions, generative_table
from MedVAELib.evaluation.tables import markdown_table
from MedVAELib.latent.classify import classify
from MedVAELib.latent.cohort import encode_images
from MedVAELib.latent.model import LatentModel, load_latent_model
from MedVAELib.latent.probe import Estimate, Probe, fit_linear
from MedVAELib.latent.table import TEST, TRAIN, LatentTable
from MedVAELib.latent.traverse import spread, traverse
from MedVAELib.reporting.latent_pictures import write_strips
from Testing.benchmarks.family import HERE, NO_MODEL, images_of, pixels, preset, trained, training_note

CONFIGS = {"VAE-50": preset("xray-vae-50"), "SVAE": preset("xray-svae"), "VQ-VAE": preset("xray-vqvae"),
           "IntroVAE-50": preset("xray-introvae-50")}  # fmt: skip
GRADES = ("kl0", "kl1", "kl2", "kl3", "kl4")
_OSTEOARTHRITIS = ("kl2", "kl3", "kl4")
_STEPS, _EXTENT, _SHOWN, _DPI = 7, 2.5, 10, 60


def main(work: Path) -> None:
    images = images_of(CONFIGS["VAE-50"])
    train, test = images.part(TRAIN), images.part(TEST)
    against = reference(train.images, test.images, patients=test.patients)
    scores, probes, axes, samples = [], [], [], {}
    probes.append(probe_row(NO_MODEL, pixels(images)))
    for name, config in CONFIGS.items():
        model = load_latent_model(trained(f"knee-{name}", config, work))
        score, made = evaluate_model(name, model, against)
        scores.append(score)
        samples[name] = made.samples[:_SHOWN]
        table = encode_images(model, images)
        probes.append(probe_row(name, table))
        if len(model.latent_shape) == 1:
            axes += joint_axes(name, model, table)
    write_strips(samples, HERE / "knee_samples.png", dpi=_DPI)
    draw_axes(axes, HERE / "knee_axes.png")
    valid = spearmanr([joint_gap_px(image[0]) for image in test.images], [GRADES.index(g) for g in test.labels])
    (HERE / "knee.md").write_text(page(scores, against, probes, axes, valid, work), encoding="utf-8")


# --- The joint space -------------------------------------------------------------------------------------------------


def joint_gap_px(image_yx: NDArray) -> float:
    """Height of the dark gap between femur and tibia in pixels: full width at half depth of the minimum between rows
    .35 and .65 of the mean profile of each compartment, mean of the two; 0 where nothing darkens."""
    height, width = image_yx.shape
    gaps = []
    for low, high in ((0.25, 0.42), (0.58, 0.75)):
        profile = ndimage.gaussian_filter1d(image_yx[:, int(low * width):int(high * width)].mean(1), 1.0)
        start, stop = int(0.35 * height), int(0.65 * height)
        valley = start + int(profile[start:stop].argmin())
        above, below = profile[max(0, valley - 25):valley + 1].max(), profile[valley:valley + 26].max()
        level = (profile[valley] + min(above, below)) / 2
        top, bottom = valley, valley
        while top > 0 and profile[top] < level:
            top -= 1
        while bottom < height - 1 and profile[bottom] < level:
            bottom += 1
        gaps.append(max(0, bottom - top - 1))
    return float(np.mean(gaps))


def joint_axes(name: str, model: LatentModel, table: LatentTable) -> list[dict]:
    """The latents of a model that widen the joint space most between −2 and +2 standard deviations, first two."""
    moments, found = model.statistics.all, []
    grade = np.array([GRADES.index(label) for label in table.labels])
    for index in np.flatnonzero(model.statistics.active):
        values = spread(float(moments.mean[index]), float(moments.std[index]), _STEPS, _EXTENT)
        images = traverse(model, moments.mean, int(index), values)
        gaps = np.array([joint_gap_px(image[0]) for image in images])
        found.append({"model": name, "latent": int(index), "images": images, "gaps": gaps,
                      "grade": float(spearmanr(table.mean[:, index], grade)[0])})  # fmt: skip
    return sorted(found, key=lambda axis: -abs(axis["gaps"][-1] - axis["gaps"][0]))[:2]


def draw_axes(axes: list[dict], path: Path) -> None:
    titles = [f"{place:+.1f} SD" for place in spread(0.0, 1.0, _STEPS, _EXTENT)]
    write_strips({f"{a['model']}\nlatent {a['latent']}": a["images"] for a in axes}, path, titles, dpi=_DPI)


# --- Grades ----------------------------------------------------------------------------------------------------------


def probe_row(name: str, table: LatentTable) -> list[str]:
    """Kellgren-Lawrence grade from the latents by LDA, fitted on the training knees, judged on the test knees."""
    found = classify(table)
    distance = np.abs([GRADES.index(a) - GRADES.index(b) for a, b in zip(found.true, found.predicted, strict=True)])
    return [name, str(found.balanced_accuracy), f"{distance.mean():.2f}", str(osteoarthritis_auc(table))]


def osteoarthritis_auc(table: LatentTable) -> Estimate:
    """Area under the curve for grade 2 or more."""
    split, patients = np.asarray(table.split, object), np.asarray(table.patients, object)
    ill = np.array(["yes" if label in _OSTEOARTHRITIS else "no" for label in table.labels], object)
    train, test = split == TRAIN, split == TEST
    model = fit_linear(table.mean[train], ill[train])
    return Probe(("no", "yes"), ill[test], model.predict_proba(table.mean[test].astype(float)), patients[test], 1).auc


# --- The page --------------------------------------------------------------------------------------------------------


def page(scores: list[GenerativeScores], against: Reference, probes: list[list[str]], axes: list[dict], valid,
         work: Path) -> str:  # fmt: skip
    sharp = max(scores, key=lambda s: s.sharpness_reconstructions)
    close, best = max(scores, key=lambda s: s.ms_ssim[0]), min(scores, key=lambda s: s.fid_samples)
    header = ["model", "latent", "gap at −2.5 SD, px", "gap at +2.5 SD, px", "rank correlation with grade"]
    moves = markdown_table(header, [[a["model"], str(a["latent"]), f"{a['gaps'][0]:.1f}", f"{a['gaps'][-1]:.1f}",
                                     f"{a['grade']:+.2f}"] for a in axes])  # fmt: skip
    return "\n".join([
        "# Knee radiographs: four models side by side\n",
        "`python -m Testing.benchmarks.family knee`. Radiographs of 224×224 pixels with Kellgren-Lawrence grades 0–4, "
        f"{len(against.train)} to train on, {len(against.held_back)} held back, of other patients. The presets xray-*. "
        "The radiographs are for evaluation only: neither the weights nor pictures "
        "of them are kept here; every picture below was generated.\n",
        generative_table([*scores, *baseline_scores(against, scores)]),
        "Published ordering: VQ-VAE reconstructs most sharply, IntroVAE has the best samples. Here: "
        f"{_verdict('the sharpest reconstructions', sharp.name, 'VQ-VAE')}, "
        f"{_verdict('the reconstructions nearest by MS-SSIM', close.name, 'VQ-VAE')}, "
        f"{_verdict('the best samples by FID', best.name, 'IntroVAE-50')}.\n",
        "![Samples of the four models](knee_samples.png)\n",
        "## Grade from the latents\n",
        markdown_table(["model", "balanced accuracy, 5 grades", "mean error in grades", "AUC, grade 2 or more"],
                       probes),
        "LDA fitted on the training knees, judged on the held-back ones; chance .20 and .50; without a model, of the "
        "images' principal components. [brackets]: 95 % "
        "bootstrap over patients.\n",
        "## Latents that move the joint space\n", moves,
        "The gap between femur and tibia is measured on the decoded images as the width at half depth of the dark "
        f"band. On the real held-back knees its rank correlation with the grade is {valid[0]:+.2f} "
        f"(p = {valid[1]:.1g}). All other latents stay at their mean.\n",
        "![Latents that move the joint space](knee_axes.png)\n", "## Trainings\n",
        *(f"- {name}: {training_note(work / f'knee-{name}')}" for name in CONFIGS), "", "## Definitions\n",
        *(f"- {line}" for line in definitions(against)), "",
    ])  # fmt: skip


def _verdict(what: str, found: str, published: str) -> str:
    return f"{what} are those of {found} ({'confirmed' if found == published else 'not confirmed'})"
