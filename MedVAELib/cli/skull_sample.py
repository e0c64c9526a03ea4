"""The sample planes that come with MedVAE, and the biometry of a prediction beside that of the head they show."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..growth_charts import ordinal
from ..resources import resource_dir
from ..standard_planes import PLANES

if TYPE_CHECKING:
    from rich.table import Table

    from ..cohort.skull import SkullCase
    from ..skull.result import SkullPrediction


def sample_case() -> SkullCase:
    """The sample's planes and pixel size. Raises UsageError when this installation lacks them."""
    from ..cohort.skull import SkullCase

    truth = sample_truth()
    folder = resource_dir() / "sample" / "skull"
    files = tuple((plane, str(folder / f"{plane}.png")) for plane in PLANES)
    return SkullCase("sample", files, f"{truth['spacing_mm']}", f"{truth['ga_weeks']}")


def sample_truth() -> Mapping[str, Any]:
    """`truth.json` of the sample: spacing_mm, ga_weeks, kind, and measures by name. Raises as `sample_case`."""
    path = resource_dir() / "sample" / "skull" / "truth.json"
    if not path.is_file():
        raise UsageError(f"This installation lacks the sample planes beside {path}: use a clone of the repository.")
    return json.loads(path.read_text(encoding="utf-8"))


def biometry_table(result: SkullPrediction, truth: Mapping[str, Any] | None) -> Table:
    """The measures with their standard deviations, and beside them the truth where it is known, drawn as far outside of
    the head as they are."""
    from rich.table import Table

    table = Table(title="Biometry", title_justify="left")
    table.add_column("measure")
    for column in ("value", "std", "95 % interval", "centile"):
        table.add_column(column, justify="right")
    true = {} if truth is None else _as_drawn(truth["measures"], result.provenance["drawn_outside_mm"])
    if true:
        table.add_column("true", justify="right")
        table.add_column("inside")
    for measure in result.measures:
        low, high = measure.interval
        row = [measure.name, f"{measure.value:.1f} {measure.unit}", f"{measure.std:.1f}", f"{low:.1f} to {high:.1f}",
               "-" if measure.percentile is None else ordinal(measure.percentile)]
        if true:
            row += [f"{true[measure.name]:.1f}", "yes" if low <= true[measure.name] <= high else "no"]
        table.add_row(*row)
    return table


def _as_drawn(measures: Mapping[str, float], outside_mm: float) -> dict[str, float]:
    import torch

    from ..skull.biometry import drawn_outside

    values = {name: torch.tensor([float(value)]) for name, value in measures.items()}
    return {name: float(value) for name, value in drawn_outside(values, outside_mm).items()}
