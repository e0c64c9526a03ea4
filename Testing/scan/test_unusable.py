"""Every kind of unusable input gets one sentence."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from MedVAELib.errors import InputError, MedVAEError, UsageError
from MedVAELib.scan import Scan
from Testing.scan.scan_files import (
    changed,
    from_array,
    small_head,
    written,
)
from Testing.scan.unusable import BAD


def check_message(error: MedVAEError, named: str) -> None:
    """One sentence that names the file and says what to do."""
    text = str(error)
    assert named in text
    assert "\n" not in text and text.endswith(".")
    assert not re.search(r"[.!?] +[A-Z]", text.replace(named, ""))
    assert ": " in text.replace(named, "") or "," in text.replace(named, "")


@pytest.mark.parametrize("case", BAD)
def test_unusable_input_gets_one_sentence(case: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    build, expected, error = BAD[case]
    path = build(tmp_path)
    capfd.readouterr()
    with pytest.raises(MedVAEError) as caught:
        Scan.read(path)
    assert type(caught.value) is error
    assert caught.value.exit_code == (2 if error is UsageError else 3)
    assert expected in str(caught.value)
    check_message(caught.value, str(path))
    assert capfd.readouterr().err == ""  # the reader's own noise would be a second message


def test_at_least_thirty_kinds_of_unusable_input() -> None:
    assert len(BAD) >= 30


@pytest.mark.parametrize(("options", "expected"), [({"modality": "t1"}, "modality 't1'"),
                                                   ({"series": "flair"}, "no DICOM folder")])
def test_wrong_options_for_a_file(options: dict[str, str], expected: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=expected):
        Scan.read(written(small_head(), tmp_path / "scan.nii"), **options)


@pytest.mark.parametrize(("series", "expected"), [("swi", "no DICOM series 'swi'"), ("t", "that 't' can mean"),
                                                  (7, "no DICOM series '7'")])
def test_series_that_chooses_none_or_several(series: str | int, expected: str, tmp_path: Path) -> None:
    path = BAD["dicom_folder_with_two_series"][0](tmp_path)
    with pytest.raises(UsageError, match=expected) as caught:
        Scan.read(path, series=series)
    check_message(caught.value, str(path))
    assert "t1_mprage (12 slices)" in str(caught.value)


@pytest.mark.parametrize(("image", "expected"), [
    (changed(lambda a: a.fill(1)), "constant"),
    (small_head()[:, :, 0], "two-dimensional"),
    (from_array(np.zeros((20, 44, 40, 3), np.float32), vector=True), "vectors"),
    (small_head(spacing_mm=(5, 5, 100)), "voxel size"),
])
def test_images_in_memory_are_validated_too(image: sitk.Image, expected: str) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        Scan.from_image(image, name="volume 3")
    check_message(caught.value, "volume 3")
