"""The model that the tab looks into: what the worker says of it, asked anew when another one is chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from slicer.i18n import tr as _

_SMALLEST_STD = 1e-6


class LatentModelInfo:
    """`bundle` is the name or folder that was asked for; the other attributes are empty until the worker has answered.

    `on_change()` is told of an answer. mean, std: (Z,), of the latents over the training images.
    """

    def __init__(self, worker, on_change: Callable[[], None]):
        self._worker, self._on_change = worker, on_change
        self._asked = 0
        self.forget()

    def forget(self) -> None:
        self.bundle, self.problem, self.reply = "", "", {}
        self._asked += 1

    def look_at(self, bundle: str) -> None:
        """Does nothing for the bundle that is looked at already."""
        if bundle == self.bundle:
            return
        self.forget()
        self.bundle = bundle
        if not bundle:
            return
        asked = self._asked

        def answered(reply: Mapping[str, Any], problem: str) -> None:
            if asked == self._asked:
                self.reply, self.problem = reply, problem
                self._on_change()

        self._worker.request("latent_model", {"bundle": bundle}, lambda reply: answered(reply, ""),
                             lambda error: self._on_error(error, answered))

    def _on_error(self, error: Mapping[str, Any], answered: Callable) -> None:
        if error.get("kind") == "Cancelled":
            self.forget()  # asked again at the next occasion
        else:
            answered({}, error["message"])

    @property
    def ready(self) -> bool:
        """Whether volumes can be made with it."""
        return bool(self.reply) and not self.problem

    @property
    def count(self) -> int:
        return len(self.reply.get("mean", []))

    @property
    def labels(self) -> list[str]:
        return list(self.reply.get("labels", {}))

    def order(self, by: str) -> list[int]:
        """Indices of the latents, the one that matters most first; without labels, always by what they carry."""
        orders = self.reply.get("orders", {})
        return orders.get(by) or orders.get("kl", [])

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation (Z,) over the training images."""
        return np.array(self.reply["mean"]), np.maximum(np.array(self.reply["std"]), _SMALLEST_STD)

    def in_words(self) -> str:
        """E.g. "vae: 8 latents, 8 of them active; volumes of 40 × 48 × 40 voxels of 4 mm; labels: healthy, MS"."""
        if not self.reply:
            return self.problem or (_("Looking at the model…") if self.bundle else "")
        reply = self.reply
        size = " × ".join(str(side) for side in reply["shape"][::-1])
        steps = [f"{step:g}" for step in reversed(reply["spacing_mm"] or [])]
        edges = steps[0] if len(set(steps)) == 1 else " × ".join(steps)
        images = _("images of {size} voxels of {mm} mm") if steps else _("images of {size} voxels")
        parts = [_("{model}: {count} latents, {active} of them active").format(
            model=reply["model"], count=self.count, active=reply["active"]),
            images.format(size=size, mm=edges)]
        if self.labels:
            parts.append(_("labels: {names}").format(names=", ".join(self.labels)))
        return "; ".join(parts) + (f"\n{self.problem}" if self.problem else "")
