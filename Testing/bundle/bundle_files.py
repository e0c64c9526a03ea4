"""Bundles made for tests, and what is asked of their error messages."""

import json
import zipfile

import pytest
import torch

from MedVAELib.bundle import load_bundle, save_bundle


class Exploit:
    """Unpickling this would fail the test run loudly."""

    def __reduce__(self):
        return (pytest.exit, ("a bundle ran code",))


def metadata():
    return {
        "version": "1.0.0", "changelog": {"1.0.0": "first"}, "task": "anomaly detection", "description": "a test",
        "authors": "MedVAE contributors", "copyright": "MedVAE contributors", "intended_use": "research",
        "network_data_format": {"inputs": {}, "outputs": {}},
        "medvae": {
            "model": "healthy_anatomy", "config": {"width": 8}, "modality": ["flair", "dwi"],
            "grid": {"spacing_mm": 2.0}, "intensity": {"convention": "median 1"}, "calibration": {"thresholds": [1.0]},
            "training_data": [{"name": "maps", "source": "made here", "licence": "CC0", "used_for": "weights"}],
            "results": {"ap": {"ours": 0.8, "baseline": 0.7}},
        },
    }


def metadata_of(model, config, **more):
    """The same for another model; more: what else is to be different of MedVAE's own part."""
    record = metadata()
    record["medvae"] |= {"model": model, "config": config, **more}
    return record


def saved_and_loaded(folder, name, config, model):
    """The model that comes out of a bundle of `model`, ready to predict."""
    save_bundle(folder, metadata_of(name, config), model.state_dict(), "card")
    return load_bundle(folder).network().eval()


def weights():
    return {"conv.weight": torch.linspace(-1, 1, 24).reshape(2, 3, 4), "norm.num_batches_tracked": torch.tensor(7)}


def edit(bundle, change):
    """Rewrites the bundle's metadata after change(metadata)."""
    record = json.loads((bundle.path / "metadata.json").read_text())
    change(record)
    (bundle.path / "metadata.json").write_text(json.dumps(record))


def one_sentence(failure, *parts):
    text = str(failure.value)
    assert "\n" not in text and text.endswith(".") and failure.value.exit_code == 4
    for part in parts:
        assert str(part) in text, text
    return text


def zipped(folder, archive, prefix=""):
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(folder.rglob("*")):
            packed.write(file, prefix + str(file.relative_to(folder)))
    return archive
