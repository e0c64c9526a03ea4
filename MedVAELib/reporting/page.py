"""What every report page shares: its templates, date and running times."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .words import is_timing

NOTICE = "For research use only. Not for diagnosis; not a medical device."


def render(template: str, **variables: object) -> str:
    """A page from one of the package's templates. Every variable that it names must be given."""
    environment = Environment(loader=FileSystemLoader(Path(__file__).parents[1] / "templates"), autoescape=True,
                              undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)  # fmt: skip
    return environment.get_template(template).render(notice=NOTICE, **variables)


def run_date(provenance: Mapping[str, object]) -> str:
    """When the task ran, if the provenance says so, else now; local time."""
    for key in ("created", "date", "time", "finished"):
        try:
            return datetime.fromisoformat(str(provenance[key])).strftime("%Y-%m-%d %H:%M")
        except (KeyError, ValueError):
            continue
    return datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")


def timings(provenance: Mapping[str, object]) -> list[dict[str, object]]:
    """Stages with seconds and their share of the whole in percent."""
    for key, value in provenance.items():
        if is_timing(key, value):
            stages = {str(stage): float(seconds) for stage, seconds in value.items() if stage != "total"}
            whole = sum(stages.values())
            if whole > 0:
                return [{"stage": stage.replace("_", " "), "seconds": f"{seconds:.2f}",
                         "percent": round(100 * seconds / whole, 2)} for stage, seconds in stages.items()]
    return []
