"""Many fetal heads in one go: planes in, a folder of results for each out, on the cohort's own code."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..bundle import DEFAULT_SKULL_BUNDLE, OUTLINE_BUNDLE, SKULL_SAMPLES, Bundle, load_bundle
from ..errors import UsageError
from ..outputs import plain
from ..progress import CancelToken, Progress, scaled
from ..skull.plane_files import parse_cut
from ..skull.planes import PlaneImage, check_arguments, parse_spacings, parse_weeks
from ..skull_outputs import BIOMETRY_FILE, biometry_record, check_skull_writable, write_skull
from ..standard_planes import PLANES
from .cases import refuse_double_names
from .run import fingerprint, released
from .summary import DONE, NOT_RUN, Row
from .table import Line, read_table

if TYPE_CHECKING:
    from ..skull.predictor import SkullPredictor
    from ..skull.result import SkullPrediction

_SHARE_OF_WRITING = 0.35  # of a case's progress, the rest being the prediction


@dataclass(frozen=True)
class SkullCase:
    """A head of a cohort. planes: (plane, file or file@slice) in clinical order; spacing: pixel sizes as
    `parse_spacings` reads them, ga: the age as `parse_weeks` does; both "" as set for all."""

    name: str
    planes: tuple[tuple[str, str], ...]
    spacing: str = ""
    ga: str = ""

    @property
    def sources(self) -> tuple[Path, ...]:
        return tuple(parse_cut(text)[0] for _, text in self.planes)

    @property
    def listed(self) -> str:
        return " ".join(plane for plane, _ in self.planes)

    def resolved(self) -> SkullCase:
        """With absolute paths, for another machine."""
        found = []
        for plane, text in self.planes:
            file, cut = parse_cut(text)
            ending = f"@{'xyz'[cut.axis]}{cut.index}" if cut else ""
            found.append((plane, f"{file.absolute()}{ending}"))
        return SkullCase(self.name, tuple(found), self.spacing, self.ga)


def read_skull_cases(table: Path) -> list[SkullCase]:
    """The cases of a CSV file with the column case, one or more of axial, sagittal and coronal, and, if wanted,
    spacing and ga. Relative paths start from the file's own folder. Raises InputError, naming file and line."""
    cases = [_case(line) for line in read_table(table, ("case",), (*PLANES, "spacing", "ga"), "head")]
    refuse_double_names(cases, table)
    return cases


def _case(line: Line) -> SkullCase:
    planes = tuple((plane, str(line.path(line.value(plane)))) for plane in PLANES if line.value(plane))
    if not planes:
        raise line.error(f"no plane is given; fill in one of the columns {', '.join(PLANES)}.")
    return SkullCase(line.case_name(), planes, line.value("spacing"), line.value("ga"))


@dataclass(frozen=True)
class SkullRow(Row):
    """A line of the summary: measures with their standard deviations."""

    case: str
    planes: str
    status: str = NOT_RUN
    bpd_mm: float | None = None
    bpd_std_mm: float | None = None
    ofd_mm: float | None = None
    ofd_std_mm: float | None = None
    hc_mm: float | None = None
    hc_std_mm: float | None = None
    hc_percentile: float | None = None
    bpd_percentile: float | None = None
    ofd_percentile: float | None = None
    cephalic_index_percent: float | None = None
    cephalic_index_std_percent: float | None = None
    ga_weeks: float | None = None
    volume_ml: float | None = None
    volume_std_ml: float | None = None
    seconds: float | None = None
    exit_code: int | None = None
    message: str = ""

    @classmethod
    def of_result(cls, case: SkullCase, result: SkullPrediction, seconds: float) -> SkullRow:
        return cls._done(case, plain(biometry_record(result)), seconds)

    @classmethod
    def of_folder(cls, case: SkullCase, folder: Path, provenance: Mapping[str, Any]) -> SkullRow:
        """The line of a result that an earlier run left. Raises OSError, ValueError or KeyError if it is damaged."""
        record = json.loads((folder / BIOMETRY_FILE).read_text(encoding="utf-8"))
        return cls._done(case, record, float(provenance["request"].get("seconds", 0.0)))

    @classmethod
    def _done(cls, case: SkullCase, record: Mapping[str, Any], seconds: float) -> SkullRow:
        numbers = {}
        for name, unit in (("BPD", "mm"), ("OFD", "mm"), ("HC", "mm"), ("cephalic index", "percent"), ("volume", "ml")):
            measure, column = record["measures"][name], name.lower().replace(" ", "_")
            numbers[f"{column}_{unit}"] = round(measure["value"], 3)
            numbers[f"{column}_std_{unit}"] = round(measure["std"], 3)
            if measure["percentile"] is not None:
                numbers[f"{column}_percentile"] = round(measure["percentile"], 2)
        return cls(case.name, case.listed, DONE, **numbers, ga_weeks=record["ga_weeks"], seconds=round(seconds, 2),
                   exit_code=0, message=" ".join(record["warnings"]))


@dataclass(frozen=True)
class SkullSettings:
    """How every head is to be predicted; as in `predict_skull`. spacing, ga: as `parse_spacings` and `parse_weeks` read
    them."""

    bundle: str = DEFAULT_SKULL_BUNDLE
    device: str = "auto"
    samples: int = SKULL_SAMPLES
    seed: int = 0
    spacing: str = ""
    ga: str = ""

    row = SkullRow

    def check(self, cases: Sequence[SkullCase]) -> None:
        check_arguments({"axial": None}, self.samples, parse_weeks(self.ga), self.seed)
        parse_spacings(self.spacing, {plane for case in cases for plane, _ in case.planes})

    def request(self, case: SkullCase, bundle: Bundle) -> dict[str, Any]:
        return {
            "medvae_version": __version__, **released("bundle", bundle),
            **released("outline_bundle", load_bundle(OUTLINE_BUNDLE)),
            "samples": self.samples, "seed": self.seed,
            "spacing": case.spacing or self.spacing, "ga_weeks": self._weeks(case),
            "planes": {plane: [text.rpartition("@")[2] if parse_cut(text)[1] else "", fingerprint(parse_cut(text)[0])]
                       for plane, text in case.planes},
        }

    def _weeks(self, case: SkullCase) -> float | str | None:
        """The age; as it is written where it cannot be read, which the prediction tells."""
        try:
            return parse_weeks(case.ga or self.ga)
        except UsageError:
            return case.ga or self.ga

    def load(self, bundle: Bundle) -> SkullPredictor:
        from ..skull.predictor import SkullPredictor

        return SkullPredictor.load(bundle, self.device)

    def degraded(self, model: SkullPredictor) -> bool:
        return bool(model.steps)

    def run(self, case: SkullCase, directory: Path, bundle: Bundle, model: SkullPredictor | None, progress: Progress,
            cancel: CancelToken) -> SkullPrediction:
        started = time.perf_counter()
        check_skull_writable(directory)
        progress("read", 0.0, f"Reading {case.name}")
        ga_weeks = parse_weeks(case.ga or self.ga)
        planes = read_planes(case, self.spacing)
        request = self.request(case, bundle)
        cancel.check()
        from ..skull.predict import predict_skull

        share = 1.0 - _SHARE_OF_WRITING
        result = predict_skull(
            planes, predictor=model or self.load(bundle), samples=self.samples, seed=self.seed,
            ga_weeks=ga_weeks, progress=scaled(progress, 0.0, share), cancel=cancel,
        )
        result.provenance["case"] = case.name
        result.provenance["request"] = {**request, "seconds": round(time.perf_counter() - started, 2)}
        write_skull(result, directory, scaled(progress, share, 1.0), cancel)
        return result


def read_planes(case: SkullCase, spacing: str) -> dict[str, PlaneImage]:
    """The planes of a head. spacing: of all heads, for one without its own; may tell of planes that this one lacks.
    Raises what `parse_spacings` and `PlaneImage.read` raise."""
    sizes = parse_spacings(case.spacing, dict(case.planes)) if case.spacing else parse_spacings(spacing)
    return {plane: PlaneImage.read(text, sizes.by_plane.get(plane), sizes.unstated) for plane, text in case.planes}

