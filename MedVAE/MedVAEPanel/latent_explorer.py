"""The part of the tab where latents are moved: sliders, reset, samples, interpolation, and the volume that follows."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from slicer.i18n import tr as _

from . import display
from .handed_over import HandedOver
from .latent_results import SCAN_REFERENCE, add_decoded, fill
from .latent_sliders import LatentSliders
from .live import Live
from .saying import say
from .scan_node import state, write_array
from .silent import silent


@dataclass(frozen=True, eq=False)
class Encoding:
    """A scan and its latents. state: what it was then (`scan_node.state`). bundle, device: what they were made with.
    key: what the worker knows the scan by.

    other: latents of the second scan, its node and them, or None.
    """

    scan: Any
    state: tuple
    bundle: str
    device: str
    key: str
    latents: np.ndarray
    other: tuple[Any, np.ndarray] | None = None


class LatentExplorer:
    """`tab` gives parameters, `info` (the model) and `model` (the choice of it); `on_move()` hears of other latents.

    latents: those that the volume shows, or shall show in a moment; None before anything was looked at.
    bundle: the model that they and the volume are of; "" while that is not known, as in a scene that was just loaded.
    """

    def __init__(self, tab, ui, on_move: Callable[[], None]):
        self.tab, self.ui, self._on_move = tab, ui, on_move
        self.encoding: Encoding | None = None
        self.latents: np.ndarray | None = None
        self.bundle = ""
        self._opacity: float | None = None
        self._folder: Path | None = None
        self.handed_over = HandedOver(tab.panel.worker)
        self.sliders = LatentSliders(ui.slidersBox, self._on_slider)
        request = tab.panel.worker.request
        self.live = Live(request, "latent_decode", self._request, self._on_decoded, self._on_error, _remove_decoded)
        self.drawing = Live(request, "latent_draw", lambda asked: {**self._model(), **asked}, self._on_drawn,
                            self._on_error)
        ui.resetButton.connect("clicked(bool)", lambda *a: self.reset())
        ui.interpolateSlider.connect("valueChanged(double)", self._on_interpolate)
        ui.sampleButton.connect("clicked(bool)", lambda *a: self.sample())

    @property
    def volume(self):
        """What shows the latents; None if it was never made, or the user deleted it."""
        parameters = self.tab.parameters
        return parameters.decoded if parameters is not None else None

    # --- From the tab ------------------------------------------------------------------------------------------------

    def begin(self, encoding: Encoding, volume) -> None:
        """A scan was encoded; `volume` shows its reconstruction."""
        self.drop()
        self.encoding, self.latents = encoding, encoding.latents.copy()
        self._set_interpolation(0.0)
        self.tab.parameters.decoded = volume
        self.show_in_views()
        self.say("")
        self.update(self.tab.parameters)

    def follow(self, scan, bundle: str) -> None:
        """Forgets what does not belong to the scan and the model that are chosen now."""
        other_scan = self.encoding is not None and self.encoding.scan is not scan
        if other_scan or self.bundle not in ("", bundle):
            self.forget()
        self.bundle = bundle

    def leave(self) -> None:
        """The scene is another one: the volume in it stays as it was saved."""
        self._let_go()
        self.bundle = ""

    def forget(self) -> None:
        """Another scan or model was chosen: the volume does not follow the sliders any more."""
        self._let_go()
        if self.tab.parameters is not None:
            self.tab.parameters.decoded = None
        self.say("")

    def _let_go(self) -> None:
        self.drop()
        self.encoding = self.latents = None
        self.handed_over.drop()

    def drop(self) -> None:
        """Nobody wants to see what was asked of the worker so far."""
        self.live.drop()
        self._stop_drawing()

    def update(self, parameters) -> None:
        """Called whenever parameters or model may have changed."""
        info, ui = self.tab.info, self.ui
        before, self._opacity = self._opacity, parameters.opacity if parameters is not None else None
        if before is not None and parameters is not None and parameters.opacity != before:
            display.set_opacity(parameters.decoded, parameters.opacity)
        able = parameters is not None and info.ready
        if able:
            self.sliders.offer(info, parameters.order.value, parameters.sliders)
            self.sliders.show(self.current)
        self.sliders.enable(able)
        for widget in (ui.sampleButton, ui.resetButton, ui.orderCombo, ui.slidersSpin):
            widget.enabled = able
        ui.opacitySlider.enabled = able and parameters.decoded is not None and self.encoding is not None
        other = self.encoding.other if self.encoding is not None else None
        ui.interpolateSlider.enabled = other is not None and parameters.other is other[0]
        ui.interpolateSlider.toolTip = _("From the scan (0) to the second scan (1), through the latents between.") if (
            ui.interpolateSlider.enabled) else _("Choose a second scan and encode.")

    @property
    def start(self) -> np.ndarray:
        """Where Reset leads: the scan's latents, or without one the mean of the training images."""
        return self.encoding.latents if self.encoding is not None else self.tab.info.moments()[0]

    @property
    def current(self) -> np.ndarray:
        return self.latents if self.latents is not None else self.start

    # --- Moving ------------------------------------------------------------------------------------------------------

    def go_to(self, latents: np.ndarray, what: str = "") -> None:
        """Shows these latents (Z,), as soon as the worker has decoded them. what: where they came from, in words."""
        self._stop_drawing()
        self._go_to(latents, what)

    def _go_to(self, latents: np.ndarray, what: str) -> None:
        self.latents = np.array(latents, np.float64)
        self.sliders.show(self.latents)
        self.say(what)
        self.live.ask(self.latents)
        self._on_move()

    def reset(self) -> None:
        self._set_interpolation(0.0)
        self.go_to(self.start, _("The scan's own latents.") if self.encoding is not None else
                   _("The mean of the training images."))

    def sample(self) -> None:
        """Goes to latents that the model draws with the seed that is shown, which moves on by one at once."""
        parameters = self.tab.parameters
        asked = {"seed": parameters.seed, "label": self.tab.drawn_label}
        parameters.seed = (parameters.seed + 1) % 1_000_000
        self.say(_("Drawing a sample…"))
        self.drawing.ask(asked)

    def _on_drawn(self, asked: Mapping[str, Any], reply: Mapping[str, Any]) -> None:
        of = _("label {label}").format(label=asked["label"]) if asked["label"] else _("all training images")
        self._go_to(reply["latents"], _("Random sample (seed {seed}, {of}).").format(seed=asked["seed"], of=of))

    def _stop_drawing(self) -> None:
        """The user went elsewhere meanwhile."""
        if self.drawing.busy:
            self.drawing.drop()
            self.say("")

    def _on_slider(self, index: int, value: float) -> None:
        self._stop_drawing()
        moved = self.current.copy()
        moved[index] = value
        self.latents = moved
        self.say("")  # they are nobody's any more
        self.live.ask(moved)
        self._on_move()

    def _on_interpolate(self, share: float) -> None:
        if self.encoding is None or self.encoding.other is None:
            return
        other, latents = self.encoding.other
        self.go_to((1 - share) * self.encoding.latents + share * latents, _("{share:.0%} of the way to {name}.").format(
            share=share, name=other.GetName()))

    def _set_interpolation(self, share: float) -> None:
        slider = self.ui.interpolateSlider
        with silent(slider):
            slider.value = share

    # --- Decoding ----------------------------------------------------------------------------------------------------

    def folder(self) -> Path:
        """For the latents on their way to the worker, and what it decodes. Raises OSError."""
        if self._folder is None or not self._folder.is_dir():
            self._folder = self.tab.panel.worker.folder("latent")
        return self._folder

    def target(self, hand_over: Callable[[Any], Mapping[str, Any]]) -> dict[str, Any]:
        """What a request says of the encoded scan, nothing without one. hand_over(scan): writes its file, if need be.
        Raises ValueError if the scan is not what was encoded any more, OSError."""
        encoding = self.encoding
        if encoding is None:
            return {}
        if state(encoding.scan) != encoding.state:
            raise ValueError(_("The scan was changed: encode it again."))
        return {"scan": hand_over(encoding.scan), "key": encoding.key}

    def _request(self, latents: np.ndarray) -> dict[str, Any]:
        folder = self.folder()
        write_array(latents, folder / "latents.npy")
        return {**self._model(), **self.target(self.handed_over.keep), "latents": str(folder / "latents.npy"),
                "output": str(folder / f"decoded-{self.live.sent}")}

    def _model(self) -> dict[str, str]:
        """Bundle and device for a request: the encoded scan stays on those that it was encoded with."""
        encoding = self.encoding
        return self.tab.chosen() if encoding is None else {"bundle": encoding.bundle, "device": encoding.device}

    def _on_decoded(self, latents: np.ndarray, reply: Mapping[str, Any]) -> None:
        try:
            if self.tab.parameters is not None:
                self._put(latents, reply)
        except (ValueError, OSError) as error:
            self.say(str(error), bad=True)
        finally:
            _remove_decoded(reply)

    def _put(self, latents: np.ndarray, reply: Mapping[str, Any]) -> None:
        volume, scan = self.volume, self.encoding.scan if self.encoding is not None else None
        # What lies on a scan in a loaded scene stays as it was saved, because the scan's encoding did not come with it.
        if volume is not None and (scan is not None or not volume.GetNodeReferenceID(SCAN_REFERENCE)):
            fill(volume, latents, reply)
            if self.tab.panel.entered and not display.in_views(volume):  # as after generating, or after a detection
                self.show_in_views()
            return
        self.tab.parameters.decoded = add_decoded(scan, self.tab.info.reply["name"], reply, self.tab.chosen())
        fill(self.volume, latents, reply)
        self.show_in_views()
        self.tab.update_result()

    def _on_error(self, error: Mapping[str, Any]) -> None:
        if error.get("kind") != "Cancelled":
            self.say(error["message"], bad=True)

    def show_in_views(self) -> None:
        """The decoded volume over its scan; without one it is the background, and the views go to its middle."""
        volume = self.volume
        if volume is None:
            return
        if self.encoding is not None:
            display.show(self.encoding.scan, volume, self.tab.parameters.opacity)
        else:
            show_alone(volume)

    def say(self, text: str, bad: bool = False) -> None:
        say(self.ui.exploreLabel, text, bad)


def show_alone(volume) -> None:
    """In all slice views, with nothing over it."""
    display.show(volume, None, 0.0)
    bounds = np.zeros(6)
    volume.GetRASBounds(bounds)
    slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *bounds.reshape(3, 2).mean(1))


def _remove_decoded(reply: Mapping[str, Any]) -> None:
    shutil.rmtree(Path(reply["arrays"]["decoded"]).parent, ignore_errors=True)
