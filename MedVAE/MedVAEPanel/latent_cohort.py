"""The part of the tab that plots a cohort: where it comes from, what the plot shows, and what a click on it does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import qt
import slicer
from slicer.i18n import tr as _

from . import latent_plot
from .choices import ComboChoice, Entry, Offer
from .latent_plot import LABEL, Cohort, PlottedPlane
from .plane_node import forget_file
from .task_run import TaskRun

_SIGNAL = "dataSelected(vtkStringArray*, vtkCollection*)"
_LATENTS = "latents"
_FILE = "MedVAE.CohortFile"
_MOST_NOTES = 10  # below the button, of what was left out or is in doubt


class CohortSection:
    """`tab` gives parameters, `info` and `explorer`; it is told to load and encode the scan of a point."""

    def __init__(self, tab, ui):
        self.tab, self.ui = tab, ui
        self._cohort: Cohort | None = None
        self._planes: tuple[str, list[PlottedPlane]] = ("", [])
        self._shown: tuple | None | bool = False  # what the plot shows; False: not known, as when a scene comes or goes
        self._plane: PlottedPlane | None = None
        self._marks: dict[str, bytes | None] = {}  # where they lie in what the plot shows, as far as is known
        self._nothing = ""
        self._view: Any = None
        self._whole: Any = None  # the view that shows the plot whole, or that the user has zoomed since
        self._late = False  # whether a plot was made that is not shown yet
        self._clicked: tuple[str, int] | None = None
        self._soon = qt.QTimer()  # a click tells twice, first of the point clicked before
        self._soon.setSingleShot(True)
        self._soon.setInterval(0)
        self._soon.connect("timeout()", self._on_click)
        self.run = TaskRun(
            tab.panel, ui.plotButton, ui.cohortBar, ui.cohortLabel, _("Show cohort"),
            _("Plots the cohort's latents; scans are encoded first. You can keep working meanwhile."),
            self._missing, self.plot, tab.update_buttons)
        self.plane = ComboChoice(ui.planeCombo, lambda name: self._pick("plane", name))
        self.colour = ComboChoice(ui.colourCombo, lambda name: self._pick("colour", name))
        ui.tableButton.connect("clicked(bool)", lambda *a: self._choose(self._ask_table()))
        ui.cohortFolderButton.connect("clicked(bool)", lambda *a: self._choose(self._ask_folder()))

    @property
    def cohort(self) -> Cohort | None:
        """Of the chosen chart; the same one as long as its nodes are there, because it keeps what it read."""
        chart = self.tab.parameters.chart if self.tab.parameters is not None else None
        if self._cohort is None or self._cohort.chart is not chart or not self._cohort.there:
            self._cohort = Cohort.of(chart)
        return self._cohort

    # --- Where it comes from -----------------------------------------------------------------------------------------

    @staticmethod
    def _ask_table() -> str:
        return qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), _("A table of latents, or a CSV of scans"), "",
                                              _("Tables (*.csv *.parquet *.pq)"))

    @staticmethod
    def _ask_folder() -> str:
        return qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), _("A folder of scans"))

    def _choose(self, path: str) -> None:
        if path:
            self.tab.set_parameter("cohort", path)

    def _missing(self) -> list[str]:
        parameters = self.tab.parameters
        if parameters is None:
            return [_("The scene is being closed.")]
        reasons = [] if parameters.cohort else [_("Choose a table or a folder.")]
        return reasons + self.tab.problems()

    def plot(self) -> None:
        """Starts it; returns at once."""
        source, settings = self.tab.parameters.cohort, self.tab.chosen()

        def add(reply: Mapping[str, Any], seconds: float) -> str:
            cohort = latent_plot.add_cohort(reply, Path(source).stem, settings)
            self._planes = (cohort.result.run, _planes(reply))
            self.tab.parameters.chart = cohort.chart
            self._connect(cohort)
            text = _("{count} cases in {seconds:.1f} s.").format(count=len(reply["cases"]), seconds=seconds)
            return "\n".join([f"{text} {self._nothing or _('Click a point to see its image.')}", *_notes(reply)])

        self.tab.panel.log.secrets |= {source, Path(source).stem}
        self.run.start("latent_cohort", None, lambda folder: {"source": source, **settings}, add)

    # --- What it shows -----------------------------------------------------------------------------------------------

    def update(self, parameters) -> None:
        """Called whenever the parameters or the model may have changed. A loaded plot stays as it was saved."""
        ui, cohort = self.ui, self.cohort
        source = parameters.cohort if parameters is not None else ""
        ui.sourceLabel.text, ui.sourceLabel.toolTip = Path(source).name or _("none"), source
        for widget in (ui.planeCombo, ui.colourCombo):
            widget.enabled = cohort is not None
        if cohort is None:
            self._shown, self._plane = None if parameters is not None else False, None
            self._say_nothing("")
            return
        planes = {plane.name: plane for plane in self.planes(cohort)}
        self._offer(self.plane, list(planes), parameters.plane)
        columns = [name for name in _columns(cohort) if any(cohort.column(name))]
        self._offer(self.colour, columns or [LABEL], parameters.colour)
        name = parameters.plane if parameters.plane in planes else next(iter(planes), "")
        colour = parameters.colour if parameters.colour in columns else (columns or [LABEL])[0]
        plane = planes.get(name)
        self._say_nothing(self._why_nothing(cohort) if plane is None else "")
        wanted = (cohort.result.run, name, plane and plane.axes, colour)
        if wanted != self._shown:
            if self._shown is not False and plane is None:
                latent_plot.clear(cohort)
            elif self._shown is not False:
                latent_plot.show(cohort, plane, colour)
            self.disconnect()
            self.listen()
            self._shown, self._marks = wanted, {}
        self._plane = plane
        self.mark()

    def _pick(self, name: str, value: str) -> None:
        self.tab.set_parameter(name, value)
        if self.cohort is not None:
            self._connect(self.cohort)

    def _say_nothing(self, why: str) -> None:
        """Says why the plot is empty, and nothing any more when it is not; a run that ends says it itself."""
        if why != self._nothing and self.run.running is None:
            self.run.say(why)
        self._nothing = why

    def _why_nothing(self, cohort: Cohort) -> str:
        if not self.tab.info.ready:
            return self.tab.info.problem or _("The plot waits for the model.")
        if not self._fits(cohort):
            return _("So small a cohort is plotted by single latents, and it was encoded with another model than the "
                     "one chosen: choose that one, or show the cohort anew.")
        return _("A plot needs two latents, and four cases that differ or two of each of two labels.")

    def planes(self, cohort: Cohort) -> list[PlottedPlane]:
        """LDA, PCA, t-SNE as the worker made them, and the two latents that matter most."""
        if self._planes[0] != cohort.result.run:  # a scene that was loaded has points, but not the maps to them
            self._planes = (cohort.result.run, _stored(cohort))
        return [*self._planes[1], *self._plane_of_latents(cohort)]

    def _plane_of_latents(self, cohort: Cohort) -> list[PlottedPlane]:
        order = self.tab.info.order(self.tab.parameters.order.value)[:2]
        if len(order) < 2 or not cohort.has_latents or not self._fits(cohort):
            return []
        matrix = np.zeros((2, self.tab.info.count))
        matrix[[0, 1], order] = 1.0
        axes = tuple(_("Latent {number}").format(number=index) for index in order)
        return [PlottedPlane(_LATENTS, axes, cohort.numbers([f"mu_{i}" for i in order]), matrix, np.zeros(2))]

    def mark(self) -> None:
        """Moves the marks to the scan's latents and to those that are shown."""
        cohort, explorer = self.cohort, self.tab.explorer
        if cohort is None or self._plane is None:
            return
        scan = explorer.encoding.latents if explorer.encoding is not None else None
        for name, latents in ((latent_plot.SCAN, scan), (latent_plot.SHOWN, explorer.latents)):
            known = latents is not None and self._fits(cohort)
            place = self._plane.place(latents) if known else None
            key = place.tobytes() if place is not None else None
            if self._marks.get(name, b"") != key:
                latent_plot.mark(cohort, name, place)
                self._marks[name] = key

    def _fits(self, cohort: Cohort) -> bool:
        """Whether the cohort's latents are those of the chosen model."""
        return self.tab.info.ready and cohort.bundle == self.tab.info.reply["sha256"]

    @staticmethod
    def _offer(choice: ComboChoice, names: list[str], chosen: str) -> None:
        offer = Offer([Entry(name, _title(name)) for name in names])
        offer.default = names[0] if names else ""
        choice.offer(offer, chosen if chosen in names else "", final=False)

    # --- Clicks ------------------------------------------------------------------------------------------------------

    def _connect(self, cohort: Cohort) -> None:
        """Shows the chart, in a layout with a plot view if there is none, and listens to that view; while another
        module is in use, which the layout belongs to, only at the next `enter`."""
        self._late = not self.tab.panel.entered
        if not self._late:
            slicer.modules.plots.logic().ShowChartInLayout(cohort.chart)
            self.disconnect()
            self.listen()

    def enter(self) -> None:
        cohort, late, self._late = self.cohort, self._late, False
        if cohort is not None and late:
            self._connect(cohort)
        self.listen()

    def listen(self) -> None:
        """To clicks on the plot, if there is one not listened to yet, which is then shown whole. Clicks in other
        modules are not this one's."""
        if not self.tab.panel.entered:
            return
        manager = slicer.app.layoutManager()
        widget = manager.plotWidget(0) if manager is not None and manager.plotViewCount else None
        view = widget.plotView() if widget is not None and self.cohort is not None else None
        if view is not None and view is not self._view:
            self.leave()
            view.connect(_SIGNAL, self._on_selected)
            self._view = view
            if view is not self._whole:
                view.fitToContent()
                self._whole = view

    def leave(self) -> None:
        """Listens to nothing until `listen` is called."""
        self._soon.stop()
        if self._view:  # false once Slicer has deleted it, as where a script clears the scene with all its views
            self._view.disconnect(_SIGNAL, self._on_selected)
        self._view = None

    def disconnect(self) -> None:
        """As `leave`, before something else is plotted."""
        self.leave()
        self._whole = None

    def _on_selected(self, series_ids, points) -> None:
        for index in range(series_ids.GetNumberOfValues()):
            chosen = points.GetItemAsObject(index)
            if chosen is not None and chosen.GetNumberOfValues():
                self._clicked = (series_ids.GetValue(index), int(chosen.GetValue(chosen.GetNumberOfValues() - 1)))
                self._soon.start()

    def _on_click(self) -> None:
        clicked, self._clicked, cohort = self._clicked, None, self.cohort
        if self._view:
            self._view.RemovePlotSelections()  # else what was clicked before is told of again
        if cohort is None or clicked is None:
            return
        row, explorer = cohort.row_of(*clicked), self.tab.explorer
        if row is None and cohort.is_mark(clicked[0], latent_plot.SCAN):
            return explorer.reset()
        if row is None and cohort.is_mark(clicked[0], latent_plot.SHOWN):  # it may cover a point
            away = self._plane.points - self._plane.place(explorer.latents)
            row = int((away**2).sum(1).argmin())
        if row is not None:
            self.show_case(row)

    def show_case(self, row: int) -> None:
        """What a click on a point does: its image, decoded from its latents or, if asked for, as a scan."""
        cohort, parameters = self.cohort, self.tab.parameters
        case, label, file = (cohort.column(name)[row] for name in ("case", LABEL, "file"))
        who = f"{case} ({label})" if label else case
        if parameters.loadClicked:
            problem = self._load(file, case)
            if not problem:
                return
            self.tab.explorer.say(f"{who}: {problem}", bad=True)
            return
        reason = ""
        if not cohort.has_latents:
            reason = _("{who}: the table does not keep as many latents as this model has.")
        elif not self._fits(cohort):
            reason = _("{who}: the cohort was encoded with another model than the one chosen.")
        if reason:
            return self.tab.explorer.say(reason.format(who=who), bad=True)
        self.tab.explorer.go_to(cohort.latents_of(row), _("Decoded from the latents of {who}.").format(who=who))

    def _load(self, file: str, case: str) -> str:
        """Loads the scan of a case, or takes the one that is there, and encodes it. Returns why not, "" if it did."""
        if not file or not Path(file).exists():
            return _("the table does not say where its scan is, or it is not there.")
        for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
            if node.GetAttribute(_FILE) == file:
                break
        else:
            try:
                node = slicer.util.loadVolume(file, {"name": case})
            except RuntimeError as error:
                return str(error)
            node.SetAttribute(_FILE, file)
            forget_file(node)
        self.tab.set_parameter("scan", node)
        self.tab.encode_soon()
        return ""


def _planes(reply: Mapping[str, Any]) -> list[PlottedPlane]:
    arrays = reply["arrays"]

    def array(name: str) -> np.ndarray | None:
        return np.load(arrays[name]) if name in arrays else None

    return [PlottedPlane(found["name"], tuple(found["axes"]), array(f"points_{index}"), array(f"matrix_{index}"),
                         array(f"offset_{index}")) for index, found in enumerate(reply["planes"])]


def _notes(reply: Mapping[str, Any]) -> list[str]:
    """What was left out, and what is in doubt."""
    left_out = [_("Left out: {case}: {reason}").format(case=each["case"], reason=each["message"])
                for each in reply["failed"]]
    notes = [*left_out, *reply["warnings"]]
    more = len(notes) - _MOST_NOTES
    return notes if more <= 0 else [*notes[:_MOST_NOTES], _("… and {count} more.").format(count=more)]


def _stored(cohort: Cohort) -> list[PlottedPlane]:
    table = cohort.table.GetTable()
    names = [table.GetColumnName(index) for index in range(table.GetNumberOfColumns())]
    found = [name[:-2] for name in names if name.endswith(" 1") and f"{name[:-2]} 2" in names]
    return [PlottedPlane(name, (f"{name} 1", f"{name} 2"), cohort.numbers([f"{name} 1", f"{name} 2"]))
            for name in found]


def _columns(cohort: Cohort) -> list[str]:
    """What points can be coloured by: the label and the tags."""
    table = cohort.table.GetTable()
    names = [table.GetColumnName(index) for index in range(table.GetNumberOfColumns())]
    return [name for name in names if name not in ("case", "file") and not name.startswith("mu_")
            and not (name[-2:] in (" 1", " 2") and f"{name[:-2]} 1" in names)]


def _title(name: str) -> str:
    return {_LATENTS: _("Most important latents"), LABEL: _("Label")}.get(name, name)
