"""What was measured of models of images as rows and Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict

from ..bootstrap import CONFIDENCE
from .generative import BLUR_VOXELS, PLAUSIBLE, GenerativeScores, Reference
from .generative_features import NAME
from .tables import estimated, markdown_table

_PAIRS = ("mse", "ms_ssim", "plausible", "nearer")


def definitions(against: Reference) -> list[str]:
    """How the figures are defined, for the foot of a table."""
    scales, kernel = against.scales
    return [
        f"[brackets]: {CONFIDENCE:.0%} percentile bootstrap over held-back patients, of samples over these.",
        f"MS-SSIM: {scales} scale{'s' * (scales > 1)}, Gaussian kernel of {kernel} voxels, range 1.",
        f"FID: Fréchet distance from the {len(against.held_back)} held-back images in features of {NAME}, standardised "
        "by those images; nothing is downloaded. It compares within this table, not with distances in Inception "
        f"features. Of as many real training images it is {against.floor:.2f} (what samples of a perfect model reach; "
        "perfect reconstructions, compared with the very images they are of, reach 0); of the held-back images blurred "
        f"by {BLUR_VOXELS:g} voxel {against.blurred:.2f}. Random convolutions see brightness "
        "and texture and know no anatomy: rubble as sharp as the images may be nearer than blurred images are.",
        "Plausible: share of samples no farther from the nearest held-back image, by root mean square difference, than "
        f"{PLAUSIBLE:.0%} of as many training images are: low where samples are no such images at all, however sharp; "
        "an even grey is near to all, so look at the active latents, too.",
        "Mean training image, principal components: what any model has to beat; components of the training images, as "
        "many as a model has latents, samples from a Gaussian with their variances.",
        "Sharpness: mean absolute difference of neighbouring voxels over that of the held-back images; 1 is as sharp.",
        "KL: nats per held-back image, summed over latents. Active: latents whose mean varies by more than 0.01.",
        _copies(against),
    ]


def _copies(against: Reference) -> str:
    if not against.same_patients:
        return ("Copies: not told (–), as the held-back images are of other patients than the training images: samples "
                "lie nearer to training images than to these where a model learnt how the training patients look, "
                "whether it copies or not.")
    return ("Copies: share of samples whose nearest image of all, by root mean square difference, is a training image; "
            f"{against.chance:.2f} where nothing is copied, as so many of the images are, and 1 where everything is. "
            "Samples that hardly differ, as the mean image, all have one neighbour: of these it says nothing.")


def generative_rows(scores: Sequence[GenerativeScores]) -> list[dict[str, object]]:
    """One flat row per model."""
    rows = []
    for score in scores:
        row = asdict(score)
        for name in _PAIRS:
            row[name], row[f"{name}_low"], row[f"{name}_high"] = row[name]
        rows.append(row)
    return rows


def generative_table(scores: Sequence[GenerativeScores]) -> str:
    """Models as rows of a Markdown table."""
    header = ["model", "MSE × 1000", "MS-SSIM", "FID reconstructions", "FID samples", "sharpness reconstructions",
              "sharpness samples", "plausible samples", "KL nats", "active latents", "copies"]
    return markdown_table(header, [[
        s.name, estimated(tuple(1000 * v for v in s.mse), 2), estimated(s.ms_ssim, 3), f"{s.fid_reconstructions:.2f}",
        f"{s.fid_samples:.2f}", f"{s.sharpness_reconstructions:.2f}", f"{s.sharpness_samples:.2f}",
        estimated(s.plausible, 2), "–" if math.isnan(s.kl) else f"{s.kl:.1f}",
        f"{s.active} of {s.latents}", estimated(s.nearer, 2),
    ] for s in scores])
