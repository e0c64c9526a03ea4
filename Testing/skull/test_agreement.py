"""Which sentence the misfits of the planes lead to; other readings of them cost nothing here."""

from __future__ import annotations

import pytest
import torch

from MedVAELib.errors import Cancelled, DeviceMemoryError
from MedVAELib.skull.agreement import agreement_warnings, other_readings
from MedVAELib.standard_planes import PLANES

OUTLINES = {plane: (torch.full((4, 6), float(index)), 0.3) for index, plane in enumerate(PLANES)}


def said(misfits, tried, outlines=OUTLINES) -> list[str]:
    """tried: misfit of each other reading, in words; of all others as large as that of the planes as named."""
    def misfits_of(reading):
        words = next(words for words, known in other_readings(outlines) if same(known, reading))
        return dict.fromkeys(reading, tried.get(words, max(misfits.values())))

    return agreement_warnings(outlines, misfits, misfits_of)


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name][0], other[name][0]) for name in one)


def test_planes_that_fit_cost_no_other_reading():
    def never(_):
        raise AssertionError

    assert not agreement_warnings(OUTLINES, dict.fromkeys(PLANES, 0.07), never)


def test_a_reading_that_fits_much_better_is_named():
    (sentence,) = said({"axial": 0.11, "sagittal": 0.09, "coronal": 0.05}, {"axial and sagittal were exchanged": 0.04})
    assert "better if axial and sagittal were exchanged" in sentence and "4%" in sentence and "11%" in sentence
    assert not said(dict.fromkeys(PLANES, 0.11), {"axial and sagittal were exchanged": 0.09})


def test_a_reading_that_fits_less_badly_is_not():
    """As of a plane whose pixels are half as large: every other reading is better, and none is right."""
    (sentence,) = said({"axial": 0.2, "sagittal": 3.1, "coronal": 0.4}, {"axial and sagittal were exchanged": 0.7})
    assert "exchanged" not in sentence and "pixel sizes" in sentence


def test_what_is_not_there_is_not_spoken_of():
    two = {name: OUTLINES[name] for name in ("axial", "sagittal")}
    assert [words for words, _ in other_readings(two)] == [
        "axial and sagittal were exchanged", "the axial one were coronal", "the sagittal one were coronal"]
    (sentence,) = said({"axial": 0.2, "sagittal": 0.2}, {}, two)
    assert "upright" not in sentence
    (sentence,) = said({"axial": 0.2}, {}, {"axial": OUTLINES["axial"]})
    assert "whole head" in sentence and "planes" not in sentence


@pytest.mark.parametrize("error, passed", [(DeviceMemoryError, False), (Cancelled, True)])
def test_a_prediction_outlives_a_full_memory(error, passed):
    def fails(_):
        raise error("no more")

    if passed:
        with pytest.raises(error):
            agreement_warnings(OUTLINES, dict.fromkeys(PLANES, 0.2), fails)
    else:
        assert len(agreement_warnings(OUTLINES, dict.fromkeys(PLANES, 0.2), fails)) == 1
