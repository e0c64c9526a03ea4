"""Stopping a training whose validation no longer improves, with the weights that were best."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor


class EarlyStop:
    """patience: validations without a gain after which it is over, 0 for never; gain: what counts as one, relative to
    the best value. Lower values are better; values up to step `after` do not count."""

    def __init__(self, patience: int, gain: float, after: int = 0):
        self.patience, self.gain, self.after = patience, gain, after
        self.best, self.step, self.since = math.inf, 0, 0
        self.weights: dict[str, Tensor] = {}

    @property
    def over(self) -> bool:
        return self.patience > 0 and self.since >= self.patience

    def see(self, step: int, value: float, weights: Mapping[str, Tensor]) -> None:
        """Takes the value of a validation, and keeps a copy of the weights if it is the best so far."""
        if self.patience == 0 or step <= self.after:
            return
        if value < self.best - self.gain * abs(self.best if math.isfinite(self.best) else 0.0):
            self.best, self.step, self.since = value, step, 0
            self.weights = {name: tensor.detach().clone() for name, tensor in weights.items()}
        else:
            self.since += 1

    def state(self) -> dict[str, object]:
        return {"best": self.best, "step": self.step, "since": self.since, "weights": self.weights}

    def load_state(self, state: Mapping[str, object]) -> None:
        self.best, self.step, self.since = float(state["best"]), int(state["step"]), int(state["since"])
        self.weights = dict(state["weights"])
