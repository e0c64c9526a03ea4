"""The bundled sample planes: three simulated pictures of one head that the shipped models were not trained on.

    python -m MedVAELib.skull.sample HEAD_ATLASES OUTPUT [SEED]
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ..files.itk_files import itk_name
from ..standard_planes import PLANES
from ..training.synthesis.heads import HeadPopulation, read_head_shapes
from ..training.synthesis.planes import draw_pose
from ..training.synthesis.random import Draw
from ..training.synthesis.ultrasound import simulate_bmode
from .biometry import measure_heads

HELD_BACK = ("Chinese24_Study1", "Chinese29_Study1", "Chinese33_Study1")
"""The sample's atlases: of the test part in fetal-skull.yaml."""
_SIZE_PX, _PIXEL_MM = (420, 560), 0.28
_TURN_DEG = {"axial": 80.0, "sagittal": 180.0, "coronal": 180.0}  # long axis across; the top towards the transducer
_MISPLACEMENT = 0.5


def write_skull_sample(atlases: Path, output: Path, seed: int = 4) -> dict[str, object]:
    """Writes axial.png, sagittal.png, coronal.png (8 bit) and truth.json; returns the latter's content."""
    head = HeadPopulation(read_head_shapes(atlases, HELD_BACK))(seed, "typical")
    output.mkdir(parents=True, exist_ok=True)
    for index, plane in enumerate(PLANES):
        draw = Draw(1000 * seed + index)
        pose = replace(draw_pose(draw, plane, head, _MISPLACEMENT), turn_deg=_TURN_DEG[plane])
        picture, _ = simulate_bmode(draw, head, pose, _SIZE_PX, _PIXEL_MM)
        grey = (picture.numpy() * 255).round().astype(np.uint8)
        sitk.WriteImage(sitk.GetImageFromArray(grey), itk_name(output / f"{plane}.png"))
    measures = measure_heads(head.sdf[None] / head.spacing_mm, head.spacing_mm)
    truth = {
        "spacing_mm": _PIXEL_MM, "ga_weeks": round(head.ga_weeks, 1), "kind": head.kind,
        "measures": {name: round(float(value), 2) for name, value in measures.items()},
    }
    (output / "truth.json").write_text(json.dumps(truth, indent=2) + "\n", encoding="utf-8")
    return truth


if __name__ == "__main__":
    print(write_skull_sample(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 4))
