"""One slider for each of the latents that matter most, in standard deviations of the training images."""

from __future__ import annotations

from collections.abc import Callable

import ctk
import numpy as np
import qt
from slicer.i18n import tr as _

from .latent_model import LatentModelInfo
from .silent import silent

_REACH = 4.0
_STEP = 0.05


class LatentSliders:
    """Fills `box`, a widget with a grid layout. `on_moved(index, value)` is told of the user's moves, in the latent's
    own units."""

    def __init__(self, box, on_moved: Callable[[int, float], None]):
        self.box, self._on_moved = box, on_moved
        self._rows: list[tuple] = []
        self._indices: list[int] = []
        self._mean = self._std = np.zeros(0)

    @property
    def indices(self) -> list[int]:
        """The latents that have a slider, from top to bottom."""
        return list(self._indices)

    def slider(self, row: int):
        return self._rows[row][1]

    def offer(self, info: LatentModelInfo, by: str, count: int) -> None:
        """The first `count` latents of the model's order; none while it is not known."""
        indices = info.order(by)[:count] if info.ready else []
        while len(self._rows) < len(indices):
            self._add_row()
        self._indices = indices
        if info.ready:
            self._mean, self._std = info.moments()
        kl = info.reply.get("kl")
        for row, (label, slider) in enumerate(self._rows):
            shown = row < len(indices)
            label.setVisible(shown)
            slider.setVisible(shown)
            if shown:
                index = indices[row]
                label.text = _("Latent {number}:").format(number=index)
                slider.toolTip = _("In standard deviations of the training images' latents; 0 is their mean.") + (
                    "\n" + _("It carries {kl:.2f} nats of an image on average.").format(kl=kl[index]) if kl else "")

    def show(self, latents: np.ndarray) -> None:
        """Moves the sliders without telling anyone; a value far out widens its slider."""
        for row, index in enumerate(self._indices):
            slider, value = self._rows[row][1], float((latents[index] - self._mean[index]) / self._std[index])
            reach = max(_REACH, float(np.ceil(abs(value))))
            with silent(slider):
                slider.minimum, slider.maximum = -reach, reach
                slider.value = value

    def enable(self, on: bool) -> None:
        for _label, slider in self._rows:
            slider.enabled = on

    def _add_row(self) -> None:
        row, layout = len(self._rows), self.box.layout()
        label, slider = qt.QLabel(self.box), ctk.ctkSliderWidget(self.box)
        slider.singleStep, slider.decimals = _STEP, 2
        slider.minimum, slider.maximum, slider.value = -_REACH, _REACH, 0.0
        slider.connect("valueChanged(double)", lambda value, row=row: self._moved(row, value))
        layout.addWidget(label, row, 0)
        layout.addWidget(slider, row, 1)
        self._rows.append((label, slider))

    def _moved(self, row: int, value: float) -> None:
        if row < len(self._indices):
            index = self._indices[row]
            self._on_moved(index, float(self._mean[index] + value * self._std[index]))
