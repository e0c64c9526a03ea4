"""What a training on images says of its data, and that the shipped config is the one that was measured."""

from __future__ import annotations

import pytest

from MedVAELib.latent.config import ImageData
from Testing.benchmarks.family import preset
from Testing.benchmarks.family_flair import SHIPPED, SHORTER, SMALLER


def test_sources_are_known_by_name():
    assert ImageData("x", made_from=["label-maps", "ms-masks"]).made_from == ["label-maps", "ms-masks"]
    with pytest.raises(ValueError, match="label-maps"):
        ImageData("x", made_from=["a scan of somebody"])


def test_the_shipped_model_is_the_preset_shortened_as_measured():
    shipped, published = preset("flair-latents"), preset(SHIPPED, **SHORTER)
    published["model"] |= SMALLER
    published["data"] |= {"made_from": ["label-maps", "ms-masks"]}
    assert {key: shipped[key] for key in ("task", "data", "model", "trainer")} == {
        key: published[key] for key in ("task", "data", "model", "trainer")}  # fmt: skip
