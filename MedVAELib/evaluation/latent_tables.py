"""What the latents of a cohort say, as Markdown: LDA per class, its confusion, and the confound check beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..latent.classify import Classification
from ..latent.confound import ConfoundCheck
from .tables import markdown_table

UNCHECKED = "It was not checked whether the label follows the scanner."


def classification_markdown(
    found: Classification, check: ConfoundCheck | None, notes: Sequence[str] = (), unchecked: str = UNCHECKED
) -> str:
    """unchecked: what stands in place of a confound check that there is none of."""
    parts = [f"# Linear discriminant analysis of the latents: {found.target}\n", *(f"{note}  " for note in notes), "",
             f"Fitted on {found.train_images} images of {found.train_patients} training patients; judged on "
             f"{len(found.cases)} images of {len(set(found.patients))} test patients.\n", per_class(found),
             *([f"Too few patients to judge: {', '.join(found.unjudged)}.\n"] if found.unjudged else []),
             f"Accuracy {found.accuracy}, balanced accuracy {found.balanced_accuracy}; always the commonest training "
             f"class: {found.majority:.2f}.\n", "## Confusion\n", confusion(found), "## Confound check\n"]
    parts.append(f"{unchecked}\n" if check is None else confound_markdown(check))
    return "\n".join([*parts, "[brackets]: 95 % percentile bootstrap over patients.", ""])


def prediction_rows(found: Classification) -> list[dict[str, object]]:
    """One row per test image."""
    columns = zip(found.cases, found.patients, found.true, found.predicted, strict=True)
    return [dict(zip(("case", "patient", "true", "predicted"), row, strict=True)) for row in columns]


def per_class(found: Classification) -> str:
    """Precision and recall of each class."""
    counts = found.confusion.sum(1)
    return markdown_table(["class", "precision", "recall", "test images"], [
        [name, _share(precision), _share(recall), str(count)] for name, precision, recall, count in
        zip(found.classes, found.precision, found.recall, counts, strict=True)])


def confusion(found: Classification) -> str:
    """Rows the true class, columns what was predicted."""
    return markdown_table(["true ↓, predicted →", *found.classes],
                          [[name, *map(str, row)] for name, row in zip(found.classes, found.confusion, strict=True)])


def confound_markdown(check: ConfoundCheck) -> str:
    """The sentence, and the tags beside the latents."""
    rows = [["latents (the images)", str(check.latents)], ["all tags together (no image)", str(check.tags)],
            *([f"{name} alone", str(value)] for name, value in check.each_tag.items()),
            ["chance", f"{check.chance:.2f}"]]
    return (f"**{check.sentence}**\n\n" + markdown_table([f"predicts {check.target} from", "balanced accuracy"], rows)
            + f"\n{check.images} images of {check.patients} patients, each predicted by a model of the others: the "
            "latents by LDA, the tags by a random forest.\n")


def _share(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"
