"""Cuts, colours and letters the report's pictures: numpy for the pixels, Pillow for resizing and text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.colors import Colormap
from PIL import Image, ImageDraw, ImageFont

from ..anomaly.result import Finding
from .colours import OUTLINE, Legend, ScoreScale
from .display import AXIAL, PLANES, Display, Plane

BACKGROUND = (13, 15, 18)
GAP_PX = 6
LETTER = (255, 255, 255)
MUTED = (206, 212, 218)
CROSS_GAP_MM = 5.0


@lru_cache(maxsize=16)
def font(size: int) -> ImageFont.FreeTypeFont:
    """The sans font that comes with matplotlib, so that pictures look alike on every machine."""
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)


@dataclass(frozen=True)
class Spot:
    """What a panel points at: a cropped display index (zyx) and, if it is a finding's, the component's label."""

    index: tuple[int, int, int]
    label: int = 0


class Painter:
    """Draws panels of one detection. Every panel of one call has the same millimetres per pixel in all planes."""

    def __init__(self, display: Display, scale: ScoreScale):
        self.display = display
        self.scale = scale

    def polarities(self) -> list[str]:
        """Which of "bright" and "dark" the overlay shows, the former if neither."""
        dark = bool(self.display.dark.any())
        bright = not dark or bool((self.display.mask & ~self.display.dark).any())
        return ["bright"] * bright + ["dark"] * dark

    def scan_panel(self, plane: Plane, index: int, px_per_mm: float) -> Image.Image:
        """The scan alone."""
        return self.grey_panel(self.display.scan, plane, index, px_per_mm)

    def grey_panel(self, volume: np.ndarray, plane: Plane, index: int, px_per_mm: float) -> Image.Image:
        """A volume in scan units in the scan's own grey window."""
        low, high = self.display.window
        values = np.nan_to_num(plane.slice(volume, index).astype(np.float32), nan=low, posinf=high, neginf=low)
        grey = np.clip((values - low) * (255.0 / (high - low)), 0, 255).astype(np.uint8)
        return Image.fromarray(grey).resize(self._size(plane, px_per_mm), Image.Resampling.BICUBIC).convert("RGB")

    def map_panel(self, volume: np.ndarray, colormap: Colormap, low: float, high: float,
                  plane: Plane, index: int, px_per_mm: float) -> Image.Image:
        """A volume in a colour map, black outside the brain."""
        size = self._size(plane, px_per_mm)
        values = _smooth(np.nan_to_num(plane.slice(volume, index).astype(np.float32)), size)
        inside = _smooth(plane.slice(self.display.brain, index).astype(np.float32), size)[..., None]
        colours = colormap(np.clip((values - low) / (high - low), 0, 1))[..., :3] * 255
        pixels = inside * colours + (1 - inside) * np.array(BACKGROUND)
        return Image.fromarray(pixels.astype(np.uint8))

    def overlay_panel(self, plane: Plane, index: int, px_per_mm: float, focus: int = 0) -> Image.Image:
        """The scan with scores above the threshold in colour and findings outlined, the one in focus thicker."""
        base = self.scan_panel(plane, index, px_per_mm)
        score = np.nan_to_num(plane.slice(self.display.anomaly, index).astype(np.float32))
        components = plane.slice(self.display.components, index)
        if not (score > self.scale.threshold).any():
            return base
        size = base.size
        pixels = np.asarray(base).astype(np.float32)
        dark = plane.slice(self.display.dark, index)
        for polarity, where in (("bright", ~dark), ("dark", dark)):
            shown = _smooth(np.where(where, score, np.minimum(score, self.scale.threshold)), size)
            coloured = np.nonzero(shown > self.scale.threshold)
            if coloured[0].size:
                shown = shown[coloured]
                opacity = self.scale.opacity(shown)[:, None]
                pixels[coloured] += opacity * (self.scale.colour(shown, polarity) - pixels[coloured])
        width = max(1.2, 0.45 * px_per_mm)
        draw_outline(pixels, (components > 0) & (components != focus), width * 0.8, 0.8, OUTLINE)
        if focus:
            draw_outline(pixels, components == focus, width * 1.5, 1.0, OUTLINE)
        return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))

    def mark(self, panel: Image.Image, plane: Plane, index: tuple[int, int, int], px_per_mm: float, *, size: int,
             with_scale: bool = True) -> Image.Image:
        """Writes the edge letters, where the slice lies (at the voxel `index`) and a scale bar onto a panel."""
        edge_letters(panel, plane.letters, f"{plane.name} {self.display.slice_position(plane, index)}", size)
        if with_scale:
            scale_bar(panel, px_per_mm, size)
        return panel

    def cross(self, panel: Image.Image, plane: Plane, spot: Spot, px_per_mm: float) -> Image.Image:
        """Faint lines from the edges towards the spot that stop well before the finding."""
        steps = (self.display.spacing_mm[plane.columns], self.display.spacing_mm[plane.rows])
        at = [spot.index[plane.columns], spot.index[plane.rows]]
        if plane.flip_rows:
            at[1] = self.display.brain.shape[plane.rows] - 1 - at[1]
        low, high = list(at), list(at)
        if spot.label:
            inside = plane.slice(self.display.components, spot.index[plane.cut]) == spot.label
            rows, columns = np.nonzero(inside)
            if rows.size:
                low, high = [int(columns.min()), int(rows.min())], [int(columns.max()), int(rows.max())]
        x, y = ((at[axis] + 0.5) * steps[axis] * px_per_mm for axis in (0, 1))
        gap = [(max(0.0, (low[axis] * steps[axis] - CROSS_GAP_MM) * px_per_mm),
                ((high[axis] + 1) * steps[axis] + CROSS_GAP_MM) * px_per_mm) for axis in (0, 1)]
        width, height = panel.size
        veil = Image.new("RGBA", panel.size)
        draw = ImageDraw.Draw(veil)
        ink = (255, 255, 255, 110)
        for line in ((0, y, gap[0][0], y), (gap[0][1], y, width, y), (x, 0, x, gap[1][0]), (x, gap[1][1], x, height)):
            if line[2] > line[0] or line[3] > line[1]:
                draw.line(line, fill=ink, width=1)
        panel.paste(veil, mask=veil.getchannel("A"))
        return panel

    def _size(self, plane: Plane, px_per_mm: float) -> tuple[int, int]:
        width_mm, height_mm = self.display.size_mm(plane)
        return max(8, round(width_mm * px_per_mm)), max(8, round(height_mm * px_per_mm))


def three_planes(painter: Painter, spot: Spot, *, width_px: int, with_scan: bool) -> Image.Image:
    """Axial, coronal and sagittal planes through a spot with the overlay, the scan alone above each if asked."""
    sizes = [painter.display.size_mm(plane) for plane in PLANES]
    px_per_mm = (width_px - 2 * GAP_PX) / sum(width for width, _ in sizes)
    rows: list[list[Image.Image]] = []
    for overlaid in ((False, True) if with_scan else (True,)):
        row = []
        for plane in PLANES:
            index = spot.index[plane.cut]
            panel = (painter.overlay_panel(plane, index, px_per_mm, spot.label) if overlaid
                     else painter.scan_panel(plane, index, px_per_mm))
            if overlaid:
                panel = painter.cross(panel, plane, spot, px_per_mm)
            row.append(painter.mark(panel, plane, spot.index, px_per_mm, size=24))
        rows.append(row)
    return grid(rows)


def montage(painter: Painter, findings: list[Finding], *, width_px: int, columns: int, rows: int) -> Image.Image:
    """Axial slices evenly over the brain, foot to head, with overlay, outlines and the findings' row numbers."""
    display = painter.display
    area = display.brain.sum(axis=(1, 2))
    filled = np.flatnonzero(area >= max(1, 0.12 * area.max())) if display.has_brain else np.arange(area.size)
    count = min(columns * rows, filled.size)
    slices = filled[np.round(np.linspace(0, filled.size - 1, count)).astype(int)]
    px_per_mm = (width_px - (columns - 1) * GAP_PX) / columns / display.size_mm(AXIAL)[0]
    numbers: dict[int, list[tuple[int, Finding]]] = {}
    shown = [set(np.unique(display.components[index])) for index in slices]
    for rank, finding in enumerate(findings, start=1):
        cutting = [index for index, labels in zip(slices, shown, strict=True) if finding.label in labels]
        peak = display.index(finding.peak_ras_mm)[0]
        nearest = min(cutting or slices, key=lambda index: abs(int(index) - peak))
        numbers.setdefault(int(nearest), []).append((rank, finding))
    panels = []
    for index in slices:
        panel = painter.overlay_panel(AXIAL, int(index), px_per_mm)
        draw = ImageDraw.Draw(panel)
        where = display.slice_position(AXIAL, (int(index), *display.centre()[1:]))
        write_text(draw, (4, 4), where, 15, "lt", MUTED)
        write_text(draw, (4, panel.height // 2), "R", 15, "lm")
        write_text(draw, (panel.width - 4, panel.height // 2), "L", 15, "rm")
        _number(painter, panel, int(index), px_per_mm, numbers.get(int(index), []))
        panels.append(panel)
    return grid([panels[start:start + columns] for start in range(0, len(panels), columns)])


def _number(painter: Painter, panel: Image.Image, index: int, px_per_mm: float,
            ranked: list[tuple[int, Finding]]) -> None:
    """Writes each finding's row number beside it, or its peak if it lies between the slices shown, where there is
    room."""
    draw = ImageDraw.Draw(panel)
    step = px_per_mm * painter.display.spacing_mm[2], px_per_mm * painter.display.spacing_mm[1]
    taken: list[tuple[float, float, float, float]] = []
    for rank, finding in ranked:
        rows, columns = np.nonzero(painter.display.components[index] == finding.label)
        if not rows.size:
            rows, columns = (np.array([at]) for at in painter.display.index(finding.peak_ras_mm)[1:])
        left, right = columns.min() * step[0], (columns.max() + 1) * step[0]
        top, bottom = rows.min() * step[1], (rows.max() + 1) * step[1]
        middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
        for at, anchor in (((right + 3, middle_y), "lm"), ((left - 3, middle_y), "rm"), ((middle_x, top - 3), "mb"),
                           ((middle_x, bottom + 3), "mt")):
            box = draw.textbbox(at, str(rank), font(16), anchor, stroke_width=2)
            fits = box[0] > 2 and box[1] > 18 and box[2] < panel.width - 2 and box[3] < panel.height - 2
            clear = all(box[2] < t[0] or box[0] > t[2] or box[3] < t[1] or box[1] > t[3] for t in taken)
            if fits and clear:
                write_text(draw, at, str(rank), 16, anchor)
                taken.append(box)
                break


def grid(rows: list[list[Image.Image]]) -> Image.Image:
    """Panels on a dark ground, centred in columns as wide and rows as high as their largest panel."""
    columns = max(len(row) for row in rows)
    widths = [max(row[column].width for row in rows if column < len(row)) for column in range(columns)]
    heights = [max(panel.height for panel in row) for row in rows]
    sheet = Image.new("RGB", (sum(widths) + GAP_PX * (columns - 1), sum(heights) + GAP_PX * (len(rows) - 1)),
                      BACKGROUND)
    y = 0
    for row, height in zip(rows, heights, strict=True):
        x = 0
        for panel, width in zip(row, widths, strict=False):
            sheet.paste(panel, (x + (width - panel.width) // 2, y + (height - panel.height) // 2))
            x += width + GAP_PX
        y += height + GAP_PX
    return sheet


def captioned(picture: Image.Image, title: str, note: str, legends: list[Legend]) -> Image.Image:
    """A picture that stands alone: title and note above, colour bars with units below."""
    margin, bar_height = 20, 78
    sheet = Image.new("RGB", (picture.width + 2 * margin, picture.height + 96 + bar_height + margin), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    room = picture.width
    draw.text((margin, 16), _fitted(draw, title, 26, room), LETTER, font(26))
    draw.text((margin, 54), _fitted(draw, note, 19, room), MUTED, font(19))
    sheet.paste(picture, (margin, 90))
    top = 90 + picture.height + 34
    width = min(620, (room - 60 * (len(legends) - 1)) // max(1, len(legends)))
    for place, legend in enumerate(legends):
        left = margin + place * (width + 60)
        beside = draw.textlength(legend.mark[1], font(17)) + 16 if legend.mark else 0
        draw.text((left, top - 24), _fitted(draw, legend.title, 14, width - beside), MUTED, font(14))
        sheet.paste(Image.fromarray(legend.strip).resize((width, 16)), (left, top))
        for percent, label in legend.ticks:
            x = left + percent / 100 * width
            anchor = "la" if percent < 2 else "ra" if percent > 98 else "ma"
            draw.text((x, top + 20), label, MUTED, font(17), anchor)
        if legend.mark:
            x = left + legend.mark[0] / 100 * width
            draw.line((x, top - 4, x, top + 20), LETTER, 2)
            draw.text((left + width, top - 26), legend.mark[1], LETTER, font(17), "ra")
    return sheet


def edge_letters(panel: Image.Image, letters: Sequence[str], title: str, size: int) -> None:
    """Writes letters of so many pixels at the left, right, top and bottom edge of a picture, in this order, and a title
    in its upper left corner."""
    draw, (width, height), pad = ImageDraw.Draw(panel), panel.size, _padding(size)
    places = (((pad, height // 2), "lm"), ((width - pad, height // 2), "rm"), ((width // 2, pad), "mt"),
              ((width // 2, height - pad), "mb"))
    for letter, (at, anchor) in zip(letters, places, strict=True):
        write_text(draw, at, letter, size, anchor)
    write_text(draw, (pad, pad), title, _small(size), "lt", MUTED)


def scale_bar(panel: Image.Image, px_per_mm: float, size: int) -> None:
    """Draws a bar of a round length, a third of the picture's width at most, into its lower right corner. size: of the
    letters elsewhere on the picture."""
    draw, (width, height), pad = ImageDraw.Draw(panel), panel.size, _padding(size)
    length_mm = next(mm for mm in (50, 20, 10, 5, 1) if mm * px_per_mm < 0.34 * width or mm == 1)
    end, y = width - 2 * pad, height - 2 * pad
    start = end - length_mm * px_per_mm
    for x0, y0, x1, y1 in ((start, y, end, y), (start, y - pad, start, y + pad), (end, y - pad, end, y + pad)):
        draw.line((x0 + 1, y0 + 1, x1 + 1, y1 + 1), fill=(0, 0, 0), width=2)
        draw.line((x0, y0, x1, y1), fill=LETTER, width=2)
    write_text(draw, ((start + end) / 2, y - pad - 1), f"{length_mm} mm", _small(size), "mb", MUTED)


def _padding(size: int) -> int:
    return max(3, size // 4)


def _small(size: int) -> int:
    return max(13, int(size * 0.75))


def _smooth(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Linear interpolation to a picture's size (width, height)."""
    picture = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR))


def draw_outline(pixels: np.ndarray, mask: np.ndarray, width_px: float, opacity: float,
                 colour: tuple[int, int, int]) -> None:
    """Draws an antialiased line of `width_px` around a mask (of fewer pixels) onto a picture (rows, columns, RGB)."""
    if not mask.any():
        return
    level = _smooth(mask, (pixels.shape[1], pixels.shape[0]))
    rows, columns = np.flatnonzero(level.any(axis=1)), np.flatnonzero(level.any(axis=0))
    box = slice(rows[0], rows[-1] + 2), slice(columns[0], columns[-1] + 2)
    level = level[box]
    if min(level.shape) < 2:
        return
    by_row, by_column = np.gradient(level)
    distance_px = np.abs(level - 0.5) / np.maximum(np.hypot(by_row, by_column), 1e-3)
    line = opacity * np.clip(width_px / 2 + 0.5 - distance_px, 0.0, 1.0)[..., None]
    pixels[box] += line * (np.array(colour, np.float32) - pixels[box])


def write_text(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, size: int, anchor: str,
          fill: tuple[int, int, int] = LETTER) -> None:
    draw.text(at, text, fill, font(size), anchor, stroke_width=max(1, size // 9), stroke_fill=(0, 0, 0))


def _fitted(draw: ImageDraw.ImageDraw, text: str, size: int, room: int) -> str:
    text = " ".join(text.split())
    if draw.textlength(text, font(size)) <= room:
        return text
    while text and draw.textlength(text + "…", font(size)) > room:
        text = text[:-1]
    return text + "…"
