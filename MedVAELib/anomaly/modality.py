"""FLAIR, DWI or neither: decided from what the tissues look like, and from tags where there are any."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..scan import Scan
from ..tissues import CORTEX, OUTER_CSF, VENTRICLES, WHITE

_LEAST_CORTEX, _MOST_CORTEX, _MOST_CSF = 0.93, 1.6, 0.7
"""Times the white matter. Cortex: 13 real FLAIR and DWI scans 1.00 to 1.18, 40 synthetic ones up to 1.41, by the signal
equation up to 1.44; double inversion recovery and perfusion, made from a label map, 3.43 and 2.04."""
_LEAST_CORTEX_OF_A_FLAIR, _MOST_CSF_OF_A_DWI = 0.88, 0.9
"""Of a scan called one: thick slices darken what is taken for cortex (1.00 to 1.18 on real FLAIR scans, .91 to .93 at 5
and 7 mm), and with a large infarct brighten what is taken for CSF (.77 on a real DWI)."""
_CLEARLY_FLAIR, _CLEARLY_DWI = 0.45, 0.6
"""CSF times white matter: measured .21 to .56 on eleven real FLAIR scans, .50 and .65 on two real DWI scans."""


def decide_modality(scan: Scan, mean: NDArray[np.float64]) -> tuple[str, str, list[str]]:
    """("flair" | "dwi" | "other", reason, warnings) from the fitted tissue intensities (K,) of the scan.

    FLAIR and DWI share bright cortex and dark CSF; on FLAIR the CSF is suppressed to near black, on DWI at
    b ≈ 1000 s/mm² it keeps about a third of the white matter's signal.
    """
    white = max(mean[WHITE], 1e-6)
    cortex, csf = mean[CORTEX] / white, min(mean[VENTRICLES], mean[OUTER_CSF]) / white
    contrast = f"cortex {cortex:.2f} and CSF {csf:.2f} times the white matter"
    called = scan.modality if scan.modality != "auto" else scan.modality_hint
    plausible = ((_LEAST_CORTEX_OF_A_FLAIR if called == "flair" else _LEAST_CORTEX) < cortex < _MOST_CORTEX
                 and csf < (_MOST_CSF_OF_A_DWI if called == "dwi" else _MOST_CSF))
    if scan.modality in ("flair", "dwi"):
        warnings = []
        if not plausible:
            warnings.append(f"The scan was called {scan.modality.upper()} but its contrast ({contrast}) is that of "
                            f"another sequence{_or_bright_white(cortex, csf)}: the anomaly map may be meaningless.")
        return scan.modality, "as requested", warnings
    if scan.modality_hint in ("flair", "dwi") and plausible:
        return scan.modality_hint, scan.modality_reason or "from its tags", []
    if not plausible or scan.modality_hint == "other":
        kind = _kind(cortex, csf)
        reason = scan.modality_reason if plausible else f"contrast: {contrast}"
        warning = (
            f"This looks like neither FLAIR nor DWI but {kind} ({reason}){_or_bright_white(cortex, csf)}: the detector "
            "was not made for it, and its map may be meaningless; if that is wrong, choose the modality."
        )
        return "other", reason, [warning]
    spacing = np.sort(np.array(scan.image.GetSpacing()))
    is_dwi = csf > _CLEARLY_DWI or (csf > 0.33 and cortex > 1.15 and spacing[1] > 1.3)
    modality, warnings = "dwi" if is_dwi else "flair", []
    if csf > _CLEARLY_FLAIR:
        warnings.append(f"Neither tags nor name say whether this is FLAIR or DWI, and its contrast ({contrast}) could "
                        f"be either's: it is taken for {modality.upper()}; if that is wrong, choose the modality.")
    return modality, f"contrast: {contrast}", warnings


def _kind(cortex: float, csf: float) -> str:
    """What a scan that is neither FLAIR nor DWI looks like."""
    if csf < _MOST_CSF and cortex < _LEAST_CORTEX:
        return "T1-weighted"
    if csf < _MOST_CSF and cortex >= _MOST_CORTEX:
        return "double inversion recovery or perfusion"
    return "T2-weighted" if csf > 1 else "unknown"


def _or_bright_white(cortex: float, csf: float) -> str:
    """What else the contrast of a T1-weighted scan can be."""
    if cortex >= _LEAST_CORTEX or csf >= _MOST_CSF:
        return ""
    return ", or all of its white matter is too bright, as in diffuse disease or before it is myelinated"
