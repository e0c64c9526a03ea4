"""A scan in, a folder of results of the detection out: one, or many in one go on the cohort's own code."""

from __future__ import annotations

import csv
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..anomaly.result import FINDING_COLUMNS
from ..bundle import DEFAULT_ANOMALY_BUNDLE, Bundle
from ..detection_outputs import check_detection_writable, write_detection
from ..progress import CancelToken, Progress, no_progress, scaled
from .cases import Case, refuse_results_among_slices
from .run import fingerprint, released
from .summary import DONE, NOT_RUN, Row

if TYPE_CHECKING:
    from ..anomaly.detector import Detector
    from ..anomaly.result import Detection

_SHARE_OF_WRITING = 0.15  # of a scan's progress, the rest being the detection


@dataclass(frozen=True)
class CaseRow(Row):
    """A line of the summary. findings: how many, with the volume of all, the largest and the highest peak."""

    case: str
    scan: str
    status: str = NOT_RUN
    modality: str = ""
    findings: int | None = None
    volume_ml: float | None = None
    largest_ml: float | None = None
    peak: float | None = None
    seconds: float | None = None
    exit_code: int | None = None
    message: str = ""

    @classmethod
    def of_result(cls, case: Case, result: Detection, seconds: float) -> CaseRow:
        findings = [(finding.volume_ml, finding.peak) for finding in result.findings]
        return cls._done(case, result.modality, findings, seconds, result.warnings)

    @classmethod
    def of_folder(cls, case: Case, folder: Path, provenance: dict[str, Any]) -> CaseRow:
        """The line of a result that an earlier run left. Raises OSError, ValueError or KeyError if it is damaged."""
        with (folder / "findings.csv").open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            if tuple(table.fieldnames or ()) != FINDING_COLUMNS:
                raise ValueError(f"{file.name} is not a table of findings")
            findings = [(float(row["volume_ml"]), float(row["peak"])) for row in table]
        seconds = float(provenance["request"].get("seconds", 0.0))
        return cls._done(case, provenance["modality"], findings, seconds, provenance["warnings"])

    @classmethod
    def _done(cls, case: Case, modality: str, findings: list[tuple[float, float]], seconds: float,
              warnings: Iterable[str]) -> CaseRow:
        volumes = [round(volume, 4) for volume, _ in findings]  # as in findings.csv, so that a resumed row is the same
        return cls(
            case.name, case.listed, DONE, modality, len(findings), round(sum(volumes), 4),
            max(volumes, default=0.0),
            round(max((peak for _, peak in findings), default=0.0), 4), round(seconds, 2), 0, " ".join(warnings),
        )


@dataclass(frozen=True)
class Settings:
    """How every scan is to be detected; as in `detect_anomalies`. bundle: name or folder."""

    bundle: str = DEFAULT_ANOMALY_BUNDLE
    device: str = "auto"
    samples: int = 16
    fpr: float = 0.01
    score: str = "zscore"
    seed: int = 0
    modality: str = "auto"
    series: str | None = None

    row = CaseRow

    def arguments(self) -> dict[str, Any]:
        return {"samples": self.samples, "fpr": self.fpr, "score": self.score, "seed": self.seed}

    def check(self, cases: Sequence[Case]) -> None:
        from ..anomaly.scores import check_arguments

        check_arguments(self.samples, self.fpr, self.score, self.seed)

    def request(self, case: Case, bundle: Bundle) -> dict[str, Any]:
        return {
            "medvae_version": __version__, **released("bundle", bundle), **self.arguments(),
            "modality": case.modality or self.modality, "series": case.series or self.series,
            "scan": fingerprint(case.scan),
        }

    def load(self, bundle: Bundle) -> Detector:
        from ..anomaly.detector import Detector

        return Detector.load(bundle, self.device)

    def degraded(self, model: Detector) -> bool:
        return bool(model.steps)

    def run(self, case: Case, directory: Path, bundle: Bundle, model: Detector | None, progress: Progress,
            cancel: CancelToken) -> Detection:
        return detect_case(case, directory, self, bundle, model, progress, cancel, titled=True)


def detect_case(
    case: Case, directory: Path, settings: Settings, bundle: Bundle, detector: Detector | None = None,
    progress: Progress = no_progress, cancel: CancelToken | None = None, titled: bool = False,
) -> Detection:
    """Reads the scan, detects and writes every file of the contract into `directory`; raises what these raise. titled:
    the result has the case's name, not its file's, which may be the same in all cases."""
    started, cancel = time.perf_counter(), cancel or CancelToken()
    refuse_results_among_slices(case.sources, [directory])
    check_detection_writable(directory)
    progress("read", 0.0, f"Reading {case.scan.name}")
    from ..scan import Scan

    cancel.check()
    modality, series = case.modality or settings.modality, case.series or settings.series
    scan = Scan.read(case.scan, modality=modality, series=series)
    scan = replace(scan, name=case.name) if titled else scan
    request = settings.request(case, bundle)
    cancel.check()
    from ..anomaly.detect import detect_anomalies  # torch takes seconds to load: an unusable scan is named before

    where = {"bundle": bundle, "device": settings.device} if detector is None else {"detector": detector}
    result = detect_anomalies(
        scan, progress=scaled(progress, 0.0, 1.0 - _SHARE_OF_WRITING), cancel=cancel, **settings.arguments(), **where
    )
    result.provenance["request"] = {**request, "seconds": round(time.perf_counter() - started, 2)}
    write_detection(result, directory, progress=scaled(progress, 1.0 - _SHARE_OF_WRITING, 1.0), cancel=cancel)
    return result
