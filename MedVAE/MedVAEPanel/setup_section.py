"""The section Setup: what is installed, installing what is missing, and bundles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from . import dependencies, installer
from .saying import BAD, say

_ROW_HEIGHT = 22
_ARCHIVES = "Bundles (*.zip);;All files (*)"
_FOR_THE_COMMAND_LINE = "import under another name with --name"
_FOR_THE_PANEL = "give the file or folder another name and import it again"


class SetupSection:
    """`panel` has `worker`, `log`, `offers`, `tabs`, `resourcePath`; `setup` puts the widgets into the section."""

    def __init__(self, panel):
        self.panel = panel
        self.states: list[dependencies.State] = []
        self.bundle_names: list[str] = []
        self.user_folder = ""
        self.installing = self.asking = False
        self._job = None
        self._looked = False

    def setup(self, section) -> None:
        """section: the ctkCollapsibleButton; it is filled when it is opened for the first time."""
        widget = slicer.util.loadUI(self.panel.resourcePath("UI/Setup.ui"))
        section.layout().addWidget(widget)
        self.ui = ui = slicer.util.childWidgetVariables(widget)
        for table in (ui.packagesTable, ui.bundlesTable):
            table.verticalHeader().setVisible(False)
            table.verticalHeader().defaultSectionSize = _ROW_HEIGHT
        ui.installButton.connect("clicked(bool)", lambda *a: self.install())
        ui.wheelsButton.connect("clicked(bool)", lambda *a: self.install_from_folder())
        ui.refreshButton.connect("clicked(bool)", lambda *a: self._stop() if self.asking else self.refresh())
        self._check_again = ui.refreshButton.text
        ui.importFileButton.connect("clicked(bool)", lambda *a: self.import_bundle(self.ask_bundle_file()))
        ui.importFolderButton.connect("clicked(bool)", lambda *a: self.import_bundle(self.ask_folder(_("Bundle"))))
        ui.verifyButton.connect("clicked(bool)", lambda *a: self.verify_bundles())
        ui.openFolderButton.connect("clicked(bool)", lambda *a: self.open_bundle_folder())
        section.connect("contentsCollapsed(bool)", self._on_collapsed)
        self._update_buttons()

    def _on_collapsed(self, collapsed: bool) -> None:
        if not collapsed and not self._looked:
            self.refresh()

    # --- What is there -----------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Looks again: packages here and at once, devices and bundles when the worker answers."""
        self._looked = True
        self.states = dependencies.inspect()
        rows = [(state.package.name, state.version, state.text, state.detail) for state in self.states]
        self._fill(self.ui.packagesTable, rows, [state.kind != "ok" for state in self.states])
        self._update_buttons()
        if self.installing:
            return
        self.ui.deviceLabel.text = _("Looking for devices…")
        self.panel.worker.request("info", {}, self._show_info, self._show_no_worker)
        self.panel.worker.request("bundles", {}, self._show_bundles, self._show_no_worker)

    def _show_info(self, reply: Mapping[str, Any]) -> None:
        if reply.get("missing"):
            self.ui.deviceLabel.text = _("Devices are known once PyTorch is installed.")
            return
        devices = [_device_text(device) for device in reply.get("devices", [])]
        lines = [_("Detection runs on: {device}").format(device=reply.get("default_device")),
                 _("This machine has: {devices}").format(devices="; ".join(devices))]
        if reply.get("cuda_built_for"):
            lines.append(_("PyTorch is built for CUDA {version}.").format(version=reply["cuda_built_for"]))
        self.ui.deviceLabel.text = "\n".join([*lines, *reply.get("reasons", [])])

    def _show_bundles(self, reply: Mapping[str, Any]) -> None:
        self.user_folder = reply.get("user_folder", "")
        found = reply["bundles"]
        self.bundle_names = [bundle["name"] for bundle in found]
        rows = [(bundle["name"], str(bundle.get("version", "")),
                 _("checksum right") if bundle["valid"] else _("damaged"),
                 bundle["problem"] or bundle.get("description", "")) for bundle in found]
        self._fill(self.ui.bundlesTable, rows, [not bundle["valid"] for bundle in found])
        self._update_buttons()

    def _show_no_worker(self, error: Mapping[str, Any]) -> None:
        self.ui.deviceLabel.text = error["message"]

    # --- Installing --------------------------------------------------------------------------------------------------

    def install(self) -> None:
        self._install(None)

    def install_from_folder(self) -> None:
        folder = self.ask_folder(_("Folder of wheels"))
        if folder:
            self._install(folder)

    def _install(self, wheels: str | None) -> None:
        self.states = dependencies.inspect()
        plan = dependencies.plan(self.states, wheels, installer.has_pytorch_extension())
        if plan.problems:
            return self.say(plan.problems[0], bad=True)
        if plan.empty:
            return self.say(_("Everything that MedVAE needs is installed."))
        if any(tab.running for tab in self.panel.tabs):
            return self.say(_("A detection is running: wait for it or cancel it, then install."), bad=True)
        if not self._confirmed(plan):
            return self.say(_("Nothing was installed."))
        self.installing = True
        self._update_buttons()
        try:
            # The worker may hold files of what is replaced.
            with self.panel.worker.closed(), slicer.util.WaitCursor():
                installer.install(plan, self.say)
        except installer.InstallError as error:
            self.say(str(error), bad=True)
        finally:
            self.installing = False
        self.refresh()
        self.panel.offers.ask(again=True)

    def _confirmed(self, plan: dependencies.Plan) -> bool:
        source = _("from {folder}").format(folder=plan.wheels) if plan.wheels else _("from the internet")
        text = _("{names} will be installed into Slicer's Python {source}. What comes with Slicer is not changed.\n\n"
                 "PyTorch takes a few minutes and up to several GB.").format(
                     names=", ".join(plan.names), source=source)
        if plan.remove:
            text += "\n\n" + _("Remains of an interrupted installation are removed first:") + "\n"
            text += "\n".join(str(path) for path in plan.remove)
        if plan.loaded:
            text += "\n\n" + _("This Slicer has loaded {names} already: restart it after the installation.").format(
                names=", ".join(plan.loaded))
        return bool(slicer.util.confirmOkCancelDisplay(text, windowTitle=_("MedVAE: install packages")))

    # --- Bundles -----------------------------------------------------------------------------------------------------

    def import_bundle(self, source: str) -> None:
        if source:
            self._ask("import_bundle", {"source": source}, _("Importing and verifying the bundle…"), self._imported)

    def _imported(self, answer: Mapping[str, Any]) -> None:
        self.say(_("The bundle {name} was imported and can be chosen.").format(name=answer["name"]))

    def verify_bundles(self) -> None:
        if self.bundle_names:
            self._ask("verify_bundles", {"names": self.bundle_names}, _("Verifying every weight…"), self._verified)

    def _verified(self, answer: Mapping[str, Any]) -> None:
        bad = [sentence for sentence in answer["problems"].values() if sentence]
        count = len(answer["problems"])
        good = _("The bundle is as it was released.") if count == 1 else _("All {count} bundles are as they were "
                                                                           "released.").format(count=count)
        self.say("\n".join(bad) if bad else good, bad=bool(bad))

    def _ask(self, task: str, fields: Mapping[str, Any], busy: str,
             on_answer: Callable[[Mapping[str, Any]], None]) -> None:
        def done(tell: Callable[[], None]) -> None:
            self.asking = False
            tell()
            self.refresh()
            self.panel.offers.ask(again=True)

        def refused(error: Mapping[str, Any]) -> None:
            self.say(error["message"].replace(_FOR_THE_COMMAND_LINE, _FOR_THE_PANEL), bad=True)

        if not self.asking:
            self.asking = True
            self._job = self.panel.worker.request(task, fields, lambda answer: done(lambda: on_answer(answer)),
                                                  lambda error: done(lambda: refused(error)))
            self._update_buttons()
            self.say(busy)  # last: a second click that waits is heard meanwhile

    def _stop(self) -> None:
        """A folder on a share that does not answer would keep the worker, and detections, waiting for ever."""
        self.panel.worker.cancel(self._job)

    def open_bundle_folder(self) -> None:
        if self.user_folder:
            Path(self.user_folder).mkdir(parents=True, exist_ok=True)
            qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(self.user_folder))

    # --- Helpers -----------------------------------------------------------------------------------------------------

    def ask_folder(self, title: str) -> str:
        return qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), title)

    def ask_bundle_file(self) -> str:
        return qt.QFileDialog.getOpenFileName(slicer.util.mainWindow(), _("Bundle"), "", _ARCHIVES)

    def say(self, text: str, bad: bool = False) -> None:
        """What happens now or what came of it, beneath the buttons and in the log."""
        say(self.ui.setupLabel, text, bad)
        self.panel.log.add(text)
        slicer.app.processEvents()

    def _update_buttons(self) -> None:
        ui = self.ui
        missing = [state.package.name for state in self.states if state.installable]
        idle = not self.installing and not self.asking
        for button in (ui.installButton, ui.wheelsButton):
            button.enabled = idle and bool(missing)
        needed = _("Missing: {names}.").format(names=", ".join(missing)) if missing else _("Nothing is missing.")
        ui.installButton.toolTip = needed
        offline = _("For a machine without internet: a folder of wheels (.whl) that were downloaded elsewhere.")
        ui.wheelsButton.toolTip = f"{needed} {offline}"
        ui.refreshButton.enabled = not self.installing
        ui.refreshButton.text = _("Cancel") if self.asking else self._check_again
        for button in (ui.importFileButton, ui.importFolderButton):
            button.enabled = idle
        ui.verifyButton.enabled = idle and bool(self.bundle_names)
        ui.openFolderButton.enabled = bool(self.user_folder)

    def _fill(self, table, rows, bad) -> None:
        """rows: texts of the three columns, and the tip."""
        table.setRowCount(len(rows))
        for row, (*texts, tip) in enumerate(rows):
            for column, text in enumerate(texts):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(tip)
                if bad[row]:
                    item.setForeground(qt.QBrush(qt.QColor(BAD)))
                table.setItem(row, column, item)
        table.resizeColumnsToContents()
        table.horizontalHeader().setStretchLastSection(True)
        height = table.horizontalHeader().height + sum(table.rowHeight(row) for row in range(len(rows))) + 4
        table.setFixedHeight(height)


def _device_text(device: Mapping[str, Any]) -> str:
    if "free_gib" in device:
        return _("{label} ({free} of {total} GiB free)").format(
            label=device["label"], free=device["free_gib"], total=device["total_gib"])
    return f"{device['label']} ({device['problem']})" if device.get("problem") else device["label"]
