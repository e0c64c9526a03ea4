"""MNIST digits 0 and 1 in two latents: they separate in the plane, without the labels ever having been used."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from sklearn.linear_model import LogisticRegression

from MedVAELib.evaluation.latent_tables import confusion, per_class
from MedVAELib.latent.classify import Classification, classify
from MedVAELib.latent.cohort import encode_images
from MedVAELib.latent.model import LatentModel, load_latent_model
from MedVAELib.latent.probe import fit_linear
from MedVAELib.latent.table import TEST, TRAIN, LatentTable
from MedVAELib.reporting.latent_pictures import scatter
from MedVAELib.training.image_pictures import grid
from Testing.benchmarks.family import HERE, images_of, preset, trained, training_note

NAME = "mnist-vae-2"
CONFIG = preset(NAME)
_ACROSS, _COLOURS = 15, 32


def main(work: Path) -> None:
    model = load_latent_model(trained(NAME, CONFIG, work))
    table = encode_images(model, images_of(CONFIG))
    found = classify(table)
    draw(model, table, HERE / "mnist.png")
    (HERE / "mnist.md").write_text(page(found, by_logistic_regression(table), work), encoding="utf-8")


def by_logistic_regression(table: LatentTable) -> float:
    """Accuracy on the held-back digits."""
    split, labels = np.asarray(table.split, object), np.asarray(table.labels, object)
    model = LogisticRegression().fit(table.mean[split == TRAIN], labels[split == TRAIN])
    return float(model.score(table.mean[split == TEST], labels[split == TEST]))


def page(found: Classification, logistic: float, work: Path) -> str:
    return "\n".join([
        "# MNIST digits 0 and 1 in two latents\n",
        "`python -m Testing.benchmarks.family mnist`. A VAE with two latents learns 0s and 1s without labels; a line "
        "in the plane of its latents tells the digits that it never saw apart. "
        "Data: the 10,000 MNIST test digits, of which 2,115 are 0 or 1, every one taken for a writer of its own.\n",
        f"| line, fitted on the training digits by | accuracy on {len(found.cases)} held-back digits |", "|---|---:|",
        f"| logistic regression | **{logistic:.4f}** |",
        f"| LDA | **{found.accuracy.value:.4f}** [{found.accuracy.low:.4f}, {found.accuracy.high:.4f}] |",
        f"| asked for | ≥ .99 |\n| always the commoner digit | {found.majority:.4f} |\n",
        "No figures of a source are known that could stand beside these.\n", "By LDA:\n",
        per_class(found), confusion(found),
        f"Trained {training_note(work / NAME)} [brackets]: 95 % bootstrap over digits.\n",
        "![Held-back digits in the plane, and what the plane decodes to](mnist.png)\n",
        "Left: held-back digits, and LDA's line. Right: the plane decoded, both latents from −2.5 to 2.5.", "",
    ])


def draw(model: LatentModel, table: LatentTable, path: Path) -> None:
    """The held-back digits with the line between them, beside the plane decoded."""
    split, labels = np.asarray(table.split, object), np.asarray(table.labels, object)
    train, test = split == TRAIN, split == TEST
    points = table.mean.astype(np.float64)
    lda = fit_linear(points[train], labels[train])[-1]
    figure = Figure(figsize=(10, 4.9), layout="constrained")
    plane, decoded = figure.subplots(1, 2)
    scatter(plane, points[test], labels[test], "digit")
    edge = np.abs(points).max() * 1.05
    along = np.array([-edge, edge])
    normal, offset = lda.coef_[0], lda.intercept_[0]
    ends = -(normal[:, None] * along + offset) / normal[::-1, None]  # the other coordinate on the line, for each axis
    steep = abs(normal[0]) > abs(normal[1])
    plane.plot(ends[1] if steep else along, along if steep else ends[0], color="black", linewidth=1)
    plane.set(xlim=(-edge, edge), ylim=(-edge, edge), xlabel="latent 0", ylabel="latent 1", aspect="equal")
    values = np.linspace(-2.5, 2.5, _ACROSS, dtype=np.float32)
    rows = [model.decode(np.stack([values, np.full_like(values, y)], 1)) for y in values[::-1]]
    decoded.imshow(grid(rows), cmap="gray", vmin=0, vmax=1)
    decoded.set(xlabel="latent 0", ylabel="latent 1", xticks=[], yticks=[])
    figure.savefig(path, dpi=100)
    with Image.open(path) as drawn:
        few = drawn.convert("RGB").quantize(_COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    few.save(path, optimize=True)  # a fifth of the size, of which the history keeps every version
