"""Draws the module's icon (a brain in outline, and within it the latent space: points that thin out from a centre,
one of them off) and the sample's thumbnail.

    python -m Testing.draw_icons    writes MedVAE/Resources/Icons/*.png
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
ICONS = ROOT / "MedVAE" / "Resources" / "Icons"
THUMBNAIL = (260, 280)
SIZE, FINE = 128, 8
"""Drawn `FINE` times larger and averaged, for smooth edges."""
OUTLINE, INNER = (38, 70, 120), (232, 240, 250)
SPREAD = ((47, 111, 181), (79, 148, 205), (141, 190, 226))
ANOMALY = (214, 66, 50)


def draw_icon() -> None:
    from PIL import Image, ImageDraw

    side = SIZE * FINE
    picture = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    draw = ImageDraw.Draw(picture)
    outline = brain_outline()
    for scale, colour in ((1.0, OUTLINE), (0.86, INNER)):
        draw.polygon([tuple(point) for point in ((outline - 0.5) * scale + 0.5) * side], fill=colour)
    for top, bottom in ((0.09, 0.22), (0.78, 0.91)):
        draw.rectangle([0.475 * side, top * side, 0.525 * side, bottom * side], fill=OUTLINE)
    for x, y, radius, colour in dots():
        box = [(x - radius) * side, (y - radius) * side, (x + radius) * side, (y + radius) * side]
        draw.ellipse(box, fill=colour)
    picture.resize((SIZE, SIZE), Image.Resampling.BOX).save(ICONS / "MedVAE.png", optimize=True)


def draw_thumbnail() -> None:
    """The axial slice of the sample through its second lesion, of the size that the Sample Data module wants."""
    import SimpleITK as sitk
    from PIL import Image

    folder = ROOT / "Resources" / "sample"
    image = sitk.DICOMOrient(sitk.ReadImage(str(folder / "flair.nii.gz")), "LPS")
    truth = sitk.DICOMOrient(sitk.ReadImage(str(folder / "truth.nii.gz")), "LPS")
    where = np.argwhere(sitk.GetArrayViewFromImage(truth) == 2)
    values = sitk.GetArrayFromImage(image)[round(where[:, 0].mean())].astype(float)
    grey = np.clip(values / np.percentile(values, 99.5), 0, 1)
    rows, columns = np.flatnonzero((grey > 0.1).mean(axis=1) > 0.05), np.flatnonzero((grey > 0.1).mean(axis=0) > 0.05)
    head = Image.fromarray((255 * grey[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1]).astype(np.uint8))
    scale = min((THUMBNAIL[0] - 12) / head.width, (THUMBNAIL[1] - 12) / head.height)
    head = head.resize((round(head.width * scale), round(head.height * scale)), Image.Resampling.BICUBIC)
    picture = Image.new("L", THUMBNAIL, 0)
    picture.paste(head, ((THUMBNAIL[0] - head.width) // 2, (THUMBNAIL[1] - head.height) // 2))
    picture.save(ICONS / "MedVAESample.png", optimize=True)


def brain_outline() -> np.ndarray:
    """(n, 2) points in 0…1: a head-on oval with shallow folds, narrowing to the front."""
    angle = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    folds = 1 + 0.022 * np.cos(14 * angle) * np.abs(np.sin(angle)) ** 0.5
    cleft = 1 - 0.07 * (np.exp(-((angle - np.pi / 2) / 0.10) ** 2) + np.exp(-((angle - 3 * np.pi / 2) / 0.10) ** 2))
    width = 0.385 * (1 - 0.07 * np.sin(angle))
    return np.column_stack([0.5 + width * np.cos(angle) * folds, 0.5 - 0.445 * np.sin(angle) * folds * cleft])


def dots() -> list[tuple[float, float, float, tuple[int, int, int]]]:
    """x, y, radius and colour: two rings about the centre, and one point off them, the anomaly."""
    found = [(0.5, 0.52, 0.075, SPREAD[0])]
    for ring, (count, distance, radius) in enumerate(((6, 0.155, 0.042), (8, 0.262, 0.030)), start=1):
        for turn in np.arange(count) / count * 2 * np.pi + np.pi * ring / 16:
            x, y = 0.5 + distance * np.cos(turn), 0.52 - 1.08 * distance * np.sin(turn)
            found.append((x, y, radius, SPREAD[ring]))
    away = max(found[7:], key=lambda dot: dot[0] - dot[1])
    found.remove(away)
    return [*found, (away[0] - 0.005, away[1] + 0.01, 0.052, ANOMALY)]


if __name__ == "__main__":
    ICONS.mkdir(parents=True, exist_ok=True)
    draw_icon()
    draw_thumbnail()
