"""Whether a training is still worth its time: divergence, collapse, and what the model itself complains of."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import nn

from ..errors import InputError

PATIENCE = 3
"""What is wrong has to be so as many times in a row: ten steps, or one validation, may be bad by chance."""
_ROSE = 10.0  # above the best loss, in units of how far it fell so far, or of the first one


class HealthChecks:
    """Ends a diverging or collapsed run with one sentence (InputError).

    grace: steps, the warm-up say, before which nothing is judged but numbers that are none. A model may define
    `health(terms) -> str | None`, with the mean terms of ten steps.
    """

    def __init__(self, model: nn.Module, grace: int):
        self._judge = getattr(model, "health", lambda terms: None)
        self.grace = grace
        self.first = self.best = math.nan
        self.bad = {"training": 0, "validation": 0}

    def training(self, step: int, terms: Mapping[str, float]) -> None:
        """After every ten steps, with the mean terms of them."""
        loss = terms["loss"]
        self.first = loss if math.isnan(self.first) else self.first
        self.best = min(loss, self.best) if not math.isnan(self.best) else loss
        problem = None
        if step > self.grace:
            problem = self._diverging(loss) or self._judge(terms)
        self._count("training", step, problem)

    def validation(self, step: int, values: Mapping[str, float]) -> None:
        """After every validation; "active_units" is the number of latents that say something of the image."""
        collapsed = step > self.grace and values.get("active_units", 1) == 0
        self._count("validation", step, "The posterior collapsed: no latent says anything of the image. Lower beta or "
                                        "learning_rate, or raise warmup or free_bits." if collapsed else None)

    def _diverging(self, loss: float) -> str | None:
        if loss <= self.best + _ROSE * max(self.first - self.best, abs(self.first)):
            return None
        return (f"The training diverges: the loss is {loss:.4g} after {self.best:.4g} at its best. "
                "Lower learning_rate.")

    def _count(self, kind: str, step: int, problem: str | None) -> None:
        self.bad[kind] = self.bad[kind] + 1 if problem else 0
        if self.bad[kind] >= PATIENCE:
            raise InputError(f"Stopped at step {step}: {problem}")

    def state(self) -> dict[str, object]:
        return {"first": self.first, "best": self.best, "bad": dict(self.bad)}

    def load_state(self, state: Mapping[str, object]) -> None:
        self.first, self.best, self.bad = float(state["first"]), float(state["best"]), dict(state["bad"])
