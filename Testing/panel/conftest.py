"""The panel on the real MRML scene: one application per process, a fresh scene and panel per test.

With SLICER_SOURCE_DIR set to a Slicer checkout, Slicer's own ScriptedLoadableModule and parameterNodeWrapper are used
instead of the host's.
"""

import os
import shlex
import sys
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from Testing.panel import detections
from Testing.warm_python import warm

MODULE = detections.ROOT / "MedVAE" / "MedVAE.py"
SHIPPED = detections.ROOT / "Resources" / "bundles" / "healthy-anatomy"


@pytest.fixture(scope="session")
def host(tmp_path_factory):
    """The scene with Red, Yellow and Green slice views and one 3D view."""
    pytest.importorskip("PySide6", reason="PySide6 is not installed")
    pytest.importorskip("slicer_core", reason="slicer-core is not installed")
    from Testing.slicer_host import application

    launcher = tmp_path_factory.mktemp("slicer") / "PythonSlicer"  # found as Slicer's own is
    launcher.write_text(f'#!/bin/sh\nexec {shlex.join(warm([sys.executable]))} "$@"\n')
    launcher.chmod(0o755)
    os.environ["PATH"] = os.pathsep.join([str(launcher.parent), os.environ["PATH"]])
    return application.start()


@pytest.fixture(scope="session")
def reply(tmp_path_factory):
    """The worker's to a real detection on the sample; its files are only read."""
    return detections.detect_once(tmp_path_factory.mktemp("detection"))


@pytest.fixture
def archive(tmp_path) -> Path:
    """A shipped bundle packed under another name, `other`."""
    file = tmp_path / "other.zip"
    with zipfile.ZipFile(file, "w") as opened:
        for each in SHIPPED.iterdir():
            opened.write(each, f"other/{each.name}")
    return file


class Panel:
    """An open panel: `widget` is the module's, `tab` the first tab, `ui` its widgets, `top` the Qt widget."""

    def __init__(self, host):
        from Testing.slicer_host.application import loadModule

        self.host = host
        _, _, self.widget, self.top = loadModule(str(MODULE))
        self.widget.enter()
        self.tab = self.widget.tabs[0]
        self.ui = self.tab.ui

    def pump(self, until=lambda: False, seconds=60.0) -> bool:
        """Turns the event loop until the condition holds; False if it does not within the time."""
        import slicer

        limit = time.monotonic() + seconds
        while not until():
            if time.monotonic() > limit:
                return False
            slicer.app.processEvents()
            time.sleep(0.003)
        return True

    def ready(self) -> None:
        assert self.pump(lambda: self.ui.detectButton.enabled, 60), self.ui.detectButton.toolTip

    def detect(self, samples=2) -> None:
        """Clicks Detect and waits for the result."""
        self.ready()
        self.ui.samplesSpin.value = samples
        self.ui.detectButton.click()
        assert self.tab.running is not None
        assert self.pump(lambda: self.tab.running is None, 240), "no result in time"

    def close(self) -> None:
        """As when the application ends."""
        import slicer

        from Testing.slicer_host.application import strayAttributes
        from Testing.slicer_host.qmrml_widgets import qMRMLNodeComboBox

        stray = strayAttributes(self.top)
        self.widget.cleanup()
        self.pump(seconds=0.05)
        # PySide never frees a panel for good, and one that is left would follow every later test's scene.
        for selector in self.top.findChildren(qMRMLNodeComboBox):
            selector.forgetScene()
        self.top.deleteLater()
        slicer.mrmlScene.Clear(0)
        assert not stray, f"set on widgets of Qt that have no such property: {stray}"

    def image(self, name="Red"):
        return self.host.views[name].image()


@pytest.fixture
def panel(host):
    import slicer

    slicer.mrmlScene.Clear(0)
    opened = Panel(host)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def _desk(host):
    import slicer

    slicer.mrmlScene.Clear(0)
    opened = Panel(host)
    yield opened
    opened.close()


@pytest.fixture
def desk(_desk):
    """As `panel`, but one panel with one warm worker for all tests of a file: the scene is closed between them."""
    import slicer

    slicer.mrmlScene.Clear(0)
    assert _desk.pump(lambda: _desk.tab.running is None), "the test before left a detection behind"
    worker = _desk.widget.worker
    before = list(worker.command), dict(worker.environment)
    yield _desk
    if (worker.command, worker.environment) != before:
        worker.command, worker.environment = before
        worker.shutdown()


@contextmanager
def open_panel(host, resources: Path):
    """A panel whose worker knows the bundles in `resources`; no worker is left behind."""
    import slicer

    slicer.mrmlScene.Clear(0)
    before = os.environ.get("MEDVAE_RESOURCES")
    os.environ["MEDVAE_RESOURCES"] = str(resources)
    panel = Panel(host)
    try:
        yield panel
    finally:
        panel.close()
        os.environ.pop("MEDVAE_RESOURCES")
        if before is not None:
            os.environ["MEDVAE_RESOURCES"] = before


@pytest.fixture(scope="module")
def opened(host, resources):
    """One panel with one warm worker for all tests of a file, as at a desk; the file says which `resources`."""
    with open_panel(host, resources) as panel:
        yield panel


@pytest.fixture
def latent(opened):
    """The tab Latent space of `opened`, in an empty scene."""
    import slicer

    from Testing.panel.latent_scenes import LatentTabDriver

    slicer.mrmlScene.Clear(0)
    driver = LatentTabDriver(opened)
    driver.wait(lambda: driver.tab.info.ready, "the model known")
    yield driver
    slicer.mrmlScene.Clear(0)
