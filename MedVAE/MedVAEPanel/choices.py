"""What the worker offers, as entries of combo boxes and as sentences."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import qt
from slicer.i18n import tr as _

from .silent import silent


@dataclass(frozen=True)
class Entry:
    """refusal: why it cannot be used."""

    value: str
    text: str
    tip: str = ""
    refusal: str = ""


class Offer(list[Entry]):
    """Entries, with the value that stands for "no choice made"."""

    default = ""


class ComboChoice:
    """A combo box over values that are known only at run time. `on_chosen(value)` is told what the user picks."""

    def __init__(self, combo, on_chosen: Callable[[str], None]):
        self.combo, self.default = combo, ""
        self._values: list[str] = []
        self._final = False
        self._refusals: dict[str, str] = {}
        combo.connect("activated(int)", lambda index: on_chosen(self._values[index]))

    def offer(self, entries: Offer, chosen: str, final: bool = True) -> None:
        """Fills the box. final: whether these are all there are, so that another choice cannot be used."""
        self.default, self._final = entries.default, final
        self._values = [entry.value for entry in entries]
        self._refusals = {entry.value: entry.refusal for entry in entries if entry.refusal}
        with silent(self.combo):
            self.combo.clear()
            for index, entry in enumerate(entries):
                self.combo.addItem(entry.text)
                self.combo.setItemData(index, entry.tip, qt.Qt.ToolTipRole)
        self.choose(chosen)

    def choose(self, value: str) -> None:
        """Shows a value without telling anyone. One that is not offered is shown by its name, a folder by its last."""
        value = value or self.default
        if value not in self._values:
            self._values.append(value)
            self.combo.addItem(Path(value).name or value)
            self.combo.setItemData(len(self._values) - 1, value, qt.Qt.ToolTipRole)
            if self._final:
                self._refusals[value] = _("{name} is not there any more: choose another.").format(name=value)
        index = self._values.index(value)
        if self.combo.currentIndex != index:
            with silent(self.combo):
                self.combo.setCurrentIndex(index)
        self.combo.toolTip = self.combo.itemData(index, qt.Qt.ToolTipRole) or ""

    def refusal(self) -> str:
        """Why the value shown cannot be used, or ""."""
        index = self.combo.currentIndex
        return self._refusals.get(self._values[index], "") if 0 <= index < len(self._values) else ""


class ModelChoice:
    """A tab's boxes for bundle and device, kept in its parameters `bundle` and `device`.

    `fits(bundle)` says whether the tab can use a bundle; `default`: the one that stands for "no choice made".
    """

    def __init__(self, tab, ui, fits: Callable[[Mapping[str, Any]], bool], default: str = ""):
        self.tab, self._fits, self._default = tab, fits, default
        self.bundles = ComboChoice(ui.bundleCombo, lambda name: self._set("bundle", name))
        self.devices = ComboChoice(ui.deviceCombo, lambda name: self._set("device", name))
        self.devices.offer(devices({}), "auto", final=False)
        self.bundles.offer(Offer([Entry("", _("Default"))]), "", final=False)

    def show(self, parameters) -> None:
        self.bundles.choose(parameters.bundle)
        self.devices.choose(parameters.device)

    def on_offers(self, offers) -> None:
        parameters = self.tab.parameters
        if offers.info:
            self.devices.offer(devices(offers.info), parameters.device if parameters else "auto")
        if offers.bundles:
            found = bundles(offers.bundles, self._fits, self._default)
            self.bundles.offer(found, parameters.bundle if parameters else "")

    def request(self) -> dict[str, str]:
        """The fields of a request; without "bundle" the worker takes its own default."""
        parameters = self.tab.parameters
        bundle = parameters.bundle or self.bundles.default
        return {"device": parameters.device} | ({"bundle": bundle} if bundle else {})

    def refusal(self) -> str:
        """Why the bundle shown cannot be used, or ""."""
        if self.tab.panel.offers.bundles and not self.bundles.default:
            return _("No model for this is installed: import one in the section Setup.")
        return self.bundles.refusal()

    def _set(self, name: str, value: str) -> None:
        if self.tab.parameters is not None:
            setattr(self.tab.parameters, name, value)


def devices(info: Mapping[str, Any]) -> Offer:
    """Entries for the devices that the worker found."""
    found = info.get("devices", [])
    labels = {device["name"]: device["label"] for device in found}
    chosen = labels.get(info.get("default_device"), "")
    reasons = "\n".join(info.get("reasons", []))
    automatic = _("Automatic ({device})").format(device=chosen) if chosen else _("Automatic")
    offer = Offer([Entry("auto", automatic, reasons)])
    for device in found:
        text = device["label"]
        if "free_gib" in device:
            text = _("{name}, {free:.1f} of {total:.0f} GiB free").format(
                name=text, free=device["free_gib"], total=device["total_gib"])
        offer.append(Entry(device["name"], text, device.get("problem", "")))
    return offer


def bundles(reply: Mapping[str, Any], fits: Callable[[Mapping[str, Any]], bool], default: str = "") -> Offer:
    """Entries for the installed bundles that fit; the tooltip is the model card in short.

    One that is too damaged to say what it is for is among them. default: its name, the worker's own if not given.
    """
    offer = Offer()
    for bundle in reply.get("bundles", []):
        if "modality" in bundle and not fits(bundle):
            continue
        if not bundle["valid"]:
            text = _("{name} (damaged)").format(name=bundle["name"])
            offer.append(Entry(bundle["name"], text, bundle["problem"], bundle["problem"]))
            continue
        lines = [bundle.get("description", ""),
                 _("Trained on: {data}").format(data=_in_words(bundle.get("training_data"))),
                 _("Licence: {licence}").format(licence=bundle.get("licence", "")),
                 _("Time: {time}").format(time=bundle.get("expected_time", "")),
                 *_results(bundle.get("results") or {})]
        text = f"{bundle['name']} {bundle.get('version', '')}".strip()
        offer.append(Entry(bundle["name"], text, "\n".join(line for line in lines if line)))
    names = [entry.value for entry in offer]
    default = default or reply.get("default", "")
    offer.default = default if default in names else next(iter(names), "")
    return offer


def _results(results: Mapping[str, Any]) -> list[str]:
    """The measured tables (markdown) as lines of a tooltip, the baseline beside the figures as in the model card."""
    lines = []
    for title, text in results.items():
        if not isinstance(text, str):
            continue
        lines.append(f"{title}:")
        for row in text.splitlines():
            cells = [cell.strip() for cell in row.strip().strip("|").split("|")]
            if any(cell.strip("-: ") for cell in cells):
                lines += textwrap.wrap(";  ".join(cells), 100, initial_indent="    ", subsequent_indent="    ")
    return lines


def _in_words(value: Any, depth: int = 0) -> str:
    """Lists and tables of a bundle's metadata as a short text."""
    if isinstance(value, Mapping):
        named = value.get("name") or value.get("description") if depth else None
        if named:
            return str(named)
        return "; ".join(f"{key.replace('_', ' ')} {_in_words(each, depth + 1)}" for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_in_words(each, depth + 1) for each in value)
    return f"{value:.3g}" if isinstance(value, float) else str(value or "")


def outcome(reply: Mapping[str, Any], seconds: float) -> str:
    """What a detection came to, for the line below the button."""
    kind = {"flair": "FLAIR", "dwi": _("diffusion")}.get(reply.get("modality"), _("another kind of scan"))
    return _("Done in {seconds:.0f} s on {device}, read as {kind}.").format(
        seconds=seconds, device=device_in_words(reply), kind=kind)


def device_in_words(reply: Mapping[str, Any]) -> str:
    """What a result was computed on."""
    device = str(reply.get("provenance", {}).get("device", ""))
    return "CPU" if device == "cpu" else _("GPU ({name})").format(name=device) if device else _("this machine")
