"""Knee radiographs: VAE, SVAE, VQ-VAE and IntroVAE side by side, and what their latents know of osteoarthritis.

The radiographs are for evaluation only: neither weights nor pictures of them are kept, generated pictures alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import spearmanr

from MedVAELib.evaluation.generative import GenerativeScores, Reference, evaluate_model, reference
from MedVAELib.evaluation.generative_baselines import PrincipalComponents, baseline_scores
from MedVAELib.evaluation.generative_tables import definitions, generative_table
from MedVAELib.evaluation.tables import markdown_table
from MedVAELib.latent.classify import classify
from MedVAELib.latent.cohort import encode_images
from MedVAELib.latent.model import LatentModel, load_latent_model
from MedVAELib.latent.probe import Estimate, Probe, fit_linear
from MedVAELib.latent.table import TEST, TRAIN, LatentTable
from MedVAELib.latent.traverse import spread, traverse
from MedVAELib.reporting.latent_pictures import write_strips
from MedVAELib.training.image_sets import ImageSet
from Testing.benchmarks.family import HERE, NO_MODEL, images_of, pixels, preset, trained, training_note

CONFIGS = {"VAE-50": preset("xray-vae-50"), "SVAE": preset("xray-svae"), "VQ-VAE": preset("xray-vqvae"),
           "IntroVAE-50": preset("xray-introvae-50")}
GRADES = ("kl0", "kl1", "kl2", "kl3", "kl4")
_OSTEOARTHRITIS = ("kl2", "kl3", "kl4")
_STEPS, _EXTENT, _SHOWN, _DPI = 7, 2.5, 10, 60


def main(work: Path) -> None:
    images = images_of(CONFIGS["VAE-50"])
    train, test = images.part(TRAIN), images.part(TEST)
    against = reference(train.images, test.images, patients=test.patients, train_patients=train.patients)
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
    fifty = PrincipalComponents.of(train.images, scores[0].latents)
    axes += component_axes(fifty, images)
    write_strips(samples, HERE / "knee_samples.png", dpi=_DPI)
    draw_axes(axes, HERE / "knee_axes.png")
    gaps = np.array([joint_gap_px(image[0]) for image in test.images])
    seen = np.isfinite(gaps)
    valid = spearmanr(gaps[seen], np.array([GRADES.index(grade) for grade in test.labels])[seen])
    (HERE / "knee.md").write_text(page(images, scores, against, probes, axes, valid, seen, work), encoding="utf-8")


# --- The joint space -------------------------------------------------------------------------------------------------


def joint_gap_px(image_yx: NDArray) -> float:
    """Height of the dark gap between femur and tibia in pixels: full width at half depth of the deepest local minimum
    between rows .35 and .65 of the mean profile of each compartment, mean of the two; NaN where one has none."""
    height, width = image_yx.shape
    gaps = []
    for low, high in ((0.25, 0.42), (0.58, 0.75)):
        profile = ndimage.gaussian_filter1d(image_yx[:, int(low * width):int(high * width)].mean(1), 1.0)
        start, stop = int(0.35 * height), int(0.65 * height)
        inside, before, after = (profile[start + step:stop + step] for step in (0, -1, 1))
        minima = start + np.flatnonzero((inside <= before) & (inside < after))
        if not len(minima):
            return float("nan")
        valley = int(minima[profile[minima].argmin()])
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
    """The two latents of a model that change the joint space most from −2.5 to +2.5 standard deviations, of those along
    which it widens or narrows all the way."""
    moments = model.statistics.all

    def along(index: int) -> NDArray:
        values = spread(float(moments.mean[index]), float(moments.std[index]), _STEPS, _EXTENT)
        return traverse(model, moments.mean, index, values)

    return _steadiest(name, along, table.mean[:, model.statistics.active], np.flatnonzero(model.statistics.active),
                      table.labels)


def component_axes(components: PrincipalComponents, images: ImageSet) -> list[dict]:
    """The same of principal components, without a picture, which would be made of the radiographs."""
    places = spread(0.0, 1.0, _STEPS, _EXTENT)

    def along(index: int) -> NDArray:
        latents = np.zeros((_STEPS, len(components.axes)))
        latents[:, index] = places * np.sqrt(components.variances[index])
        return components.decode(latents)

    latents = components.encode(images.images)[0]
    axes = _steadiest(components.name, along, latents, range(latents.shape[1]), images.labels)
    return [axis | {"images": None} for axis in axes]


def _steadiest(name: str, along: Callable[[int], NDArray], latents: NDArray, numbers: Sequence[int],
               labels: Sequence[str]) -> list[dict]:
    """latents: (N, M) of real images, numbers: (M,) of those latents; along gives the images of a traversal."""
    grade, found = np.array([GRADES.index(label) for label in labels]), []
    for column, index in enumerate(numbers):
        images = along(int(index))
        gaps = np.array([joint_gap_px(image[0]) for image in images])
        if (np.diff(gaps) >= 0).all() or (np.diff(gaps) <= 0).all():  # neither where a gap is not a number
            found.append({"model": name, "latent": int(index), "images": images, "gaps": gaps,
                          "grade": float(spearmanr(latents[:, column], grade)[0])})
    ranked = sorted(found, key=lambda axis: -abs(axis["gaps"][-1] - axis["gaps"][0]))
    return [axis | {"steady": f"{len(found)} of {len(numbers)}"} for axis in ranked[:2]]


def draw_axes(axes: list[dict], path: Path) -> None:
    axes = [axis for axis in axes if axis["images"] is not None]
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
    return Probe(("no", "yes"), ill[test], model.predict_proba(table.mean[test].astype(float)), patients[test]).auc


# --- The page --------------------------------------------------------------------------------------------------------


def page(images: ImageSet, scores: list[GenerativeScores], against: Reference, probes: list[list[str]],
         axes: list[dict], valid, seen: NDArray, work: Path) -> str:
    train, test = (f"{len(part)} of {len(set(part.patients))}" for part in map(images.part, (TRAIN, TEST)))
    sharp = max(scores, key=lambda s: s.sharpness_reconstructions)
    close, best = max(scores, key=lambda s: s.ms_ssim[0]), min(scores, key=lambda s: s.fid_samples)
    header = ["model", "latent", "gap at −2.5 SD, px", "gap at +2.5 SD, px", "rank correlation with grade",
              "latents along which the gap changes steadily"]
    moves = markdown_table(header, [[a["model"], str(a["latent"]), f"{a['gaps'][0]:.1f}", f"{a['gaps'][-1]:.1f}",
                                     f"{a['grade']:+.2f}", a["steady"]] for a in axes])
    everything = [*scores, *baseline_scores(against, scores)]
    return "\n".join([
        "# Knee radiographs: four models side by side\n",
        "`python -m Testing.benchmarks.family knee`. Radiographs of 224×224 pixels with Kellgren-Lawrence grades 0–4, "
        f"{train} patients to train on, {test} others held back. The presets xray-*. "
        "The radiographs are for evaluation only: neither the weights nor pictures "
        "of them are kept here; every picture below was generated.\n",
        generative_table(everything),
        "Published ordering: VQ-VAE reconstructs most sharply, IntroVAE has the best samples. Here, of the four "
        f"models: {_verdict('the sharpest reconstructions', sharp.name, 'VQ-VAE')}, "
        f"{_verdict('the reconstructions nearest by MS-SSIM', close.name, 'VQ-VAE')}, "
        f"{_verdict('the best samples by FID', best.name, 'IntroVAE-50')}. Of all rows, the reconstructions nearest by "
        f"MSE are those of {min(everything, key=lambda s: s.mse[0]).name}, the sharpest those of "
        f"{max(everything, key=lambda s: s.sharpness_reconstructions).name}, the best samples by FID those of "
        f"{min(everything, key=lambda s: s.fid_samples).name}.\n",
        "![Samples of the four models](knee_samples.png)\n",
        "## Grade from the latents\n",
        markdown_table(["model", "balanced accuracy, 5 grades", "mean error in grades", "AUC, grade 2 or more"],
                       probes),
        "LDA fitted on the training knees, judged on the held-back ones; chance .20 and .50; without a model, of the "
        "images' principal components. [brackets]: 95 % "
        "bootstrap over patients.\n",
        "## Latents that move the joint space\n", moves,
        "The gap between femur and tibia is measured on the decoded images as the width at half depth of the dark "
        "band; of the latents along which it widens or narrows all the way, the two that change it most. In "
        f"{seen.sum()} of the {len(seen)} real held-back knees there is such a band, and its rank correlation with the "
        f"grade is {valid[0]:+.2f} (p = {valid[1]:.1g}). All other latents stay at their mean.\n",
        "![Latents that move the joint space](knee_axes.png)\n", "## Trainings\n",
        *(f"- {name}: {training_note(work / f'knee-{name}')}" for name in CONFIGS), "", "## Definitions\n",
        *(f"- {line}" for line in definitions(against)), "",
    ])


def _verdict(what: str, found: str, published: str) -> str:
    return f"{what} are those of {found} ({'confirmed' if found == published else 'not confirmed'})"
