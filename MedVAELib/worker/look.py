"""What needs no network: a look at this machine, the bundles, their import and their weights, and whether a scan can be
used."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..errors import BundleError, InputError
from .volumes import given_scan

if TYPE_CHECKING:
    from ..bundle import Bundle
    from ..scan import Scan

_PACKAGES = {"torch": "torch", "monai": "monai", "SimpleITK": "SimpleITK", "numpy": "numpy", "sklearn": "scikit-learn",
             "scipy": "scipy", "vtk": "vtk", "safetensors": "safetensors"}
"""What predicting needs: the module's name and the package's."""


def expected_time(bundle: Bundle) -> str:
    """What a click with this model takes, in words."""
    if _latents(bundle):
        return "the preparation of the scan, once; then less than a second an image"
    if bundle.predicts_skulls:
        return "about a second on a GPU, a few seconds on a CPU"
    return "a few seconds on a GPU, 5 to 30 seconds on a CPU; less for the same scan again"


def info() -> Mapping[str, Any]:
    """Versions, missing packages, and the devices with their free memory; works without torch."""
    missing = [package for module, package in _PACKAGES.items() if find_spec(module) is None]
    versions = {"medvae": __version__, "python": platform.python_version()}
    for module, package in _PACKAGES.items():
        if package not in missing:
            versions[package] = _version(module, package)
    answer: dict[str, Any] = {"versions": versions, "missing": missing, "platform": platform.platform(), "devices": [],
                              "default_device": None, "reasons": []}
    if "torch" in missing:
        return {**answer, "reasons": ["PyTorch is not installed."]}
    return {**answer, **_devices()}


def _version(module: str, package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # Slicer's own VTK and SimpleITK come without package metadata
        try:
            found = __import__(module)
        except Exception as error:
            return f"broken ({type(error).__name__})"
        own = getattr(found, "__version__", None)
        return str(own or getattr(getattr(found, "vtkVersion", None), "GetVTKVersion", lambda: "unknown")())


def _devices() -> Mapping[str, Any]:
    import torch

    from ..inference.device import cpu_threads, cuda_device_problem, cuda_problem, mps_problem, select_device

    devices: list[dict[str, Any]] = []
    if not cuda_problem():
        usable = False
        for index in range(torch.cuda.device_count()):
            # Up to the one that `select_device` takes: trying takes memory, and one that is asked for is tried then.
            problem = "" if usable else cuda_device_problem(index)
            usable = usable or not problem
            entry: dict[str, Any] = {"name": f"cuda:{index}", "label": torch.cuda.get_device_name(index),
                                     "problem": problem}
            try:
                free, total = torch.cuda.mem_get_info(index)
                entry |= {"free_gib": round(free / 2**30, 1), "total_gib": round(total / 2**30, 1)}
            except RuntimeError as error:  # a GPU whose memory is taken to the last byte
                entry["problem"] = problem or str(error).splitlines()[0][:160]
            devices.append(entry)
    if platform.system() == "Darwin" and not mps_problem():
        devices.append({"name": "mps", "label": "Apple GPU"})
    threads = cpu_threads()
    devices.append({"name": "cpu", "label": f"CPU, {threads} thread{'s' if threads > 1 else ''}"})
    choice = select_device("auto")
    return {"devices": devices, "default_device": str(choice.device), "reasons": list(choice.reasons),
            "cuda_built_for": torch.version.cuda}


def bundles() -> Mapping[str, Any]:
    """Every bundle that can be chosen by name, damaged ones with the reason."""
    from ..bundle import DEFAULT_ANOMALY_BUNDLE, bundle_paths, read_bundle, user_bundle_dir

    found = []
    for name, path in bundle_paths().items():
        entry: dict[str, Any] = {"name": name, "path": str(path), "valid": True, "problem": ""}
        try:
            bundle = read_bundle(path)
            entry |= _about(bundle)
            bundle.check_sum()
        except BundleError as error:
            entry |= {"valid": False, "problem": str(error)}
        found.append(entry)
    return {"bundles": found, "default": DEFAULT_ANOMALY_BUNDLE, "user_folder": str(user_bundle_dir())}


def import_one(source: str) -> Mapping[str, Any]:
    """Imports the bundle in a file or folder, verified, under its own name."""
    from ..bundle_import import import_bundle

    bundle = import_bundle(source)
    return {"name": bundle.name, "path": str(bundle.path)}


def verify(names: Sequence[str]) -> Mapping[str, Any]:
    """By name, what is wrong with the checksum, the format or a number of the weights of a bundle, "" if nothing is."""
    from ..bundle import load_bundle

    problems = {}
    for name in names:
        try:
            load_bundle(name).verify()
            problems[name] = ""
        except BundleError as error:
            problems[name] = str(error)
    return {"problems": problems}


def _about(bundle: Bundle) -> dict[str, Any]:
    medvae = bundle.metadata["medvae"]
    return {
        "version": bundle.version, "task": bundle.metadata["task"], "description": bundle.metadata["description"],
        "licence": bundle.metadata["copyright"], "modality": bundle.modality, "training_data": medvae["training_data"],
        "results": medvae["results"], "grid": medvae["grid"], "sha256": bundle.sha256, "model": bundle.model,
        "expected_time": expected_time(bundle), "latents": len(_latents(bundle)),
        "skull": bundle.predicts_skulls,
    }


def _latents(bundle: Bundle) -> list[float]:
    """A number per latent, if the bundle is an autoencoder of images."""
    found = bundle.metadata["medvae"].get("latents")
    return found.get("mean", []) if isinstance(found, dict) else []


def describe(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Whether the scan can be used, and what it looks like; what only the network can tell is left to the detection."""
    try:
        scan = given_scan(given)
    except InputError as error:
        return {"usable": False, "message": str(error)}
    from ..preprocessing.geometry import orientation_code

    image = scan.image
    return {
        "usable": True, "message": "", "name": scan.name, "modality": scan.modality_hint,
        "modality_reason": scan.modality_reason or "decided from the image during the detection",
        "size": list(image.GetSize()), "spacing_mm": [round(step, 4) for step in image.GetSpacing()],
        "orientation": orientation_code(image), "content": _content(scan), "warnings": list(scan.warnings),
    }


def _content(scan: Scan) -> str:
    """"stripped": no more than a brain stands on a constant background; "head" otherwise."""
    import numpy as np

    from ..preprocessing.intensity import LARGEST_BRAIN_ML, find_foreground

    foreground = find_foreground(scan.array_zyx())
    volume_ml = float(foreground.support.sum()) * float(np.prod(scan.image.GetSpacing())) / 1000
    return "stripped" if foreground.constant_background and volume_ml <= LARGEST_BRAIN_ML else "head"
