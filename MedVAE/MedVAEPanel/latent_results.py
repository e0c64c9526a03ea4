"""What the latent space leaves in the scene: the decoded volume that the sliders change, and generated volumes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
from slicer.i18n import tr as _

from . import results as runs
from .display import show_grey
from .results import unused

DECODED, SAMPLE = "decoded", "sample"
SCAN_REFERENCE = "MedVAE.Scan"
LATENTS = "MedVAE.Latents"
_UNIT = "0 to 1, as the model sees the scan"
_MOST_KEPT = 1024
"""Latents that a volume is made of are written onto it up to this number."""
_WINDOW = (0.0, 1.0)  # always, so that brightness can be compared while latents change


@dataclass(frozen=True)
class Result(runs.Result):
    """The nodes of one encoding, one cohort or one set of generated volumes."""

    kind = "latent."


def add_decoded(scan, name: str, reply: Mapping[str, Any], settings: Mapping[str, Any]):
    """The volume that shows what latents stand for, named after the scan, or `name` without one. Returns the node.

    Raises ValueError if it does not fit the scan any more, OSError if its file cannot be read.
    """
    array = np.load(reply["arrays"][DECODED])
    if scan is not None and array.shape != scan.GetImageData().GetDimensions()[::-1]:
        raise ValueError(_("The scan was changed meanwhile: encode it again."))
    result = Result.new()
    title = unused(f"{scan.GetName() if scan is not None else name} decoded")
    with runs.all_or_nothing(result):
        volume = _add(result, DECODED, title, array, scan, reply, settings)
        runs.mark_hanging(volume, result.run)
        if scan is not None:
            runs.put_beneath(runs.item_of(scan), volume)
    return volume


def fill(volume, latents: np.ndarray, reply: Mapping[str, Any]) -> None:
    """Shows other latents. Raises OSError if the file cannot be read, ValueError if it does not fit the volume."""
    array = np.load(reply["arrays"][DECODED], mmap_mode="r")
    image = volume.GetImageData()
    if image is None or array.shape != image.GetDimensions()[::-1]:
        raise ValueError(_("The decoded volume was changed: encode the scan again."))
    slicer.util.updateVolumeFromArray(volume, array)
    note_latents(volume, latents)


def note_latents(volume, latents: np.ndarray) -> None:
    if latents.size <= _MOST_KEPT:
        volume.SetAttribute(LATENTS, json.dumps([float(f"{value:.6g}") for value in latents]))


def add_generated(scan, reply: Mapping[str, Any], settings: Mapping[str, Any]) -> list:
    """Every volume as a node, in one folder. Raises ValueError and OSError as `add_decoded`."""
    arrays = {name: np.load(path) for name, path in reply["arrays"].items()}
    provenance = reply["provenance"]
    what = f"{provenance['bundle']} {provenance['label'] or ''}".strip()
    result, made = Result.new(), []
    with runs.all_or_nothing(result):
        title = unused(f"{what} samples, seed {provenance['seed']}")
        folder = runs.make_folder(title, result.run)
        for index in range(len(arrays)):
            name = unused(f"{what} sample {index + 1}")
            volume = _add(result, SAMPLE, name, arrays[f"sample_{index + 1}"], scan, reply, settings)
            runs.put_beneath(folder, volume)
            runs.mark_hanging(volume, result.run)
            made.append(volume)
    return made


def _add(result: Result, role: str, name: str, array: np.ndarray, scan, reply: Mapping[str, Any],
         settings: Mapping[str, Any]):
    attributes = runs.provenance_attributes(reply, settings, {"Preparation": reply["provenance"]["preparation"]})
    volume = runs.new_node("vtkMRMLScalarVolumeNode", result, role, name, {"MedVAE.Unit": _UNIT, **attributes},
                           {SCAN_REFERENCE: scan} if scan is not None else {})
    runs.fill_volume(volume, array, scan, reply.get("ijk_to_ras"))
    show_grey(volume, *_WINDOW)
    return volume
