"""The classical alternative: affine registration to a template, and a small VAE there."""

from __future__ import annotations

import time

import numpy as np
import SimpleITK as sitk

from MedVAELib.preprocessing.atlas import load_atlas
from MedVAELib.preprocessing.registration import AffineRecipe, register_affine

FULL = AffineRecipe((8, 4, 2, 1), (4.0, 2.0, 1.0, 0.0), min_step=1e-2)
"""Four levels down to the fixed image's own resolution with every voxel: what a classical pipeline runs."""
# The usual template grid at 1 mm. A smaller one, close around the brain, was slower: the registration then needs
# several times as many iterations.
TEMPLATE_SIZE_XYZ = (182, 218, 182)
TEMPLATE_FIRST_VOXEL_RAS_MM = (-90.5, -126.0, -72.0)
VAE_SIZE_ZYX = (40, 48, 40)


def classical_recipe(scan: sitk.Image) -> dict[str, float]:
    """Seconds of each step of the classical recipe on `scan`, on the CPU; its brain extraction is not counted.

    register: affine, Mattes mutual information, four levels down to the template's 1 mm, every voxel. resample: scan
    to the template, then to 40×48×40. vae: one pass of MONAI's VarAutoEncoder (three stride-2 levels) there; its
    weights are random, because only its time matters.
    """
    fixed = sitk.Resample(load_atlas().intensity, template_grid())
    seconds = {}
    started = time.perf_counter()
    transform = register_affine(fixed, scan, FULL)
    seconds["register"] = time.perf_counter() - started

    started = time.perf_counter()
    aligned = sitk.Resample(sitk.Cast(scan, sitk.sitkFloat32), fixed, transform, sitk.sitkLinear, 0.0)
    small = sitk.GetArrayFromImage(sitk.Resample(aligned, _vae_grid(fixed)))
    seconds["resample"] = time.perf_counter() - started
    seconds["vae"] = _vae_seconds(small)
    return seconds


def template_grid() -> sitk.Image:
    """The empty 1 mm grid that the classical recipe registers to; axes R, A, S."""
    grid = sitk.Image(TEMPLATE_SIZE_XYZ, sitk.sitkUInt8)
    grid.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    r, a, s = TEMPLATE_FIRST_VOXEL_RAS_MM
    grid.SetOrigin((-r, -a, s))
    return grid


def _vae_grid(fixed: sitk.Image) -> sitk.Image:
    size = VAE_SIZE_ZYX[::-1]
    grid = sitk.Image(size, sitk.sitkUInt8)
    grid.SetSpacing([n * s / k for n, s, k in zip(fixed.GetSize(), fixed.GetSpacing(), size, strict=True)])
    grid.SetDirection(fixed.GetDirection())
    grid.SetOrigin(fixed.GetOrigin())
    return grid


def _vae_seconds(volume_zyx: np.ndarray) -> float:
    import torch
    from monai.networks.nets import VarAutoEncoder

    torch.manual_seed(0)
    network = VarAutoEncoder(spatial_dims=3, in_shape=(1, *VAE_SIZE_ZYX), out_channels=1, latent_size=64,
                             channels=(32, 64, 128), strides=(2, 2, 2), use_mean_at_inference=True).eval()
    batch = torch.from_numpy(volume_zyx.astype(np.float32))[None, None]
    with torch.inference_mode():
        network(batch)  # the first pass pays for the library's own set-up
        started = time.perf_counter()
        network(batch)
        return time.perf_counter() - started
