"""Colour tables, made here so that they are the same everywhere.

Sequential: dark violet over red and orange to pale yellow, lightness rising evenly (in CIE L*), so that equal steps
of the score look like equal steps. Diverging: blue below, red above, transparent around zero.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import slicer

from .belonging import mark, run_of

SEQUENTIAL = ((20, 290), (38, 330), (52, 8), (66, 42), (80, 68), (94, 98))
"""Control points: lightness L* and hue in degrees, at even steps."""
_CHROMA = (52, 68, 78, 76, 74, 48)
DIVERGING = ((0.03, 0.19, 0.60), (0.26, 0.58, 0.97), (0.97, 0.97, 0.97), (0.96, 0.42, 0.26), (0.62, 0.02, 0.10))
STEPS = 256
_SHARED = "MedVAE.Sequential"
_FAR = 1e30


def sequential() -> np.ndarray:
    """(256, 4) RGBA in 0…1, opaque."""
    at, points = np.linspace(0, 1, STEPS), np.linspace(0, 1, len(SEQUENTIAL))
    lightness = np.interp(at, points, [light for light, _ in SEQUENTIAL])
    hue = np.unwrap(np.deg2rad([hue for _, hue in SEQUENTIAL]))
    hue = np.interp(at, points, hue)
    chroma = np.interp(at, points, _CHROMA)
    rgb = _rgb_of_lab(lightness, chroma * np.cos(hue), chroma * np.sin(hue))
    return np.column_stack([rgb, np.ones(STEPS)])


def diverging(transparent_below: float) -> np.ndarray:
    """(256, 4) RGBA for -1…1; entries nearer to zero than `transparent_below` (0…1) are transparent."""
    at = np.linspace(-1, 1, STEPS)
    points = np.linspace(-1, 1, len(DIVERGING))
    rgb = np.column_stack([np.interp(at, points, channel) for channel in np.transpose(DIVERGING)])
    return np.column_stack([rgb, (np.abs(at) >= min(transparent_below, 1.0)).astype(float)])


def fill(node, rgba: np.ndarray) -> None:
    """Writes a table into a colour node with as many colours."""
    changing = node.StartModify()
    for index, (red, green, blue, alpha) in enumerate(rgba):
        node.SetColor(index, f"{index}", float(red), float(green), float(blue), float(alpha))
    node.EndModify(changing)


def make_table(node) -> None:
    """Makes room in a new colour node for a table."""
    node.SetTypeToUser()
    node.SetNumberOfColors(STEPS)


def sequential_node():
    """The scene's node with the sequential table, which results share: selectors of colours list all that there are."""
    node = next(iter(_shared()), None)
    if node is None:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLColorTableNode", "MedVAE")
        make_table(node)
        node.SetAttribute(_SHARED, "1")
        fill(node, sequential())
    return node


def is_table(node) -> bool:
    return bool(node.IsA("vtkMRMLColorTableNode"))


def used() -> list:
    """The tables that anything in the scene is shown with."""
    return [shown.GetColorNode() for shown in slicer.util.getNodesByClass("vtkMRMLDisplayNode")]


def remove_unused() -> None:
    """Takes the sequential table out of the scene when nothing is shown with it any more."""
    in_use = used()
    for node in _shared():
        for each in (node.GetStorageNode(), node) if node not in in_use else ():
            if each is not None:
                slicer.mrmlScene.RemoveNode(each)


def hide_below(shown, value: float) -> None:
    """What is less than `value` is transparent. shown: the display of a volume."""
    shown.SetThreshold(value, _FAR)
    shown.SetApplyThreshold(True)


def add_legend(node, title: str, label_format: str, labels: int, size: tuple[float, float],
               position: tuple[float, float], view_ids: Iterable[str]) -> None:
    """The colours of a result's node, with numbers beside them, in these views. size, position: in shares of a view."""
    legend = slicer.modules.colors.logic().AddDefaultColorLegendDisplayNode(node)
    legend.SetTitleText(title)
    legend.SetLabelFormat(label_format)
    legend.SetNumberOfLabels(labels)
    legend.SetSize(*size)  # the text grows with it
    legend.SetPosition(*position)
    mark(legend, run_of(node))
    for view_id in view_ids:
        legend.AddViewNodeID(view_id)


def _shared() -> list:
    return [node for node in slicer.util.getNodesByClass("vtkMRMLColorTableNode") if node.GetAttribute(_SHARED)]


def _rgb_of_lab(lightness: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """CIE L*a*b* (D65) to sRGB in 0…1; what no screen can show is clipped."""
    fy = (lightness + 16) / 116
    f = np.stack([fy + a / 500, fy, fy - b / 200])
    xyz = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29)) * np.array([[0.95047], [1.0], [1.08883]])
    matrix = [[3.2406, -1.5372, -0.4986], [-0.9689, 1.8758, 0.0415], [0.0557, -0.2040, 1.0570]]
    linear = np.clip(np.array(matrix) @ xyz, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055).T
