"""Requests of the worker and their answers."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import SimpleITK as sitk

VOLUMES = ("anomaly", "residual", "reconstruction", "std", "mask", "brain", "components")
FAST = {"samples": 2, "device": "cpu"}
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals between processes are POSIX")


def request(number, scan, output, **settings):
    return {"id": number, "task": "detect", "scan": scan, "output": str(output), **FAST, **settings}


def loaded(answer):
    return {name: np.load(path) for name, path in answer["arrays"].items()}


def as_arrays(detection):
    return {name: sitk.GetArrayFromImage(getattr(detection, name)) for name in VOLUMES}


def same(first, second):
    return all(first[n].dtype == second[n].dtype and first[n].tobytes() == second[n].tobytes() for n in VOLUMES)
