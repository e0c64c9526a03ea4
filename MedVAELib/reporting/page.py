"""What every report page shares: its templates, date and running times."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .words import TIMINGS

NOTICE = "For research use only. Not for diagnosis; not a medical device."


def render(template: str, **variables: object) -> str:
    """A page from one of the package's templates, dated now. Every other variable that it names must be given."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parents[1] / "templates"), autoescape=True,
                              undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    now = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    return environment.get_template(template).render(notice=NOTICE, date=now, **variables)


def timings(provenance: Mapping[str, object]) -> list[dict[str, object]]:
    """Stages with seconds and their share of the whole in percent."""
    stages = {stage: float(seconds) for stage, seconds in provenance.get(TIMINGS, {}).items() if stage != "total"}
    whole = sum(stages.values())
    if whole <= 0:
        return []
    return [{"stage": stage.replace("_", " "), "seconds": f"{seconds:.2f}", "percent": round(100 * seconds / whole, 2)}
            for stage, seconds in stages.items()]
