"""Synthetic scans: reproducible, consistent with their target, lesions in the input only."""

from __future__ import annotations

import pickle
from dataclasses import replace
from functools import partial

import pytest
import torch

from MedVAELib.errors import InputError
from MedVAELib.tissues import BRAIN, EXTRACEREBRAL
from MedVAELib.training.brains import FRACTION_STEPS, SyntheticBatches, load_synthesiser, make_batch, stream
from MedVAELib.training.synthesis.acquisition import thick_slices
from MedVAELib.training.synthesis.brains import SynthesisConfig
from MedVAELib.training.synthesis.cases import case_config, synthetic_case

from .heads import write_head

SMALL = SynthesisConfig(shape=(48, 64, 48), spacing_mm=3.5)


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    return write_head(tmp_path_factory.mktemp("heads"))


def test_a_scan_depends_on_its_number_alone(heads):
    synthesise = load_synthesiser(heads, None, SMALL)
    first = synthesise(3)
    synthesise(4)
    again = synthesise(3)
    assert torch.equal(first.image, again.image) and torch.equal(first.target, again.target)
    assert not torch.equal(first.image, synthesise(5).image)


def test_targets_are_fractions_and_images_finite(heads):
    synthesise = load_synthesiser(heads, None, SMALL)
    for seed in range(8):
        scan = synthesise(seed)
        total = scan.target.sum(0)
        assert scan.image.isfinite().all() and scan.image.min() >= 0 and scan.image.max() <= 1.5
        assert ((total - 1).abs().lt(1e-5) | total.eq(0)).all()


def test_stripped_scans_show_no_head_and_head_scans_do(heads):
    plain = replace(SMALL, lesions=0.0, truncated=0.0)
    with_head = load_synthesiser(heads, None, replace(plain, head=1.0))(0)
    stripped = load_synthesiser(heads, None, replace(plain, head=0.0))(0)
    assert with_head.target[EXTRACEREBRAL].mean() > 0.05
    assert stripped.target[EXTRACEREBRAL].mean() < 0.02
    assert (stripped.image[0] == 0).float().mean() > (with_head.image[0] == 0).float().mean()


def test_lesions_change_the_image_and_not_the_target(heads):
    config = replace(SMALL, lesions=1.0, tumour=0.0, blobs=1.0, truncated=0.0, head=1.0, coarse_noise=0.0)
    scans = [load_synthesiser(heads, None, config)(seed) for seed in range(4)]
    assert sum(float(scan.lesions.sum()) for scan in scans) > 5
    for scan in scans:
        lesion = scan.lesions > 0.5
        assert (scan.target[list(BRAIN)].sum(0)[lesion] > 0.4).all()


def test_batches_keep_quarter_fractions_exactly(heads):
    image, counts = make_batch(load_synthesiser(heads, None, SMALL), 0, 0, 2)
    assert image.shape == (2, 1, 48, 64, 48) and counts.dtype == torch.uint8
    assert set(counts.sum(1).unique().tolist()) <= {0, 4}


def test_cases_have_geometry_and_truth(heads):
    config = replace(case_config("flair", healthy=False, spacing_mm=4.0), real_masks=0.0, blobs=1.0)
    case = synthetic_case(load_synthesiser(heads, None, config), 2, "flair")
    assert case.scan.image.GetSize() == case.lesions.GetSize() == case.brain.GetSize()
    assert case.scan.image.GetSpacing() == (4.0, 4.0, 4.0)


def test_a_folder_without_label_maps_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="no label maps"):
        load_synthesiser(tmp_path, None, SMALL)


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
def test_background_processes_make_the_same_batches_in_order(heads, device):
    load = partial(load_synthesiser, heads, None, SMALL)
    synthesise, made = load(device=device), stream(load, torch.device(device), 2, 0, 3, workers=2)
    for number in range(3, 8):
        image, target = next(made)
        wanted, counts = make_batch(synthesise, 0, number, 2)
        assert image.device.type == device
        assert torch.allclose(image, wanted.float(), atol=2e-3)
        assert torch.equal(target, counts.float() / FRACTION_STEPS)
    made.close()


def test_what_the_processes_beside_a_gpu_are_given_can_be_sent_to_them(heads):
    load = partial(load_synthesiser, heads, None, SMALL)
    sent = pickle.loads(pickle.dumps(SyntheticBatches(load, torch.device("cpu"), 1, 2, 0)))
    assert torch.equal(next(iter(sent))[0], make_batch(load_synthesiser(heads, None, SMALL), 0, 2, 1)[0])


@needs_cuda
def test_synthesis_runs_on_the_training_device(heads):
    scan = load_synthesiser(heads, None, SMALL, "cuda")(0)
    assert scan.image.is_cuda and scan.image.isfinite().all()


@pytest.mark.parametrize(("side", "factor"), [(80, 2), (80, 3), (96, 3), (88, 6), (14, 4)])
@pytest.mark.parametrize("axis", [0, 2])
def test_thick_slices_stay_where_their_voxels_were(side, factor, axis):
    """A ramp, averaged and interpolated back, is the ramp, but at its ends."""
    ramp = torch.arange(float(side)).view([-1 if a == axis else 1 for a in range(3)])
    ramp = ramp.expand([side if a == axis else 5 for a in range(3)])
    made = thick_slices(ramp, axis, factor)
    assert made.shape == ramp.shape
    ends = side - side % factor - factor  # the last slice holds fewer voxels
    torch.testing.assert_close(made.narrow(axis, factor, ends - factor), ramp.narrow(axis, factor, ends - factor))
