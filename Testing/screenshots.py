"""`make screenshots`: the pictures of README and catalogue, from the panel in the test host after a real detection.

Writes panel.png, findings-3d.png and compare.png into Resources/screenshots.
"""

import os
from pathlib import Path

import numpy as np

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", "vtkEGLRenderWindow")

FOLDER = Path(__file__).resolve().parents[1] / "Resources" / "screenshots"
SIDE = 420


def main() -> None:
    from Testing.slicer_host import application, scene

    host = scene.HeadlessSlicer()
    application.install(host)
    for name, orientation in (("Red", "Axial"), ("Yellow", "Sagittal"), ("Green", "Coronal")):
        host.addSliceView(name, orientation, (SIDE, SIDE))
    host.add3DView("1", (SIDE, SIDE))

    import slicer

    from Testing.panel import detections
    from Testing.panel.conftest import Panel

    panel = Panel(host)
    scan = detections.add_scan()
    panel.ui.inputSelector.setCurrentNode(scan)
    slicer.util.setSliceViewerLayers(background=scan, fit=False)
    for name in ("Red", "Yellow", "Green"):
        host.views[name].fit()
    panel.detect(samples=16)
    panel.ui.findingsTable.selectRow(0)
    panel.ui.surfaceButton.click()
    panel.pump(seconds=0.3)
    host.views["1"].resetCamera()
    image = {name: host.views[name].image() for name in ("Red", "Yellow", "Green", "1")}
    rows = [np.concatenate([image[a], image[b]], 1) for a, b in (("Red", "1"), ("Green", "Yellow"))]
    save("panel.png", np.concatenate([grab(panel, 2 * SIDE), np.concatenate(rows)], 1))
    save("findings-3d.png", image["1"])
    panel.ui.compareButton.click()
    panel.pump(seconds=0.3)
    save("compare.png", np.concatenate([host.views[name].image() for name in ("MedVAEScan", "MedVAEMap")], 1))
    panel.widget.cleanup()
    panel.pump(seconds=0.2)


def grab(panel, height: int) -> np.ndarray:
    """The panel's own widget as RGB."""
    from PySide6 import QtGui

    panel.top.resize(470, height)
    panel.top.show()
    panel.pump(seconds=0.3)
    picture = panel.top.grab().toImage().convertToFormat(QtGui.QImage.Format_RGB888)
    rows = np.frombuffer(picture.constBits(), np.uint8).reshape(picture.height(), picture.bytesPerLine())
    return rows[:, : 3 * picture.width()].reshape(picture.height(), picture.width(), 3).copy()


def save(name: str, rgb: np.ndarray) -> None:
    from PIL import Image

    palette = Image.fromarray(rgb).quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    palette.save(FOLDER / name, optimize=True)
    print(FOLDER / name)


if __name__ == "__main__":
    main()
