from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import nn

from MedVAELib.bundle import (
    MEDVAE_KEYS,
    MONAI_KEYS,
    bundle_paths,
    load_bundle,
    save_bundle,
)
from MedVAELib.errors import BundleError
from MedVAELib.models import build_model
from Testing.bundle.bundle_files import Exploit, edit, metadata, metadata_of, one_sentence, weights

# --- Saving and loading ---


def test_round_trip_in_half_precision(bundle):
    loaded = load_bundle("good")
    state = loaded.state_dict()
    assert state["conv.weight"].dtype == torch.float32
    assert torch.equal(state["conv.weight"], weights()["conv.weight"].half().float())
    assert state["norm.num_batches_tracked"].item() == 7
    assert (loaded.name, loaded.version, loaded.model, loaded.config) == ("good", "1.0.0", "healthy_anatomy",
                                                                         {"width": 8})
    assert loaded.calibration == {"thresholds": [1.0]} and loaded.modality == ["flair", "dwi"]
    assert loaded.sha256 == hashlib.sha256(loaded.weights_path.read_bytes()).hexdigest()
    assert (loaded.path / "README.md").read_text() == "# A model card\n"
    assert {file.name for file in loaded.path.iterdir()} == {"metadata.json", "model.safetensors", "README.md"}
    loaded.verify()


def test_saving_fills_in_every_key_of_the_schema(bundle):
    assert set(MONAI_KEYS) <= set(bundle.metadata) and set(MEDVAE_KEYS) <= set(bundle.metadata["medvae"])
    assert bundle.metadata["pytorch_version"].startswith(torch.__version__.split("+")[0])
    assert bundle.metadata["medvae"]["weights"]["dtype"] == "float16"


def test_saving_again_replaces_and_failing_keeps_the_earlier_one(bundle):
    second = metadata() | {"version": "2.0.0"}
    assert save_bundle(bundle.path, second, weights(), "card").version == "2.0.0"
    with pytest.raises(BundleError, match="fp16"):
        save_bundle(bundle.path, second, {"w": torch.tensor([1e6])}, "card")
    del second["task"]
    with pytest.raises(BundleError, match="task"):
        save_bundle(bundle.path, second, weights(), "card")
    load_bundle("good").verify()
    assert [path.name for path in bundle.path.parent.iterdir()] == ["good"]


def test_failure_while_saving_keeps_the_earlier_one(bundle, monkeypatch):
    replace, calls = __import__("os").replace, []

    def failing(source, target):
        calls.append(target)
        if len(calls) == 2:
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr("MedVAELib.bundle.os.replace", failing)
    with pytest.raises(BundleError, match="Input/output error"):
        save_bundle(bundle.path, metadata() | {"version": "2.0.0"}, weights(), "card")
    assert load_bundle("good").version == "1.0.0"
    assert [path.name for path in bundle.path.parent.iterdir()] == ["good"]


def test_metadata_with_what_is_no_number_are_refused(bundle):
    """Python writes NaN into JSON, which nothing else reads."""
    file = bundle.path / "metadata.json"
    metadata = json.loads(file.read_text())
    metadata["medvae"]["results"] = {"dice": float("nan")}
    file.write_text(json.dumps(metadata))
    with pytest.raises(BundleError, match="not valid JSON"):
        load_bundle("good")


def test_saving_keeps_what_else_lies_in_the_folder(bundle):
    (bundle.path / "evaluation").mkdir()
    (bundle.path / "evaluation" / "table.md").write_text("days of computing")
    (bundle.path / "notes.txt").write_text("mine")
    save_bundle(bundle.path, metadata(), weights(), "another card")
    assert (bundle.path / "evaluation" / "table.md").read_text() == "days of computing"
    assert (bundle.path / "notes.txt").read_text() == "mine"
    assert (bundle.path / "README.md").read_text() == "another card"


@pytest.mark.parametrize("way", ["papers", "not there/../papers"])
def test_saving_refuses_a_place_that_is_no_bundle(tmp_path, way):
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.tex").write_text("years of work")
    with pytest.raises(BundleError, match="choose another place"):
        save_bundle(tmp_path / way, metadata(), weights(), "card")
    assert (tmp_path / "papers" / "thesis.tex").read_text() == "years of work"


def test_shared_and_non_contiguous_weights_are_saved(tmp_path):
    shared = torch.arange(12.0).reshape(3, 4)
    saved = save_bundle(tmp_path / "b", metadata(), {"a": shared, "b": shared, "c": shared.T}, "card")
    assert torch.equal(saved.state_dict()["c"], shared.T)


# --- Finding ---


def test_by_name_by_folder_by_metadata_file_and_as_itself(bundle, tmp_path, monkeypatch):
    assert load_bundle(bundle) is bundle
    for given in ("good", bundle.path, str(bundle.path), bundle.path / "metadata.json"):
        assert load_bundle(given).version == "1.0.0"
    monkeypatch.chdir(bundle.path)
    assert load_bundle(".").name == "good"


def test_shipped_come_before_the_users_and_both_are_listed(bundle, tmp_path):
    save_bundle(tmp_path / "user" / "good", metadata() | {"version": "9.9.9"}, weights(), "card")
    save_bundle(tmp_path / "user" / "mine", metadata(), weights(), "card")
    assert load_bundle("good").version == "1.0.0"
    assert list(bundle_paths()) == ["good", "mine"]


def test_unknown_name_lists_those_there_are(bundle):
    with pytest.raises(BundleError) as failure:
        load_bundle("goood")
    one_sentence(failure, "goood", "good", "medvae bundles list")


def test_no_bundles_at_all():
    with pytest.raises(BundleError, match="none installed"):
        load_bundle("anything")
    assert bundle_paths() == {}


@pytest.mark.parametrize("name", ["", "a" * 5000, "\0", "~nobody-here/x", "no/such/folder"])
def test_names_that_cannot_be_paths(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError):
        load_bundle(name)


def test_resources_elsewhere_must_exist(monkeypatch):
    from MedVAELib.errors import UsageError
    from MedVAELib.resources import resource_dir

    monkeypatch.setenv("MEDVAE_RESOURCES", "/nonexistent")
    with pytest.raises(UsageError, match="/nonexistent"):
        resource_dir()
    monkeypatch.delenv("MEDVAE_RESOURCES")
    assert (resource_dir() / "bundles").is_dir()


def test_another_packages_folder_of_that_name_is_not_taken_for_ours(monkeypatch, tmp_path):
    from MedVAELib import resources

    for folder in ("Resources", "MedVAELib/bundled/bundles"):
        (tmp_path / "site" / folder).mkdir(parents=True)
    monkeypatch.delenv("MEDVAE_RESOURCES")
    monkeypatch.setattr(resources, "__file__", str(tmp_path / "site" / "MedVAELib" / "resources.py"))
    assert resources.resource_dir() == tmp_path / "site" / "MedVAELib" / "bundled"


def test_shipped_bundles_are_found_beside_a_home_that_cannot_be_read(bundle, monkeypatch, tmp_path):
    def refusing(real):
        def asked(place, *arguments, **options):
            if str(place).startswith(str(tmp_path / "user")):
                raise PermissionError(13, "Permission denied", str(place))
            return real(place, *arguments, **options)

        return asked

    for name in ("stat", "scandir", "listdir"):
        monkeypatch.setattr(os, name, refusing(getattr(os, name)))
    assert load_bundle(bundle.name).path == bundle.path


# --- Damage ---


@pytest.mark.parametrize("key", [*MONAI_KEYS, *(f"medvae.{key}" for key in MEDVAE_KEYS)])
@pytest.mark.parametrize("how", ["missing", "wrong type"])
def test_every_key_is_required_with_its_type(bundle, key, how):
    def change(record):
        *path, last = key.split(".")
        for part in path:
            record = record[part]
        if how == "missing":
            del record[last]
        else:
            record[last] = 3.5

    edit(bundle, change)
    with pytest.raises(BundleError) as failure:
        load_bundle("good")
    one_sentence(failure, key, bundle.path)


@pytest.mark.parametrize("change, part", [
    (lambda m: m.pop("medvae"), "another program"),
    (lambda m: m.update(medvae=[1]), "medvae"),
    (lambda m: m["medvae"]["training_data"][0].pop("licence"), "training_data[0].licence"),
    (lambda m: m["medvae"]["training_data"].append("x"), "training_data[1]"),
    (lambda m: m["medvae"]["modality"].append(3), "modality[2]"),
    (lambda m: m["medvae"]["weights"].pop("sha256"), "weights.sha256"),
    (lambda m: m["medvae"]["weights"].update(sha256="xyz"), "SHA-256"),
    (lambda m: m["medvae"]["weights"].update(file="../../other.safetensors"), "one .safetensors file"),
    (lambda m: m["medvae"]["weights"].update(file="/etc/passwd"), "one .safetensors file"),
    (lambda m: m["medvae"]["weights"].update(file="model.pt"), "pickled"),
])
def test_metadata_that_is_wrong_inside(bundle, change, part):
    edit(bundle, change)
    with pytest.raises(BundleError) as failure:
        load_bundle("good")
    one_sentence(failure, part)


@pytest.mark.parametrize("content", [b"", b"{", b"[1, 2]", b"\xff\xfe\x00", b"null", b"[" * 100_000, b"{} {}"])
def test_metadata_that_is_no_object(bundle, content):
    (bundle.path / "metadata.json").write_bytes(content)
    with pytest.raises(BundleError) as failure:
        load_bundle("good")
    one_sentence(failure, "metadata.json")


def test_folder_without_metadata(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError) as failure:
        load_bundle(tmp_path / "empty")
    one_sentence(failure, "holds no metadata.json")


def test_missing_weights(bundle):
    bundle.weights_path.unlink()
    with pytest.raises(BundleError) as failure:
        load_bundle("good").verify()
    one_sentence(failure, "model.safetensors")


@pytest.mark.parametrize("damage", [
    lambda data: data[:-10], lambda data: b"", lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:],
    lambda data: data + b"more",
])
def test_changed_weights_do_not_pass_the_checksum(bundle, damage):
    bundle.weights_path.write_bytes(damage(bundle.weights_path.read_bytes()))
    with pytest.raises(BundleError) as failure:
        load_bundle("good").state_dict()
    one_sentence(failure, "SHA-256 differs")


def rewrite(bundle, data):
    """Other weights with a checksum that fits."""
    bundle.weights_path.write_bytes(data)
    edit(bundle, lambda m: m["medvae"]["weights"].update(sha256=hashlib.sha256(data).hexdigest()))


@pytest.mark.parametrize("damage", [
    lambda data: data[:-10], lambda data: b"", lambda data: data[:4], lambda data: b"\xff" * 64,
    lambda data: data[:8] + b"[" * (len(data) - 8),
])
def test_files_that_are_no_safetensors_although_the_checksum_fits(bundle, damage):
    rewrite(bundle, damage(bundle.weights_path.read_bytes()))
    with pytest.raises(BundleError) as failure:
        load_bundle("good").state_dict()
    one_sentence(failure, "not a complete safetensors file")


def test_pickles_under_another_name_are_not_opened(bundle, tmp_path):
    rewrite(bundle, pickle.dumps(Exploit()))
    with pytest.raises(BundleError, match="pickled"):
        load_bundle("good").state_dict()
    torch.save({"x": Exploit()}, tmp_path / "new.pt")
    rewrite(bundle, (tmp_path / "new.pt").read_bytes())
    with pytest.raises(BundleError, match="pickled"):
        load_bundle("good").state_dict()


def test_pickled_files_by_name(bundle, tmp_path):
    torch.save(weights(), tmp_path / "model.pt")
    with pytest.raises(BundleError) as failure:
        load_bundle(tmp_path / "model.pt")
    one_sentence(failure, "pickled", "model.pt")
    bundle.weights_path.unlink()
    shutil.copy(tmp_path / "model.pt", bundle.path)
    with pytest.raises(BundleError, match="pickled"):
        load_bundle("good").verify()


def test_weights_that_are_not_numbers(bundle):
    rewrite(bundle, save({"w": torch.tensor([1.0, float("nan")])}))
    with pytest.raises(BundleError, match="not numbers"):
        load_bundle("good").verify()


def test_target_entries_are_data(bundle):
    edit(bundle, lambda m: m["medvae"]["config"].update(_target_="pytest.exit", reason="ran code"))
    assert load_bundle("good").config["_target_"] == "pytest.exit"


def test_a_model_this_version_does_not_have(bundle):
    edit(bundle, lambda m: m["medvae"].update(model="later"))
    with pytest.raises(BundleError) as failure:
        load_bundle("good").network()
    one_sentence(failure, "good", "'later'", "healthy_anatomy, ", "update MedVAE")


@pytest.mark.parametrize(("config", "words"), [({"depth": 3}, "no setting depth"), ({"width": 0}, "cannot be built")])
def test_a_config_this_version_does_not_know(bundle, config, words):
    edit(bundle, lambda m: m["medvae"].update(config=config))
    with pytest.raises(BundleError) as failure:
        load_bundle("good").network()
    one_sentence(failure, "good", words, "update MedVAE")


def test_the_network_of_a_bundle_has_its_weights(tmp_path):
    made = build_model("healthy_anatomy", {"width": 4, "latent": 2})
    again = save_bundle(tmp_path / "b", metadata_of("healthy_anatomy", {"width": 4, "latent": 2}), made.state_dict(),
                        "card").network()
    assert all(torch.allclose(value, again.state_dict()[name], atol=1e-3) for name, value in made.state_dict().items())


class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("num_batches_tracked", torch.tensor(0))


def network(**parts):
    return nn.ModuleDict({"conv": nn.Conv1d(3, 2, 4, bias=False), "norm": Counter(), **parts})


def test_a_network_is_given_the_weights(bundle):
    made = network()
    bundle.fill(made)
    assert torch.equal(made.conv.weight, weights()["conv.weight"].half().float())
    assert made.norm.num_batches_tracked == 7


@pytest.mark.parametrize("parts, part", [
    ({"more": nn.Linear(1, 1)}, "more.bias is missing; 2 such"), ({"norm": nn.Identity()}, "tracked is not part"),
    ({"conv": nn.Conv1d(3, 3, 4, bias=False)}, "conv.weight has shape (2, 3, 4) where the config asks for (3, 3, 4)")
])
def test_weights_that_do_not_fit_the_config(bundle, parts, part):
    with pytest.raises(BundleError) as failure:
        bundle.fill(network(**parts))
    one_sentence(failure, part, "its own config", "get the bundle again")


def test_the_only_copy_is_never_deleted(bundle, monkeypatch):
    """The new one cannot be put in place, and the old one not be put back: it lies where the error says."""
    replace, before = os.replace, bundle.weights_path.read_bytes()

    def refuse(source, target):
        if Path(target) == bundle.path:
            raise PermissionError(13, "Permission denied")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(BundleError, match="earlier version lies in") as error:
        save_bundle(bundle.path, metadata(), weights(), "card")
    kept = Path(str(error.value).rpartition(" lies in ")[2].rstrip("."))
    assert (kept / "model.safetensors").read_bytes() == before


def test_ctrl_c_between_two_moves_puts_the_old_one_back(bundle, monkeypatch):
    replace, before = os.replace, bundle.weights_path.read_bytes()

    def interrupted(source, target):
        if Path(source).name == "new":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_bundle(bundle.path, metadata() | {"version": "9"}, weights(), "card")
    assert bundle.weights_path.read_bytes() == before
    assert [path.name for path in bundle.path.parent.iterdir()] == ["good"]
