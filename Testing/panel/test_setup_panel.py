"""The section Setup and the sample, clicked as a person does, on the real MRML scene and with the real worker."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import types
import urllib.request
from functools import partial
from pathlib import Path

import pytest

from MedVAELib.bundle import load_bundle

from .conftest import SHIPPED
from .test_setup_installer import Environment
from .wheels import lay_out, make_wheel

SHIPPED_NAMES = ["fetal-skull", "flair-latents", "head-outline", "healthy-anatomy"]

VERSIONS = {"torch": "2.13.0", "monai": "1.6.1", "scikit-learn": "1.9.1", "safetensors": "0.8.0"}


@pytest.fixture
def user_bundles(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("MEDVAE_BUNDLES", str(tmp_path / "bundles"))
    return tmp_path / "bundles"


@pytest.fixture
def section(user_bundles, panel):
    """The section, opened and filled."""
    panel.widget.ui.setupSection.collapsed = False
    found = panel.widget.setup_section
    assert panel.pump(lambda: "Detection runs on" in found.ui.deviceLabel.text and found.bundle_names), \
        found.ui.deviceLabel.text
    return found


def rows(table) -> list[list[str]]:
    return [[table.item(row, column).text() for column in range(table.columnCount)] for row in range(table.rowCount)]


def test_opening_it_shows_packages_devices_and_bundles(section):
    packages = {name: (version, state) for name, version, state in rows(section.ui.packagesTable)}
    assert packages["torch"][1] == "installed" and packages["torch"][0].startswith("2.")
    assert packages["SimpleITK"][1] == packages["vtk"][1] == "comes with Slicer"
    shown = rows(section.ui.bundlesTable)
    assert [name for name, _, _ in shown] == SHIPPED_NAMES
    assert all(state == "checksum right" for _, _, state in shown)
    assert "CPU" in section.ui.deviceLabel.text
    assert not section.ui.installButton.enabled and section.ui.installButton.toolTip == "Nothing is missing."


def test_it_asks_for_nothing_before_it_is_opened(user_bundles, panel):
    assert panel.widget.ui.setupSection.collapsed
    assert panel.widget.setup_section.ui.packagesTable.rowCount == 0


@pytest.fixture
def lacking(section, tmp_path, monkeypatch):
    """As if Slicer's Python were another one, in which monai is missing and torch half installed; its wheels."""
    import slicer
    from MedVAEPanel import dependencies, installer

    environment = Environment(tmp_path / "environment")
    lay_out(environment.site, {name: version for name, version in VERSIONS.items() if name != "monai"})
    (environment.site / "torch-2.13.0.dist-info" / "RECORD").unlink()
    site = str(environment.site)
    inspect = dependencies.inspect
    monkeypatch.setattr(dependencies, "inspect", lambda paths=None: inspect([site]))
    monkeypatch.setattr(installer, "install", partial(installer.install, paths=[site], site=site))
    monkeypatch.setattr(installer, "_slicer_packaging", lambda: None)
    monkeypatch.setattr(slicer.util, "pip_install", environment.pip_install)
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **_: True)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    wheels = tmp_path / "wheels"
    for name, version in VERSIONS.items():
        make_wheel(wheels, name, version)
    monkeypatch.setattr(section, "ask_folder", lambda title: str(wheels))
    section.refresh()
    return wheels


def test_install_from_a_folder_installs_what_is_missing(lacking, section, panel):
    states = {name: state for name, _, state in rows(section.ui.packagesTable)}
    assert (states["torch"], states["monai"]) == ("damaged", "not installed")
    assert "torch, monai" in section.ui.wheelsButton.toolTip
    before = panel.widget.worker.pid
    section.ui.wheelsButton.click()
    assert {state for *_, state in rows(section.ui.packagesTable)} == {"installed", "comes with Slicer"}
    assert section.ui.setupLabel.text == "Everything that MedVAE needs is installed."
    assert not section.ui.wheelsButton.enabled
    assert before and panel.pump(lambda: panel.widget.worker.pid not in (None, before), 30), "a new worker"
    assert any("Installing torch, monai" in line for line in panel.widget.log.lines)


def test_a_failed_installation_is_one_red_sentence_and_can_be_tried_again(lacking, section):
    wheel = lacking / "monai-1.6.1-py3-none-any.whl"
    whole = wheel.read_bytes()
    wheel.write_bytes(whole[:300])
    section.ui.wheelsButton.click()
    label = section.ui.setupLabel
    assert "damaged" in label.text and "\n" not in label.text and "color" in label.styleSheet
    assert section.ui.wheelsButton.enabled
    wheel.write_bytes(whole)
    section.ui.wheelsButton.click()
    assert label.text == "Everything that MedVAE needs is installed." and label.styleSheet == ""


def test_nothing_is_installed_if_the_user_declines(lacking, section, monkeypatch):
    import slicer

    asked = []
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **_: asked.append(text))
    for name in ("torch", "monai"):  # which other tests have loaded
        monkeypatch.delitem(sys.modules, name, raising=False)
    section.ui.wheelsButton.click()
    assert "torch, monai" in asked[0] and str(lacking) in asked[0] and "interrupted installation" in asked[0]
    removed = asked[0].partition("are removed first:\n")[2].splitlines()
    assert {Path(each).name for each in removed if each} >= {"torch", "torch-2.13.0.dist-info"}
    assert "restart" not in asked[0]
    monkeypatch.setitem(sys.modules, "torch", types.ModuleType("torch"))
    section.ui.wheelsButton.click()
    assert "has loaded torch already: restart it" in asked[1]
    assert section.ui.setupLabel.text == "Nothing was installed."
    assert dict(zip(*list(zip(*rows(section.ui.packagesTable), strict=True))[::2], strict=True))["torch"] == "damaged"


def test_nothing_is_installed_while_a_detection_runs(lacking, section, panel):
    panel.ui.sampleButton.click()
    panel.ready()
    panel.ui.detectButton.click()
    section.ui.wheelsButton.click()
    assert "A detection is running" in section.ui.setupLabel.text
    assert panel.tab.running is not None, "it goes on"
    panel.ui.detectButton.click()
    assert panel.pump(lambda: panel.tab.running is None, 10)


def test_an_imported_bundle_can_be_chosen(section, panel, archive, user_bundles, monkeypatch):
    monkeypatch.setattr(section, "ask_bundle_file", lambda: str(archive))
    section.ui.importFileButton.click()
    assert not section.ui.verifyButton.enabled, "one at a time"
    assert panel.pump(lambda: "other" in section.bundle_names), section.ui.setupLabel.text
    assert "other was imported" in section.ui.setupLabel.text
    assert (user_bundles / "other" / "model.safetensors").is_file()
    combo = panel.ui.bundleCombo
    assert panel.pump(lambda: "other" in " ".join(combo.itemText(index) for index in range(combo.count)), 10)


@pytest.mark.skipif(os.name == "nt", reason="no named pipes")
def test_an_import_that_hangs_can_be_cancelled(section, panel, user_bundles, tmp_path, monkeypatch):
    silent = tmp_path / "share.zip"
    os.mkfifo(silent)
    monkeypatch.setattr(section, "ask_bundle_file", lambda: str(silent))
    section.ui.importFileButton.click()
    panel.pump(seconds=0.5)
    assert section.asking and section.ui.refreshButton.text == "Cancel"
    section.ui.refreshButton.click()
    assert panel.pump(lambda: not section.asking, 10) and "ancel" in section.ui.setupLabel.text
    assert section.ui.refreshButton.text == "Check again" and section.ui.importFileButton.enabled
    assert not any(user_bundles.glob("*"))


def test_verify_names_a_damaged_bundle(section, panel, user_bundles):
    shutil.copytree(SHIPPED, user_bundles / "changed")
    weights = user_bundles / "changed" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    section.ui.refreshButton.click()
    assert panel.pump(lambda: "changed" in section.bundle_names)
    version = load_bundle(SHIPPED).metadata["version"]
    assert ["changed", version, "damaged"] in rows(section.ui.bundlesTable)
    section.ui.verifyButton.click()
    assert panel.pump(lambda: "SHA-256" in section.ui.setupLabel.text), section.ui.setupLabel.text
    assert "color" in section.ui.setupLabel.styleSheet
    shutil.rmtree(user_bundles / "changed")
    section.ui.refreshButton.click()
    assert panel.pump(lambda: section.bundle_names == SHIPPED_NAMES)
    section.ui.verifyButton.click()
    all_well = f"All {len(SHIPPED_NAMES)} bundles are as they were released."
    assert panel.pump(lambda: section.ui.setupLabel.text == all_well)


def test_a_double_click_verifies_once(section, panel, monkeypatch):
    import qt

    started = []
    monkeypatch.setattr(panel.widget.worker, "request", lambda *arguments: started.append(arguments))
    qt.QTimer.singleShot(0, section.ui.verifyButton.click)  # waits while the first click is heard
    section.ui.verifyButton.click()
    assert len(started) == 1 and not section.ui.verifyButton.enabled


def test_a_name_that_is_taken_is_explained_for_the_panel(section, panel, monkeypatch):
    monkeypatch.setattr(section, "ask_folder", lambda title: str(SHIPPED))
    section.ui.importFolderButton.click()
    assert panel.pump(lambda: "already a bundle healthy-anatomy" in section.ui.setupLabel.text)
    assert "--name" not in section.ui.setupLabel.text and "another name" in section.ui.setupLabel.text


def test_a_foreign_folder_is_refused_in_one_sentence(section, panel, tmp_path, monkeypatch):
    monkeypatch.setattr(section, "ask_folder", lambda title: str(tmp_path))
    section.ui.importFolderButton.click()
    assert panel.pump(lambda: "not a MedVAE bundle" in section.ui.setupLabel.text), section.ui.setupLabel.text


def test_a_dialog_that_is_closed_changes_nothing(section, monkeypatch):
    monkeypatch.setattr(section, "ask_folder", lambda title: "")
    before = section.ui.setupLabel.text
    section.ui.importFolderButton.click()
    assert section.ui.setupLabel.text == before and not section.asking


# --- The sample ------------------------------------------------------------------------------------------------------


def test_one_click_loads_the_sample_and_fills_the_inputs(panel):
    import slicer

    panel.ui.sampleButton.click()
    node = panel.tab.parameters.scan
    assert node is not None and node.GetName() == "Synthetic FLAIR with lesions"
    assert panel.ui.inputSelector.currentNode() is node
    assert panel.host.views["Red"].composite.GetBackgroundVolumeID() == node.GetID()
    panel.ready()
    panel.ui.sampleButton.click()
    assert panel.tab.parameters.scan is node
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 1
    assert node.GetStorageNode() is None, "saving the scene would write into MedVAE's own folder"


def test_a_damaged_sample_is_not_loaded(panel, monkeypatch, tmp_path):
    import slicer
    from MedVAEPanel import library

    (tmp_path / "flair.nii.gz").write_bytes(b"something else")
    monkeypatch.setattr(library, "resource", lambda name: tmp_path / "flair.nii.gz")
    told = []
    monkeypatch.setattr(slicer.util, "errorDisplay", lambda text, **_: told.append(text))
    panel.ui.sampleButton.click()
    assert "not the file that MedVAE came with" in told[0]
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0


def test_the_sample_is_registered_with_an_address_that_works_and_its_checksum(panel, monkeypatch, tmp_path):
    from MedVAEPanel.sample_data import register_sample_data

    registered = []

    class SampleDataLogic:
        @staticmethod
        def registerCustomSampleDataSource(**source):
            registered.append(source)

    module = types.ModuleType("SampleData")
    module.SampleDataLogic = SampleDataLogic
    monkeypatch.setitem(sys.modules, "SampleData", module)
    register_sample_data()
    source = registered[0]
    file, _ = urllib.request.urlretrieve(source["uris"], tmp_path / source["fileNames"])
    assert source["checksums"] == "SHA256:" + hashlib.sha256(Path(file).read_bytes()).hexdigest()
    assert Path(source["thumbnailFileName"]).is_file()
    planes = registered[1]
    assert len(planes["checksums"]) == len(planes["uris"]) == len(planes["fileNames"]) == 3
    for address, name, checksum in zip(*(planes[key] for key in ("uris", "fileNames", "checksums")), strict=True):
        file, _ = urllib.request.urlretrieve(address, tmp_path / name)
        assert checksum == "SHA256:" + hashlib.sha256(Path(file).read_bytes()).hexdigest()
