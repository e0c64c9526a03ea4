"""A disk that is full: what ITK passes over in silence is an error, and nothing half-written takes a file's place."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from MedVAELib.cohort.prepare import PrepareCase, PrepareSettings
from MedVAELib.errors import Cancelled, UsageError
from MedVAELib.files.nifti_files import write_nifti_gz
from MedVAELib.files.whole_files import replaced, writing_to
from MedVAELib.preprocessing import atlas
from MedVAELib.progress import CancelToken
from MedVAELib.scan import Scan
from MedVAELib.skull import held_back, train_outline
from MedVAELib.training import image_pictures, pictures
from MedVAELib.training.synthesis import cases, cohort_files

LIMIT = 100_000


def noise(shape=(40, 48, 40)) -> sitk.Image:
    image = sitk.GetImageFromArray(np.random.default_rng(0).random(shape, np.float32))
    image.SetSpacing((4, 4, 4))
    return image


@pytest.fixture
def small_disk():
    """No file may be larger than 100 kB, which writing meets as it meets a full disk."""
    resource = pytest.importorskip("resource", reason="limits are POSIX")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_itk_alone_says_nothing(small_disk, tmp_path):
    """As long as this holds, the check is needed."""
    sitk.WriteImage(noise(), str(tmp_path / "a.nii.gz"), True, 1)
    assert (tmp_path / "a.nii.gz").stat().st_size <= LIMIT


@pytest.mark.parametrize("level", [1, 9])
def test_a_whole_file_is_a_whole_file(tmp_path, level):
    write_nifti_gz(noise(), tmp_path / "a.nii.gz", sitk.sitkFloat32, "some", level=level)
    read = sitk.ReadImage(str(tmp_path / "a.nii.gz"))
    assert np.array_equal(sitk.GetArrayFromImage(read), sitk.GetArrayFromImage(noise()))
    assert read.GetMetaData("descrip") == "some" and [path.name for path in tmp_path.iterdir()] == ["a.nii.gz"]


def test_a_full_disk_leaves_the_file_that_was_there(small_disk, tmp_path):
    (tmp_path / "a.nii.gz").write_text("before")
    with pytest.raises(OSError):
        write_nifti_gz(noise(), tmp_path / "a.nii.gz", sitk.sitkFloat32, "some")
    assert [path.name for path in tmp_path.iterdir()] == ["a.nii.gz"]
    assert (tmp_path / "a.nii.gz").read_text() == "before"


def test_a_compressed_file_that_does_not_fit_is_no_file(small_disk, tmp_path):
    """The plain one is whole, and the packed one is larger, as for noise."""
    bytes_ = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 255, LIMIT - 352, np.uint8)[None, None])
    with pytest.raises(OSError):
        write_nifti_gz(bytes_, tmp_path / "a.nii.gz", sitk.sitkUInt8, "some")
    assert not list(tmp_path.iterdir())


def test_a_cohort_is_not_done_with_a_truncated_image(small_disk, tmp_path):
    with pytest.raises(UsageError, match="cannot be written"), writing_to(tmp_path):
        cohort_files._write_volume(sitk.GetArrayFromImage(noise()), 4.0, tmp_path / "a.nii.gz")
    assert not list(tmp_path.iterdir())


def test_preparing_a_scan_fails_on_a_full_disk(small_disk, tmp_path, monkeypatch):
    class Made:
        def in_mni(self) -> sitk.Image:
            return noise()

    scan = Scan.from_image(noise(), name="a")
    monkeypatch.setattr("MedVAELib.cohort.prepare.Scan.read", lambda *_, **__: scan)
    monkeypatch.setattr("MedVAELib.cohort.prepare.prepare_published", lambda *_: Made())
    monkeypatch.setattr(PrepareSettings, "request", lambda *_: {})
    case = PrepareCase("a", tmp_path / "a.nii.gz", "a")
    with pytest.raises(UsageError, match="cannot be written"):
        PrepareSettings("mni-4mm").run(case, tmp_path / "out", None, lambda *_: None, lambda *_: None, CancelToken())
    assert not (tmp_path / "out").exists()


def test_a_synthetic_case_is_no_case_before_it_is_whole(small_disk, tmp_path):
    """Its scan comes last; without it the folder is passed over."""
    small = sitk.Image([4, 4, 4], sitk.sitkUInt8)
    case = cases.SyntheticCase(Scan.from_image(noise(), "flair", "a"), small, small)
    with pytest.raises(OSError):
        cases._write_case(case, tmp_path / "lesions", "flair", False, CancelToken())
    assert {path.name for path in (tmp_path / "lesions").iterdir()} == {"brainmask.nii.gz", "mask.nii.gz"}


def test_the_atlas_is_not_half_written(small_disk, tmp_path, monkeypatch):
    head = sitk.Image([8, 8, 8], sitk.sitkFloat32)
    monkeypatch.setattr(atlas, "head_of_labels", lambda labels: (head, head))
    monkeypatch.setattr(atlas, "register_affine", lambda *_: sitk.AffineTransform(3))
    monkeypatch.setattr(atlas, "_symmetric_mean", lambda *_: noise((100, 100, 100)) * 255)
    (tmp_path / "maps").mkdir()
    sitk.WriteImage(sitk.Cast(head, sitk.sitkInt16), str(tmp_path / "maps" / "a.nii"))
    with pytest.raises(OSError):
        atlas.build_atlas(tmp_path / "maps", tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    (tmp_path / "a").write_text("old")
    with pytest.raises(RuntimeError), replaced(tmp_path / "a") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_text() == "old"
    with replaced(tmp_path / "a") as temporary:
        temporary.write_text("new")
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_text() == "new"


def test_pictures_of_a_training_are_replaced_in_one_step(tmp_path, monkeypatch):
    """TensorBoard, or a person, looks at them while they are written anew."""
    (tmp_path / "log.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n')
    replace, seen = os.replace, []

    def watched(source, target):
        seen.append(os.path.basename(target))
        assert os.path.getsize(source) and not os.path.exists(target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    row = (np.zeros((8, 8, 8)), np.zeros((4, 8, 8, 8)), np.zeros((4, 8, 8, 8)))
    pictures.draw_curves(tmp_path, ["loss"])
    pictures.draw_reconstructions([row], tmp_path / "reconstructions.png")
    image_pictures.save_grey(np.zeros((4, 4), np.float32), tmp_path / "grey.png")
    ball = 4 - torch.linspace(-12, 12, 48).abs()
    ball = torch.minimum(torch.minimum(ball[:, None, None], ball[:, None]), ball)[None]
    monkeypatch.setattr(held_back, "predict", lambda *_, **__: ball[:, None])
    heads = held_back.HeldBack(torch.zeros(1, 3, 96, 96), ball[:, None], torch.ones(1), ["atlas"])
    held_back.draw_predictions(torch.nn.Identity(), heads, tmp_path / "predictions.png")
    outline = torch.zeros(2, 1, 8, 8)
    outline[..., 2:6, 2:6] = 1
    train_outline.draw_outlines([(outline, outline, outline)], tmp_path / "outlines.png")
    assert seen == ["curves.png", "reconstructions.png", "grey.png", "predictions.png", "outlines.png"]


def test_an_error_about_another_file_is_not_blamed_on_the_output(tmp_path):
    (tmp_path / "out2").mkdir()
    with pytest.raises(FileNotFoundError), writing_to(tmp_path / "out"):
        (tmp_path / "out2" / "missing").read_text()


@pytest.mark.parametrize(("number", "kind"), [
    (errno.ENOSPC, UsageError), (errno.EFBIG, UsageError), (errno.ESTALE, UsageError),
    (errno.ECONNRESET, ConnectionResetError), (errno.EPIPE, BrokenPipeError), (None, OSError),
])
def test_only_what_disks_say_is_blamed_on_the_output_where_no_file_is_named(tmp_path, number, kind):
    with pytest.raises((OSError, UsageError)) as raised, writing_to(tmp_path):
        raise OSError(number, "words") if number else OSError("words")
    assert type(raised.value) is kind


def test_a_temporary_file_that_windows_holds_hides_no_error(tmp_path, monkeypatch):
    def held(path, missing_ok=False):
        raise PermissionError(errno.EACCES, "in use", str(path))

    cancel = CancelToken()
    cancel.cancel()
    monkeypatch.setattr(Path, "unlink", held)
    with pytest.raises(Cancelled):
        write_nifti_gz(noise(), tmp_path / "a.nii.gz", sitk.sitkFloat32, "some", cancel)
    assert all(path.name.startswith(".") for path in tmp_path.iterdir())


def test_two_containers_whose_processes_have_one_number_do_not_write_over_one_another(tmp_path):
    with replaced(tmp_path / "a") as first, replaced(tmp_path / "a") as second:
        assert first != second
        first.write_text("one")
        second.write_text("other")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
