"""The tab Latent space: choose a model and a scan, encode, look around. Its parts are in `latent_explorer` (sliders and
the volume that follows them) and `latent_cohort` (the plot)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import qt
import slicer
import vtk
from slicer.i18n import tr as _

from . import choices, display
from .choices import ComboChoice, Entry, Offer
from .latent_cohort import CohortSection
from .latent_explorer import Encoding, LatentExplorer, show_alone
from .latent_model import LatentModelInfo
from .latent_parameters import LatentParameters
from .latent_results import DECODED, Result, add_decoded, add_generated, note_latents
from .results import remove
from .scan_node import problem, state, write_scan
from .tabs import TaskTab
from .task_run import TaskRun
from .watch import Watch

_DEFAULT_BUNDLE = "flair-latents"


class LatentTab(TaskTab):
    name = "latent"
    title = _("Latent space")
    order = 30
    page = "Latent"
    Parameters = LatentParameters

    def setup(self, page) -> None:
        self.ui = ui = slicer.util.childWidgetVariables(page)
        scene, panel = slicer.mrmlScene, self.panel
        self.addObserver(scene, scene.NodeAboutToBeRemovedEvent, self._on_node_removed)
        self.info = LatentModelInfo(panel.worker, self._on_parameters)
        self.explorer = LatentExplorer(self, ui, self._on_move)
        self.run = TaskRun(
            panel, ui.encodeButton, ui.progressBar, ui.messageLabel, _("Encode"),
            _("Finds the latents of the scan, and of the second one. You can keep working meanwhile."),
            self._missing, self.encode, self._on_parameters)
        self.generating = TaskRun(
            panel, ui.generateButton, ui.generateBar, ui.generateLabel, _("Generate"),
            _("Adds as many new volumes to the scene, on the grid of the encoded scan or else the model's own."),
            self._missing_to_generate, self.generate, self.update_buttons)
        self.cohort = CohortSection(self, ui)
        self.model = choices.ModelChoice(self, ui, lambda bundle: bool(bundle.get("latents")), _DEFAULT_BUNDLE)
        self.label = ComboChoice(ui.labelCombo, lambda name: self.set_parameter("label", name))
        self.watch = Watch(self._on_scan_changed)
        self._soon = qt.QTimer()  # a scan that a click loaded is encoded when the parameters have settled
        self._soon.setSingleShot(True)
        self._soon.connect("timeout()", self.encode)
        ui.folderButton.connect("clicked(bool)", lambda *a: self._choose_folder())
        ui.removeButton.connect("clicked(bool)", lambda *a: self.remove_last())

    @property
    def running(self):
        return self.run.running or self.cohort.run.running or self.generating.running

    # --- Scene and parameters ----------------------------------------------------------------------------------------

    def set_parameter_node(self, parameters) -> None:
        self.explorer.leave()
        self.bind(parameters, self.ui, self._on_parameters)
        if parameters is None:
            self.watch.stop()
        self._on_parameters()

    def set_parameter(self, name: str, value) -> None:
        if self.parameters is not None:
            setattr(self.parameters, name, value)

    def enter(self) -> None:
        self._on_scan_changed()  # as it can have been meanwhile
        self._on_parameters()
        self._watch_scan()
        self.cohort.enter()

    def exit(self) -> None:
        """What other modules do to the scan, and clicks on the plot there, do not concern this one."""
        self.watch.stop()
        self._soon.stop()
        self.cohort.leave()

    def on_offers(self) -> None:
        super().on_offers()
        self._on_parameters()

    def on_layout_changed(self) -> None:
        self.cohort.listen()

    def on_scene_about_to_close(self) -> None:
        for run in (self.run, self.cohort.run, self.generating):
            run.cancel(_("The scene was closed, so this was cancelled."))

    def cleanup(self) -> None:
        super().cleanup()
        self.cohort.disconnect()
        self.watch.stop()
        self._soon.stop()

    def _on_parameters(self, caller=None, event=None) -> None:
        parameters = self.parameters
        if parameters is not None:
            self.model.show(parameters)
            self.explorer.follow(parameters.scan, self._bundle)
            if self.panel.entered:
                self.panel.offers.retry()  # this tab can do nothing without an answer
                # Not before the worker has told its bundles: it is not started for this tab alone.
                self.info.look_at(self._bundle if self.panel.offers.bundles else "")
        self.ui.modelLabel.text = self.info.in_words()
        self.explorer.update(parameters)
        self.cohort.update(parameters)
        self._offer_labels()
        self.update_result()
        self.update_buttons()

    def update_buttons(self) -> None:
        for run in (self.run, self.cohort.run, self.generating):
            run.update_button()

    def update_result(self) -> None:
        self.ui.removeButton.enabled = Result.last() is not None

    @property
    def _bundle(self) -> str:
        return self.parameters.bundle or self.model.bundles.default

    @property
    def drawn_label(self) -> str:
        """Whose latents new images are drawn from, "" for all; a label of another model is none."""
        chosen = self.parameters.label if self.parameters is not None else ""
        return chosen if chosen in self.info.labels else ""

    def _offer_labels(self) -> None:
        offer = Offer([Entry("", _("all training images")), *(Entry(name, name) for name in self.info.labels)])
        self.label.offer(offer, self.drawn_label, final=False)

    def _on_move(self) -> None:
        self.cohort.mark()
        self.update_result()

    def _watch_scan(self) -> None:
        encoding = self.explorer.encoding
        if encoding is not None and self.panel.entered:
            self.watch.look_at([encoding.scan])

    def _on_scan_changed(self) -> None:
        encoding = self.explorer.encoding
        if encoding is not None and state(encoding.scan) != encoding.state:
            self.explorer.forget()
            self.run.say(_("The scan was changed: encode it again."))
            self._on_parameters()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _on_node_removed(self, caller, event, node) -> None:
        running = self.run.running
        if running is not None and node in running.subject:
            self.run.cancel(_("A scan was removed, so the encoding was cancelled."))
        if self.explorer.encoding is not None and node is self.explorer.encoding.scan:
            self.watch.stop()
            self.explorer.forget()
        self.let_go(node, "scan", "other")

    def _choose_folder(self) -> None:
        folder = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), _("The folder of a model bundle"))
        if folder:
            self.set_parameter("bundle", folder)

    # --- What is missing ---------------------------------------------------------------------------------------------

    def chosen(self) -> dict[str, str]:
        """Bundle and device, for a request."""
        return self.model.request()

    def problems(self) -> list[str]:
        """Of the model, one sentence each."""
        refusal = "" if self._is_folder() else self.model.refusal()
        waiting = "" if self.info.reply or self.info.problem else _("The worker is looking at the model.")
        return [reason for reason in (self.panel.offers.missing, refusal or self.info.problem or waiting) if reason]

    def _is_folder(self) -> bool:
        return Path(self._bundle).is_absolute()

    def _missing(self) -> list[str]:
        parameters = self.parameters
        if parameters is None:
            return [_("The scene is being closed.")]
        other = parameters.other
        of_other = problem(other) if other is not None else ""
        reasons = [problem(parameters.scan), _("Second scan: {problem}").format(problem=of_other) if of_other else ""]
        if other is not None and other is parameters.scan:
            reasons.append(_("The second scan is the first one: choose another, or none."))
        return [reason for reason in reasons if reason] + self.problems()

    def _missing_to_generate(self) -> list[str]:
        return self.problems() if self.parameters is not None else [_("The scene is being closed.")]

    # --- Encoding ----------------------------------------------------------------------------------------------------

    def encode_soon(self) -> None:
        """As by a click, in a moment."""
        self._soon.start(0)

    def encode(self) -> None:
        """Starts finding the latents of the chosen scans; returns at once."""
        if self._missing() or self.run.running is not None:
            return self.update_buttons()
        scan, other, settings = self.parameters.scan, self.parameters.other, self.chosen()
        nodes = [node for node in (scan, other) if node is not None]
        self.panel.log.secrets |= {node.GetName() for node in nodes if node.GetName()}
        before = [state(node) for node in nodes]
        self.explorer.drop()

        def fields(folder: Path) -> dict[str, Any]:
            second = {}
            if other is not None:
                (folder / "second").mkdir()
                second = {"other": write_scan(other, folder / "second")}
            return {"scan": self.explorer.handed_over.write(scan, folder), **second, **settings}

        def add(reply: Mapping[str, Any], seconds: float) -> str:
            if not all(slicer.mrmlScene.IsNodePresent(node) for node in nodes):
                raise ValueError(_("A scan was removed meanwhile; the result was dropped."))
            if [state(node) for node in nodes] != before:
                raise ValueError(_("A scan was changed meanwhile: encode it again."))
            if self._bundle != settings["bundle"]:
                raise ValueError(_("The model was changed meanwhile: encode again."))
            self._begin(reply, scan, other, settings)
            return self._in_words(reply, seconds)

        self.panel.log.add(f"Encoding started ({len(nodes)} scans, {self.parameters.device}).")
        self.run.start("latent_encode", tuple(nodes), fields, add)

    def _begin(self, reply: Mapping[str, Any], scan, other, settings) -> None:
        arrays = reply["arrays"]
        latents = np.load(arrays["mean"]).astype(float)
        second = (other, np.load(arrays["other"]).astype(float)) if "other" in arrays else None
        volume = add_decoded(scan, "", reply, settings)
        note_latents(volume, latents)
        encoding = Encoding(scan, state(scan), settings["bundle"], settings["device"], reply["key"], latents, second)
        self.explorer.begin(encoding, volume)
        self._watch_scan()

    @staticmethod
    def _in_words(reply: Mapping[str, Any], seconds: float) -> str:
        text = _("Encoded in {seconds:.1f} s on {device}. What the latents keep differs from the scan by {share:.1%} "
                 "of the brightness range on average inside the brain.") if reply["inside_brain"] else _(
                 "Encoded in {seconds:.1f} s on {device}. What the latents keep differs from the scan by {share:.1%} "
                 "of the brightness range on average.")
        text = text.format(seconds=seconds, device=choices.device_in_words(reply), share=reply["mean_difference"])
        return "\n".join([text, *reply.get("warnings", [])])

    # --- Generating --------------------------------------------------------------------------------------------------

    def generate(self) -> None:
        """Starts drawing new volumes; returns at once."""
        parameters, encoding = self.parameters, self.explorer.encoding
        scan = encoding.scan if encoding is not None else None
        settings = {**self.chosen(), "count": parameters.count, "seed": parameters.seed, "label": self.drawn_label}

        def add(reply: Mapping[str, Any], seconds: float) -> str:
            if scan is not None and not slicer.mrmlScene.IsNodePresent(scan):
                raise ValueError(_("The scan was removed meanwhile; the volumes were dropped."))
            made = add_generated(scan, reply, settings)
            self.set_parameter("seed", (settings["seed"] + settings["count"]) % 1_000_000)
            if scan is not None:
                display.show(scan, made[0], parameters.opacity)
            else:
                show_alone(made[0])
            self.update_result()
            return _("{count} volumes in {seconds:.1f} s on {device}.").format(
                count=len(made), seconds=seconds, device=choices.device_in_words(reply))

        def fields(folder: Path) -> dict[str, Any]:
            return {**settings, **self.explorer.target(lambda scan: self.explorer.handed_over.write(scan, folder))}

        self.generating.start("latent_generate", scan, fields, add)

    # --- Helpers -----------------------------------------------------------------------------------------------------

    def remove_last(self) -> None:
        """Takes away all that the last encoding, plot or generation added."""
        last = Result.last()
        if last is None:
            return
        mine = self.explorer.volume
        gone = mine is not None and last.node(DECODED) is mine
        if gone:
            self.explorer.forget()
        remove(last)
        self.run.say(_("The last result was removed."))
        self._on_parameters()

    def settings(self) -> dict[str, Any]:
        parameters = self.parameters
        return {} if parameters is None else {
            "bundle": _("a folder") if self._is_folder() else parameters.bundle or "default",
            "device": parameters.device, "order": parameters.order.value, "sliders": parameters.sliders,
            "count": parameters.count, "seed": parameters.seed, "second scan": parameters.other is not None,
            "cohort": bool(parameters.cohort),
        }
