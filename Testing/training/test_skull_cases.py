"""The store of training cases: the same batches whoever makes them, whenever they are resumed."""

from __future__ import annotations

import pickle

import pytest
import torch

from MedVAELib.errors import InputError
from MedVAELib.training.skull_cases import CHUNK, CaseBatches, CaseStore, batch_of, case_stream
from MedVAELib.training.synthesis.planes import PlaneCases

SETTINGS = {"seed": 3, "heads": ["a"]}


class Maker:
    """Cases that tell their number: every sdf is it, modulo 12, and the axial outline a left half."""

    made = 0

    def __init__(self, watch):
        """Nothing takes long here."""

    def __call__(self, seeds) -> PlaneCases:
        Maker.made += len(seeds)
        number = torch.tensor([float(seed % 12) for seed in seeds])
        planes = torch.zeros(len(seeds), 3, 96, 96)
        planes[:, 0, :, :48] = 1
        sdf = number.view(-1, 1, 1, 1, 1).expand(-1, 1, 48, 48, 48).clone()
        sdf[..., :24] *= -1
        return PlaneCases(planes, torch.ones(len(seeds), 3).bool(), sdf, torch.ones(len(seeds)), [])


@pytest.fixture
def store(tmp_path):
    Maker.made = 0
    return CaseStore(tmp_path / "cases", Maker, SETTINGS, chunks=2)


def test_a_batch_depends_on_its_number_alone(store, tmp_path):
    later = batch_of(store, 0, 40, 64)
    again = batch_of(CaseStore(tmp_path / "cases", Maker, SETTINGS, chunks=2), 0, 40, 64)
    assert all(torch.equal(a, b) for a, b in zip(later, again, strict=True))
    assert not torch.equal(later[2], batch_of(store, 0, 41, 64)[2])


def test_a_stream_resumed_goes_on_where_it_stopped(store):
    stream = case_stream(store, 64, 0, 0, workers=0)
    for _ in range(5):
        next(stream)
    whole, resumed = next(stream), next(case_stream(store, 64, 0, 5, workers=0))
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))


def test_what_a_loss_takes_survives_packing(store):
    planes, present, sdf = next(case_stream(store, 64, 0, 0, workers=0))
    assert planes.shape == (64, 3, 96, 96) and sdf.shape == (64, 1, 48, 48, 48) and present.dtype == torch.bool
    assert set(planes.unique().tolist()) == {0.0, 1.0} and sdf.abs().max() == 11
    assert torch.allclose(sdf * 1.0, sdf.round())


def test_flips_come_in_both_kinds_and_leave_the_rest(store):
    planes, _, sdf = next(case_stream(store, 256, 0, 0, workers=0))
    left = planes[:, 0, 0, 0]
    mirrored = sdf[:, 0, 0, 0, 0] > 0
    assert 80 < left.sum() < 176 and 80 < mirrored[sdf[:, 0, 0, 0, 0] != 0].sum() < 176
    assert (planes[:, 1:] == 0).all()


def test_every_case_is_used_once_per_pass_and_made_once_in_all(store):
    first = torch.cat([batch_of(store, 0, n, 64)[2][:, 0, 0, 0, 0].abs() for n in range(8)]).sort().values
    assert Maker.made == 2 * CHUNK
    second = torch.cat([batch_of(store, 0, n, 64)[2][:, 0, 0, 0, 0].abs() for n in range(8, 16)]).sort().values
    assert torch.equal(first, second) and Maker.made == 2 * CHUNK


def test_a_store_made_otherwise_is_refused(store, tmp_path):
    with pytest.raises(InputError, match="other settings"):
        CaseStore(tmp_path / "cases", Maker, {**SETTINGS, "heads": ["b"]}, chunks=2)


def test_a_store_goes_to_a_process_that_is_not_forked(store):
    """As on Windows and macOS, and on Linux from Python 3.14 on."""
    sent = pickle.loads(pickle.dumps(CaseBatches(store, 64, 2, 0)))
    assert all(torch.equal(a, b) for a, b in zip(next(iter(sent)), batch_of(store, 0, 2, 64), strict=True))


def test_batches_must_divide_a_chunk(store):
    with pytest.raises(InputError, match="divide"):
        next(case_stream(store, 48, 0, 0, workers=0))
