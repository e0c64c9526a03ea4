"""Bundles in folders of the test's own."""


import pytest

from MedVAELib.bundle import (
    save_bundle,
)
from Testing.bundle.bundle_files import metadata, weights


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """Shipped and user bundles in folders of the test's own."""
    monkeypatch.setenv("MEDVAE_RESOURCES", str(tmp_path / "Resources"))
    monkeypatch.setenv("MEDVAE_BUNDLES", str(tmp_path / "user"))
    (tmp_path / "Resources" / "bundles").mkdir(parents=True)


@pytest.fixture
def bundle(tmp_path):
    return save_bundle(tmp_path / "Resources" / "bundles" / "good", metadata(), weights(), "# A model card\n")
