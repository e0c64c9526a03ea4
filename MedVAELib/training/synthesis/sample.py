"""The bundled sample: one synthetic FLAIR scan with its head, lesions of our own shapes, and where they are.

    python -m MedVAELib.training.synthesis.sample LABEL_MAPS OUTPUT [SEED]
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from ...files.nifti_files import write_nifti_gz
from ...preprocessing.geometry import ijk_to_ras_mm
from ..brains import load_synthesiser
from .cases import case_config, synthetic_case

HELD_BACK = "20"
"""The sample's head: a label map that the shipped detector was not trained on."""
_MIN_ML = 0.1
_SPACING_MM = 1.5


def write_sample(label_maps: Path, output: Path, seed: int = 0) -> list[dict[str, object]]:
    """Writes flair.nii.gz (int16), truth.nii.gz (labels 1…n) and truth.json; returns the latter's content.

    Lesions are blobs only, no real mask: nothing of a patient is in the sample but the deformed anatomy of one head.
    """
    config = replace(case_config("flair", healthy=False, spacing_mm=_SPACING_MM), real_masks=0.0, blobs=1.0, head=1.0)
    case = synthetic_case(load_synthesiser(label_maps, None, config, "cpu", [HELD_BACK]), seed, "auto")
    voxel_ml = _SPACING_MM**3 / 1000
    truth = sitk.RelabelComponent(sitk.ConnectedComponent(case.lesions, True), round(_MIN_ML / voxel_ml))
    labels = sitk.GetArrayFromImage(truth)
    lesions = []
    for label in range(1, int(labels.max()) + 1):
        zyx = np.argwhere(labels == label)
        centre = ijk_to_ras_mm(truth, zyx.mean(0)[::-1])
        lesions.append({
            "name": f"lesion {label}", "volume_ml": round(len(zyx) * voxel_ml, 3),
            "centroid_ras_mm": [round(float(v), 1) for v in centre],
        })
    output.mkdir(parents=True, exist_ok=True)
    write_nifti_gz(sitk.Round(case.scan.image), output / "flair.nii.gz", sitk.sitkInt16, "MedVAE synthetic FLAIR",
                   level=9)
    write_nifti_gz(truth, output / "truth.nii.gz", sitk.sitkUInt8, "MedVAE lesions of the sample", level=9)
    (output / "truth.json").write_text(json.dumps(lesions, indent=2) + "\n", encoding="utf-8")
    return lesions


if __name__ == "__main__":
    print(write_sample(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0))
