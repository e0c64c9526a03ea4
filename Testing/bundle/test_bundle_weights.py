"""Weights in 8 bits: what is lost, what stays, and that a bundle of them is one like any other."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from MedVAELib.bundle import load_bundle, save_bundle
from MedVAELib.bundle_weights import packed, unpacked
from MedVAELib.errors import BundleError
from MedVAELib.training.card import attach_results
from Testing.bundle.bundle_files import metadata


@given(st.integers(0, 10**6), st.integers(1, 6), st.integers(1, 40), st.floats(1e-6, 1e6))
def test_no_value_moves_by_more_than_half_a_step_of_its_row(seed, rows, columns, size):
    weight = torch.randn(rows, columns, 1, generator=torch.Generator().manual_seed(seed)) * size
    found = unpacked(packed({"w": weight}, "int8"))["w"]
    step = weight.flatten(1).abs().amax(1) / 127
    assert found.shape == weight.shape and found.dtype is torch.float32
    assert ((found - weight).abs().amax((1, 2)) <= step * 0.501).all()


def test_rows_of_zeros_vectors_and_whole_numbers_stay():
    state = {"w": torch.zeros(2, 3), "bias": torch.tensor([0.1, -2.0]), "count": torch.tensor(7)}
    found = unpacked(packed(state, "int8"))
    assert set(found) == set(state) and not found["w"].any()
    assert torch.equal(found["bias"], state["bias"].half().float()) and int(found["count"]) == 7


def test_a_models_own_weight_may_be_called_scale():
    state = {"w": torch.ones(3, 2), "w.scale": torch.ones(3), "norm.scale": torch.ones(2, 2)}
    for form in ("float16", "int8"):
        assert set(unpacked(packed(state, form))) == set(state)


def test_half_the_size_and_saved_again_the_same(tmp_path):
    state = {"conv.weight": torch.randn(64, 32, 3, 3, 3), "conv.bias": torch.randn(64)}
    whole = save_bundle(tmp_path / "whole", metadata(), state, "card")
    small = save_bundle(tmp_path / "small", metadata(), state, "card", "int8")
    assert small.weights_path.stat().st_size < 0.52 * whole.weights_path.stat().st_size
    assert (whole.weights_form, small.weights_form) == ("float16", "int8")
    small.verify()
    again = save_bundle(tmp_path / "again", metadata(), load_bundle(small.path).state_dict(), "card", "int8")
    assert again.sha256 == small.sha256


def test_attaching_results_leaves_the_weights_alone(tmp_path):
    named = metadata()
    named["medvae"]["results"] = {"training": {}}
    small = save_bundle(tmp_path / "small", named, {"conv.weight": torch.randn(4, 3)}, "card", "int8")
    after = attach_results(small, {"a table": "| a |"}, lambda metadata: "card")
    assert after.sha256 == small.sha256 and after.weights_form == "int8"


def test_what_cannot_be_stored():
    with pytest.raises(BundleError, match="no numbers"):
        packed({"w": torch.full((2, 2), torch.inf)}, "int8")
    with pytest.raises(BundleError, match="float16 or int8"):
        packed({"w": torch.ones(2, 2)}, "int4")
