"""The tab Fetal skull: choose the planes there are, predict, look. `skull_section` shows what was predicted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import slicer
import vtk
from slicer.i18n import tr as _

from . import choices
from .plane_choice import PlaneChoice
from .plane_node import PLANES, PlaneSource, composite_node, slice_node
from .skull_parameters import SkullParameters
from .skull_results import add_result
from .skull_section import SkullSection
from .tabs import TaskTab
from .task_run import TaskRun
from .watch import Watch

_SEED = 0
_DEFAULT_BUNDLE = "fetal-skull"
_WEEKS = (14.0, 40.0)


class SkullTab(TaskTab):
    name = "skull"
    title = _("Fetal skull")
    order = 20
    page = "Skull"
    Parameters = SkullParameters

    def setup(self, page) -> None:
        self.ui = ui = slicer.util.childWidgetVariables(page)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.NodeAboutToBeRemovedEvent, self._on_node_removed)
        self.planes = [PlaneChoice(self, ui, name, self._on_parameters) for name in PLANES]
        self.watch = Watch(self._on_parameters)
        self.results = SkullSection(self, ui)
        self.run = TaskRun(
            self.panel, ui.predictButton, ui.progressBar, ui.messageLabel, _("Predict skull"),
            _("Predicts the skull in 3D from the planes chosen. You can keep working meanwhile."),
            self._missing, self.predict, self._on_parameters)
        self.model = choices.ModelChoice(self, ui, lambda bundle: bundle.get("skull"), _DEFAULT_BUNDLE)
        ui.sampleButton.connect("clicked(bool)", lambda *a: self._load_sample())

    # --- Scene and parameters ----------------------------------------------------------------------------------------

    def set_parameter_node(self, parameters) -> None:
        self.bind(parameters, self.ui, self._on_parameters)
        if parameters is not None:
            self._on_parameters()
        else:
            self.watch.stop()
            self.results.update(None)

    def enter(self) -> None:
        self.on_layout_changed()
        self._on_parameters()

    def exit(self) -> None:
        """What other modules do to images and views is looked at when this one is entered again."""
        self.watch.stop()

    def on_layout_changed(self) -> None:
        for plane in self.planes:
            plane.offer_views()

    def on_scene_about_to_close(self) -> None:
        self.run.cancel(_("The scene was closed, so the prediction was cancelled."))

    def cleanup(self) -> None:
        super().cleanup()
        self.watch.stop()

    def _on_parameters(self, caller=None, event=None) -> None:
        parameters = self.parameters
        if parameters is None:
            return
        self.model.show(parameters)
        for plane in self.planes:
            plane.update()
        if self.panel.entered:
            sources = [plane.source for plane in self._chosen()]
            views = [find(source.view) for source in sources if source.view for find in (slice_node, composite_node)]
            self.watch.look_at([source.node for source in sources] + [view for view in views if view is not None])
        self.ui.planesLabel.text = self._in_words()
        self.run.update_button()
        self.results.update(parameters)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _on_node_removed(self, caller, event, node) -> None:
        if self.running is not None and node in self.running.subject:
            self.run.cancel(_("An image was removed, so the prediction was cancelled."))
        self.let_go(node, *PLANES, "result")

    # --- What is chosen ----------------------------------------------------------------------------------------------

    def _chosen(self) -> list[PlaneChoice]:
        return [plane for plane in self.planes if plane.source is not None]

    def _problems(self) -> list[str]:
        """Of the planes, one sentence each."""
        problems = [plane.problem() for plane in self.planes if plane.problem()]
        taken: dict[Any, str] = {}
        for plane in self._chosen():
            first = taken.setdefault(plane.source, plane.title)
            if first != plane.title:
                problems.append(_("{one} and {other} are the same image: each plane needs its own.").format(
                    one=first, other=plane.title.lower()))
        return problems

    def _in_words(self) -> str:
        usable = [plane.in_words() for plane in self._chosen() if not plane.problem()]
        absent = [plane.title.lower() for plane in self.planes if plane.source is None]
        if len(absent) == len(self.planes):
            return _("Choose one plane at least; more make the result surer.")
        lines = [_("Used: {planes}.").format(planes=", ".join(usable))] if usable else []
        lines += [_("Missing: {planes}; what they would show is left open.").format(planes=", ".join(absent))
                  ] if absent else []
        return "\n".join(lines + self._problems())

    def _missing(self) -> list[str]:
        """What keeps the button from being clicked, one sentence each."""
        if self.parameters is None:
            return [_("The scene is being closed.")]
        reasons = self._problems() if self._chosen() else [_("Choose one plane at least.")]
        weeks = self.parameters.gaWeeks
        if weeks and not _WEEKS[0] <= weeks <= _WEEKS[1]:
            reasons.append(_("Gestational age: the growth charts cover {first:.0f} to {last:.0f} weeks.").format(
                first=_WEEKS[0], last=_WEEKS[1]))
        reasons += [self.panel.offers.missing, self.model.refusal()]
        return [reason for reason in reasons if reason]

    # --- Predicting --------------------------------------------------------------------------------------------------

    def predict(self) -> None:
        """Starts a prediction from the chosen planes with the chosen settings; returns at once."""
        if self._missing():  # the view can have been moved this very moment
            return self._on_parameters()
        parameters = self.parameters
        sources = {plane.name: plane.source for plane in self._chosen()}
        nodes = {name: source.node for name, source in sources.items()}
        self.panel.log.secrets |= {node.GetName() for node in nodes.values() if node.GetName()}
        settings = {**self.model.request(), "samples": parameters.samples, "seed": _SEED}
        if parameters.gaWeeks:
            settings["ga_weeks"] = parameters.gaWeeks

        def fields(folder: Path) -> dict[str, Any]:
            planes = {name: source.write(folder, name) for name, source in sources.items()}
            return {"planes": planes, **settings}

        def add(reply: Mapping[str, Any], seconds: float) -> str:
            if not all(slicer.mrmlScene.IsNodePresent(node) for node in nodes.values()):
                raise ValueError(_("An image was removed meanwhile; the result was dropped."))
            views = {name: source.view for name, source in sources.items() if source.view}
            self.results.show_new(add_result(nodes, reply, {**settings, "slices of views": views}))
            where = choices.device_in_words(reply)
            return _("Done in {seconds:.1f} s on {device}.").format(seconds=seconds, device=where)

        self.panel.log.add(f"Prediction started ({', '.join(sources)}; {parameters.samples} samples, "
                           f"{parameters.device}).")
        self.run.start("skull", tuple(nodes.values()), fields, add)

    # --- Helpers -----------------------------------------------------------------------------------------------------

    def _load_sample(self) -> None:
        from .sample_data import load_sample_planes, sample_head

        nodes = load_sample_planes()
        if nodes is not None and self.parameters is not None:
            for plane in self.planes:
                plane.choose(PlaneSource(nodes[plane.name]))
            self.parameters.gaWeeks = float(sample_head()["ga_weeks"])

    def settings(self) -> dict[str, Any]:
        parameters = self.parameters
        return {} if parameters is None else {
            "planes": [plane.name + (" (slice)" if plane.source.view else "") for plane in self._chosen()],
            "bundle": parameters.bundle or "default", "device": parameters.device, "samples": parameters.samples,
            "gestational age": "given" if parameters.gaWeeks else "not given",
        }
