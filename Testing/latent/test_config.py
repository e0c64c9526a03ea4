"""What a training on images says of its data, and that the shipped config is the one that was measured."""

from __future__ import annotations

import pytest

from MedVAELib.latent.config import ImageData
from Testing.benchmarks.family import preset
from Testing.benchmarks.family_flair import SHIPPED


def test_sources_are_known_by_name():
    assert ImageData("x", made_from=["label-maps", "ms-masks"]).made_from == ["label-maps", "ms-masks"]
    with pytest.raises(ValueError, match="label-maps"):
        ImageData("x", made_from=["a scan of somebody"])


def test_the_shipped_model_is_the_preset_that_was_measured():
    shipped, measured = preset("flair-latents"), preset(SHIPPED)
    measured["data"] |= {"made_from": ["label-maps", "ms-masks"]}
    assert shipped | {"bundle": None} == measured | {"bundle": None}
