from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import stat
import zipfile

import pytest
import torch
from safetensors.torch import save

from MedVAELib.bundle import (
    MEDVAE_KEYS,
    MONAI_KEYS,
    bundle_paths,
    list_bundles,
    load_bundle,
    save_bundle,
)
from MedVAELib.bundle_import import import_bundle
from MedVAELib.errors import BundleError


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


def weights():
    return {"conv.weight": torch.linspace(-1, 1, 24).reshape(2, 3, 4), "norm.num_batches_tracked": torch.tensor(7)}


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """Shipped and user bundles in folders of the test's own."""
    monkeypatch.setenv("MEDVAE_RESOURCES", str(tmp_path / "Resources"))
    monkeypatch.setenv("MEDVAE_BUNDLES", str(tmp_path / "user"))
    (tmp_path / "Resources" / "bundles").mkdir(parents=True)


@pytest.fixture
def bundle(tmp_path):
    return save_bundle(tmp_path / "Resources" / "bundles" / "good", metadata(), weights(), "# A model card\n")


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


def test_saving_refuses_a_place_that_is_no_bundle(tmp_path):
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis.tex").write_text("years of work")
    with pytest.raises(BundleError, match="choose another place"):
        save_bundle(tmp_path / "papers", metadata(), weights(), "card")
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
    assert [b.name for b in list_bundles()] == ["good", "mine"]


def test_unknown_name_lists_those_there_are(bundle):
    with pytest.raises(BundleError) as failure:
        load_bundle("goood")
    one_sentence(failure, "goood", "good", "medvae bundles list")


def test_no_bundles_at_all():
    with pytest.raises(BundleError, match="none installed"):
        load_bundle("anything")
    assert list_bundles() == [] and bundle_paths() == {}


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
    bundle.require_model(["healthy_anatomy", "other"])
    with pytest.raises(BundleError) as failure:
        bundle.require_model(["other"])
    one_sentence(failure, "healthy_anatomy", "other", "good")


@pytest.mark.parametrize("network, part", [
    ({"a": torch.zeros(2), "b": torch.zeros(1)}, "b is missing"), ({}, "a is not part"),
    ({"a": torch.zeros(3)}, "shape")
])
def test_weights_that_do_not_fit_the_config(bundle, network, part):
    bundle.require_fit({"a": torch.zeros(2)}, {"a": torch.ones(2)})
    with pytest.raises(BundleError) as failure:
        bundle.require_fit({"a": torch.zeros(2)}, network)
    one_sentence(failure, part)


# --- Importing ---


@pytest.fixture
def foreign(tmp_path):
    return save_bundle(tmp_path / "elsewhere" / "theirs", metadata(), weights(), "card")


@pytest.mark.parametrize("form", ["folder", "flat zip", "zip with a folder"])
def test_import(foreign, tmp_path, form):
    source = foreign.path if form == "folder" else \
        zipped(foreign.path, tmp_path / "theirs.zip", "" if form == "flat zip" else "theirs/")
    imported = import_bundle(source)
    assert imported.path == tmp_path / "user" / "theirs"
    load_bundle("theirs").verify()
    assert import_bundle(source, name="again").name == "again"


def test_import_never_overwrites(foreign, bundle, tmp_path):
    import_bundle(foreign.path)
    for name in ("theirs", "good"):
        with pytest.raises(BundleError) as failure:
            import_bundle(foreign.path, name)
        one_sentence(failure, "already", "--name")


def test_import_copies_no_programs(foreign, tmp_path):
    (foreign.path / "run.py").write_text("print('x')")
    (foreign.path / "licence.txt").write_text("CC0")
    assert {file.name for file in import_bundle(foreign.path).path.iterdir()} == {
        "metadata.json", "model.safetensors", "README.md", "licence.txt"}


@pytest.mark.parametrize("name", ["../escape", "", ".hidden", "a/b", "a" * 65])
def test_import_under_a_name_that_is_none(foreign, tmp_path, name):
    with pytest.raises(BundleError, match="cannot be a bundle's name"):
        import_bundle(foreign.path, name)
    assert not (tmp_path / "user").exists()


@pytest.mark.parametrize("entry", [
    "../evil.json", "/tmp/evil.json", "a/../../evil.json", "..\\evil.json", "C:\\x.json",
])
def test_import_of_an_archive_that_points_outside(foreign, tmp_path, entry):
    archive = zipped(foreign.path, tmp_path / "theirs.zip")
    with zipfile.ZipFile(archive, "a") as packed:
        packed.writestr(entry, "{}")
    with pytest.raises(BundleError) as failure:
        import_bundle(archive)
    one_sentence(failure, "outside", "theirs.zip")
    assert not (tmp_path / "user").exists()


def test_import_of_an_archive_with_a_link(foreign, tmp_path):
    archive = zipped(foreign.path, tmp_path / "theirs.zip")
    link = zipfile.ZipInfo("secrets.txt")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "a") as packed:
        packed.writestr(link, "/etc/passwd")
    with pytest.raises(BundleError, match="link"):
        import_bundle(archive)


def test_import_of_a_folder_with_a_link(foreign):
    (foreign.path / "secrets.txt").symlink_to("/etc/passwd")
    with pytest.raises(BundleError, match="link"):
        import_bundle(foreign.path)


def test_import_of_a_zip_bomb(foreign, tmp_path):
    (foreign.path / "notes.txt").write_bytes(bytes(8 * 2**20))
    with pytest.raises(BundleError) as failure:
        import_bundle(zipped(foreign.path, tmp_path / "theirs.zip"))
    one_sentence(failure, "times its size")


def test_import_of_very_many_files(foreign, tmp_path):
    for number in range(250):
        (foreign.path / f"{number}.txt").write_text("x")
    for source in (foreign.path, zipped(foreign.path, tmp_path / "theirs.zip")):
        with pytest.raises(BundleError, match="not a MedVAE bundle"):
            import_bundle(source)


def test_import_of_too_many_bytes(foreign, tmp_path, monkeypatch):
    monkeypatch.setattr("MedVAELib.bundle_import.MAX_BYTES", 100)
    with pytest.raises(BundleError, match="not a MedVAE bundle"):
        import_bundle(zipped(foreign.path, tmp_path / "theirs.zip"))


@pytest.mark.parametrize("name", ["model.pt", "deep/er/model.PTH", "x.pkl", "epoch.ckpt"])
def test_import_refuses_pickles_anywhere(foreign, tmp_path, name):
    (foreign.path / name).parent.mkdir(parents=True, exist_ok=True)
    (foreign.path / name).write_bytes(pickle.dumps(Exploit()))
    for source in (foreign.path, zipped(foreign.path, tmp_path / "theirs.zip")):
        with pytest.raises(BundleError) as failure:
            import_bundle(source)
        one_sentence(failure, "pickled", name)
    with pytest.raises(BundleError, match="pickled"):
        import_bundle(foreign.path / name)


@pytest.mark.parametrize("content", [b"", b"not a zip", None])
def test_import_of_something_that_is_no_archive(foreign, tmp_path, content):
    archive = zipped(foreign.path, tmp_path / "theirs.zip")
    archive.write_bytes(archive.read_bytes()[:-40] if content is None else content)
    with pytest.raises(BundleError) as failure:
        import_bundle(archive)
    one_sentence(failure, "theirs.zip", "zip archive")


def test_import_of_an_archive_damaged_inside(foreign, tmp_path):
    archive = zipped(foreign.path, tmp_path / "theirs.zip")
    data = bytearray(archive.read_bytes())
    data[60:90] = bytes(30)
    archive.write_bytes(data)
    with pytest.raises(BundleError):
        import_bundle(archive)
    assert not (tmp_path / "user").exists()


def test_import_of_a_damaged_bundle_leaves_nothing(foreign, tmp_path):
    foreign.weights_path.write_bytes(b"changed")
    with pytest.raises(BundleError, match="SHA-256"):
        import_bundle(foreign.path)
    assert not (tmp_path / "user").exists()


def test_import_of_a_monai_bundle_and_of_nothing(tmp_path):
    (tmp_path / "monai" / "configs").mkdir(parents=True)
    (tmp_path / "monai" / "configs" / "metadata.json").write_text("{}")
    with pytest.raises(BundleError, match="not a MedVAE bundle"):
        import_bundle(tmp_path / "monai")
    with pytest.raises(BundleError, match="does not exist"):
        import_bundle(tmp_path / "absent.zip")
