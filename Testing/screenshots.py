"""`make screenshots`: the pictures of README and catalogue, from the panel in the test host during a real detection.

    python -m Testing.screenshots                              the sample, into Resources/screenshots
    python -m Testing.screenshots --scan FILE --output DIR     any scan, to be looked at and not committed

Writes setup.png, scan.png, running.png, panel.png, findings-3d.png and compare.png: one for each step of the tutorial;
and skull-planes.png, skull.png and skull-3d.png from the sample planes, latent-encode.png, latent.png and
latent-cohort.png from the scan, where the bundles for them are there. --bundle FOLDER: another model for the
latent space; --cohort TABLE: its plot, instead of points drawn from the model's own statistics; --only: skull or
latent, nothing else.
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np

from Testing.panel.ticks import Ticks

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")

FOLDER = Path(__file__).resolve().parents[1] / "Resources" / "screenshots"
SIDE, WIDTH, SMALL = 420, 470, 330
ROW = 1  # of the findings table, the one that the pictures show


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scan", type=Path)
    parser.add_argument("--output", type=Path, default=FOLDER)
    parser.add_argument("--bundle", type=Path, default=FOLDER.parent / "bundles" / "flair-latents")
    parser.add_argument("--cohort", type=Path)
    parser.add_argument("--only", choices=("skull", "latent"))
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    pictures = Pictures(options.output)
    if options.only is None:
        pictures.choose_scan(options.scan)
        pictures.detect()
        pictures.results()
        pictures.setup()
    if options.only != "latent" and (FOLDER.parent / "bundles" / "fetal-skull").is_dir():
        pictures.skull()
    if options.only != "skull" and options.bundle.is_dir():
        pictures.latent(options.scan, options.bundle, options.cohort)
    pictures.close()


class Pictures:
    """A person's way through the tutorial, a picture at each step."""

    def __init__(self, folder: Path):
        from Testing.slicer_host import application, scene

        self.folder, self.host = folder, scene.HeadlessSlicer()
        application.install(self.host)
        for name, orientation in (("Red", "Axial"), ("Yellow", "Sagittal"), ("Green", "Coronal")):
            self.host.addSliceView(name, orientation, (SIDE, SIDE))
        self.host.add3DView("1", (SIDE, SIDE))
        from Testing.panel.conftest import Panel

        self.panel = Panel(self.host)

    def choose_scan(self, file: Path | None) -> None:
        import slicer

        panel = self.panel
        if file is None:
            panel.ui.sampleButton.click()
        else:
            slicer.util.loadVolume(str(file))
        for name in ("Red", "Yellow", "Green"):
            self.host.views[name].fit()
        panel.ready()
        panel.pump(lambda: "voxels" in panel.ui.statusLabel.text, 60)
        panel.pump(lambda: panel.widget.offers.bundles, 60)
        self.grab()  # lays the widgets out
        self.save("scan.png", _grab(panel.ui.scanSection))

    def detect(self) -> None:
        panel = self.panel
        panel.ui.settingsSection.collapsed = False
        panel.ui.detectButton.click()
        with Ticks() as ticks:
            panel.pump(lambda: panel.ui.progressBar.value >= 45, 120)
            self.grab()
            self.save("running.png", _grab(panel.ui.detectionSection))
            panel.ui.settingsSection.collapsed = True
            assert panel.pump(lambda: panel.tab.running is None, 240), "no result in time"
        print(f"Event loop during the detection: {ticks}")
        print(panel.ui.messageLabel.text)

    def results(self) -> None:
        panel, host = self.panel, self.host
        panel.ui.findingsTable.selectRow(ROW)
        panel.ui.surfaceButton.click()
        panel.pump(seconds=0.3)
        host.views["1"].node.SetBoxVisible(False)
        host.views["1"].resetCamera()
        camera = host.views["1"].renderer.GetActiveCamera()
        camera.Azimuth(-35)
        camera.Elevation(25)
        camera.Zoom(1.6)
        image = {name: host.views[name].image() for name in ("Red", "Yellow", "Green", "1")}
        rows = [np.concatenate([image[a], image[b]], 1) for a, b in (("Red", "1"), ("Green", "Yellow"))]
        self.save("panel.png", _beside(self.grab(2 * SIDE), np.concatenate(rows)))
        self.save("findings-3d.png", image["1"])
        panel.ui.compareButton.click()
        panel.pump(seconds=0.3)
        views = [host.views[name].image() for name in ("MedVAEScan", "MedVAEMap")]
        self.save("compare.png", np.concatenate(views, 1))
        panel.ui.compareButton.click()

    def setup(self) -> None:
        panel = self.panel
        panel.widget.ui.setupSection.collapsed = False
        panel.pump(lambda: panel.widget.setup_section.bundle_names, 60)
        self.grab(1400)
        self.save("setup.png", _grab(panel.widget.ui.setupSection))

    def skull(self) -> None:
        """The other tab, from its sample to the skull in 3D, seen from the front, the right and above."""
        import slicer

        from Testing.panel.skull_scenes import SkullTabDriver

        slicer.mrmlScene.Clear(0)
        driver, view = SkullTabDriver(self.panel), self.host.views["1"]
        self.panel.widget.ui.setupSection.collapsed = True
        self.panel.widget.ui.tabWidget.currentIndex = self.panel.widget.tabs.index(driver.tab)
        driver.ui.sampleButton.click()
        driver.ready()
        self.grab()
        self.save("skull-planes.png", _grab(driver.ui.planesSection))
        driver.predict(samples=64)
        print(driver.ui.messageLabel.text)
        view.resetCamera()
        camera = view.renderer.GetActiveCamera()
        camera.SetPosition(170, 250, 130)
        camera.SetFocalPoint(0, 0, 0)
        camera.SetViewUp(0, 0, 1)
        view.renderer.ResetCameraClippingRange()
        panel = self.grab()
        panel = panel[: len(panel) // 2 * 2]
        for each in self.host.views.values():
            _resize(each, len(panel) // 2)
        image = {name: self.host.views[name].image() for name in ("Red", "Yellow", "Green", "1")}
        rows = [np.concatenate([image[a], image[b]], 1) for a, b in (("Red", "1"), ("Green", "Yellow"))]
        self.save("skull.png", np.concatenate([panel, np.concatenate(rows)], 1))
        self.save("skull-3d.png", image["1"])

    def latent(self, file: Path | None, bundle: Path, cohort: Path | None) -> None:
        """The tab Latent space: encoded, a slider moved, and a cohort with a point that was clicked."""
        import slicer
        from MedVAEPanel.sample_data import load_sample

        from Testing.panel.latent_scenes import LatentTabDriver, write_table

        slicer.mrmlScene.Clear(0)
        driver, ui = LatentTabDriver(self.panel), self.panel.widget.ui
        ui.setupSection.collapsed = True
        ui.tabWidget.currentIndex = self.panel.widget.tabs.index(driver.tab)
        driver.ui.cohortSection.collapsed = True
        driver.tab.parameters.bundle = "" if bundle.parent == FOLDER.parent / "bundles" else str(bundle)
        for view in self.host.views.values():
            _resize(view, SMALL)
        driver.encode(load_sample() if file is None else slicer.util.loadVolume(str(file)))
        self.grab()
        self.save("latent-encode.png", _grab(driver.ui.modelSection))
        print(driver.ui.messageLabel.text)
        plain = self._slices()
        driver.move(0, 3.0)
        moved = self._slices()
        driver.ui.opacitySlider.value = 0.0
        scan = self._slices()
        driver.ui.opacitySlider.value = 1.0
        self.save("latent.png", _beside(self.grab(3 * SMALL), np.concatenate([scan, plain, moved], 1)))
        with tempfile.TemporaryDirectory() as folder:
            found = driver.plot(cohort or write_table(Path(folder) / "drawn from the model.csv", bundle))
        plots = slicer.app.layoutManager().plotWidget(0).plotView()
        plots.rw.SetSize(2 * SMALL, 2 * SMALL)
        label = found.column("label")[1]
        plots.click(found.result.node(f"series of {label}"), 0)
        driver.wait(lambda: "Decoded from" in driver.ui.exploreLabel.text)
        driver.settle()
        views = np.concatenate([self.host.views[name].image() for name in ("Red", "Green")], 0)
        self.save("latent-cohort.png", np.concatenate([plots.image(), views], 1))

    def _slices(self) -> np.ndarray:
        return np.concatenate([self.host.views[name].image() for name in ("Red", "Green", "Yellow")], 0)

    def grab(self, height: int = 2 * SIDE) -> np.ndarray:
        """The panel's own widget as RGB."""
        self.panel.top.resize(WIDTH, height)
        self.panel.top.show()
        self.panel.pump(seconds=0.3)
        return _grab(self.panel.top)

    def save(self, name: str, rgb: np.ndarray) -> None:
        """With a palette: a third of the size, and nothing that an eye would miss."""
        from PIL import Image

        palette = Image.fromarray(rgb).quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        palette.save(self.folder / name, optimize=True)
        print(f"{self.folder / name}: {(self.folder / name).stat().st_size / 1000:.0f} kB")

    def close(self) -> None:
        self.panel.widget.cleanup()
        self.panel.pump(seconds=0.2)


def _beside(panel: np.ndarray, views: np.ndarray) -> np.ndarray:
    """Panel and views in one picture; below the views, where the panel is taller, the panel's own background."""
    gap = np.broadcast_to(panel[-1, -1], (max(0, len(panel) - len(views)), views.shape[1], 3))
    return np.concatenate([panel[: len(views) + len(gap)], np.concatenate([views, gap])], 1)


def _resize(view, side: int) -> None:
    view.rw.SetSize(side, side)
    if hasattr(view, "composite"):
        view.logic.ResizeSliceNode(side, side)
        view.logic.FitSliceToAll()


def _grab(widget) -> np.ndarray:
    from PySide6 import QtGui

    picture = widget.grab().toImage().convertToFormat(QtGui.QImage.Format_RGB888)
    rows = np.frombuffer(picture.constBits(), np.uint8).reshape(picture.height(), picture.bytesPerLine())
    return rows[:, : 3 * picture.width()].reshape(picture.height(), picture.width(), 3).copy()


if __name__ == "__main__":
    main()
