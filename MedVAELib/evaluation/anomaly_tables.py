"""Scores of the anomaly task as rows, means with intervals, and Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from ..bootstrap import CONFIDENCE, RESAMPLES
from .anomaly import FIRST_FINDINGS, METHODS, OURS, CaseScores
from .metrics import BLOCK_MM, MIN_LESION_BLOCKS, MIN_LESION_MM3, MIN_OVERLAP, mean_with_interval
from .tables import figure, markdown_table, percent

AVERAGED = ("ap", "dice", "best_dice", "sensitivity", "lesion_f1", "false_positive_ml", "false_positive_fraction",
            "ap_given_brain", "ap_gain", "dice_gain")

DEFINITIONS = (
    "Voxels: the scan's own. Region: our brain mask united with the expert's mask, the same for every method; "
    "lesion outside our brain mask is missed by us, not by the baselines.",
    "AP: average precision over voxels. Best Dice is an **upper bound**: its threshold was chosen with the truth.",
    "Dice, F1, sensitivity and false positives: ours at the bundle's threshold, bright voxels alone where dark ones "
    "have a score of their own; the baselines flag as many voxels as ours (matched volume).",
    f"Lesion F1: 26-connected components of at least {MIN_LESION_MM3:g} mm³; found when ≥ {MIN_OVERLAP:.0%} of the "
    f"lesion is flagged, right when ≥ {MIN_OVERLAP:.0%} of the component lies on lesion.",
    f"Findings: the bright ones of the report, surest first; right when ≥ {MIN_OVERLAP:.0%} lies on lesion. Beside "
    "them as many of the largest components of the intensity mask.",
    f"[brackets]: {CONFIDENCE:.0%} percentile bootstrap, {RESAMPLES} resamples; within a case of {BLOCK_MM:g} mm cubes "
    f"of the region, if {MIN_LESION_BLOCKS} or more hold lesion: how far the figure depends on the place, not what the "
    "next patient's will be; for means of the cases, where five cases hold what is said in some 83 % of trials, ten in "
    "90 %. Gain: ours − baseline over the same resamples.",
    "Image autoencoders: maps on the grid of their preparation, brought back linearly; \"residual\" |x − x̂|, "
    "\"excess\" where x is brighter, \"kl_gradient\" |∂KL/∂x|, \"combined\" residual × gradient (Zimmerer et al. "
    "2019), \"restoration\" by a prior over codes (after Marimont and Tarroni 2021). \"intensity, mni-4mm\": the "
    "prepared image itself, which has lost the same resolution.",
    "Intensity: plain intensity in the region, smoothed by a Gaussian of 0.6 voxels. Equalised: histogram-equalised "
    "intensity without smoothing (Meissen et al. 2021).",
)


def case_rows(results: Sequence[CaseScores]) -> list[dict[str, object]]:
    """One flat row per case and method (one row without figures where there is no truth or the case failed)."""
    rows = []
    for result in results:
        common = {
            "case": result.case.name, "kind": "failed" if result.failure else result.case.kind,
            "modality": result.modality, "lesion_ml": result.lesion_ml, "brain_ml": result.brain_ml,
            "flagged_ml": result.flagged_ml, "findings": result.findings, "dark_ml": result.dark_ml,
            "threshold": result.threshold, "brain_dice": result.brain_dice,
            "lesion_outside_brain": result.lesion_outside_brain,
            "between_raters_dice": result.between_raters_dice, "second_rater_ap": result.second_rater_ap,
            "seconds": result.seconds,
        }
        for method in result.methods or ("",):
            row = {**common, "method": method}
            if method:
                for key, value in asdict(result.methods[method]).items():
                    if isinstance(value, tuple):
                        row[f"{key[:-len('_interval')]}_low"], row[f"{key[:-len('_interval')]}_high"] = value
                    else:
                        row[key] = value
            rows.append(row | {"failure": result.failure})
    return rows


def means(results: Sequence[CaseScores], left_out: Sequence[str] = ()) -> dict[str, object]:
    """Mean and interval over the cases with lesions, per method: {"cases": names, method: {figure: [mean, low, high]}}.

    Cases named in `left_out` do not enter.
    """
    chosen = [r for r in results if r.methods and r.case.kind == "lesions" and r.case.name not in left_out]
    table: dict[str, object] = {"cases": [r.case.name for r in chosen]}
    for method in methods_of(chosen):
        table[method] = {figure: list(mean_with_interval(np.array([getattr(r.methods[method], figure)
                                                                   for r in chosen]))) for figure in AVERAGED}
    return table


def methods_of(results: Sequence[CaseScores]) -> list[str]:
    """METHODS, then whatever else was scored, in the order of the first case that has it."""
    return list(dict.fromkeys([*METHODS, *(method for r in results for method in r.methods)]))


def anomaly_markdown(results: Sequence[CaseScores], left_out: Sequence[str], notes: Sequence[str]) -> str:
    """The whole result as Markdown: ranking, thresholded, healthy, the rest, and how each figure is defined."""
    lesions = [r for r in results if r.methods and r.case.kind == "lesions"]
    healthy = [r for r in results if r.methods and r.case.kind == "healthy"]
    parts = ["# Anomaly detection, measured\n", *(f"{note}  " for note in notes), ""]
    if lesions:
        average = means(results, left_out)
        parts += ["## Ranking of voxels\n", _ranking_table(lesions, average, left_out), *_experts(lesions),
                  "## At the threshold\n", _threshold_table(lesions, average, left_out),
                  "## The list of findings\n", _findings_table(lesions, left_out)]
        if len(methods_of(lesions)) > len(METHODS):
            parts += ["## Image autoencoders beside them\n", _autoencoder_table(lesions, average, left_out)]
    if healthy:
        parts += ["## Healthy cases\n", _healthy_table(healthy)]
    for title, chosen in (("Without truth, looked at only", [r for r in results if not r.methods and not r.failure]),
                          ("Failed", [r for r in results if r.failure])):
        if chosen:
            parts += [f"## {title}\n",
                      *(f"- {r.case.name}: {r.failure or f'{r.flagged_ml:.1f} ml flagged, {r.seconds:.1f} s'}"
                        for r in chosen), ""]
    return "\n".join([*parts, "## Definitions\n", *(f"- {line}" for line in DEFINITIONS), ""])


def _experts(results: Sequence[CaseScores]) -> list[str]:
    """How far two experts agree, where there are two: what a map can be asked to reach."""
    both = [r for r in results if not math.isnan(r.second_rater_ap)]
    if not both:
        return []
    each = "; ".join(f"{r.case.name} AP {r.second_rater_ap:.3f}, Dice {r.between_raters_dice:.3f}" for r in both)
    return [f"The second expert's mask, ranked like a map, against the first's: {each}.\n"]


def _ranking_table(results: Sequence[CaseScores], average: Mapping, left_out: Sequence[str]) -> str:
    others = METHODS[1:]
    header = ["case", "lesion ml", "AP ours", *(f"AP {m}" for m in others), f"gain over {others[0]}",
              "best Dice ours (upper bound)", f"best Dice {others[0]} (upper bound)",
              "AP in given brain, ours", f"AP in given brain, {others[0]}"]
    rows = []
    for r in results:
        ours, plain = r.methods[OURS], r.methods[others[0]]
        rows.append([_name(r, left_out), f"{r.lesion_ml:.1f}",
                     *(figure(r.methods[m].ap, r.methods[m].ap_interval) for m in METHODS),
                     figure(plain.ap_gain, plain.ap_gain_interval), figure(ours.best_dice), figure(plain.best_dice),
                     figure(ours.ap_given_brain), figure(plain.ap_given_brain)])
    rows.append([f"**mean of {len(average['cases'])}**", "", *(_mean(average, m, "ap") for m in METHODS),
                 _mean(average, others[0], "ap_gain"), *(_mean(average, m, "best_dice") for m in METHODS[:2]),
                 *(_mean(average, m, "ap_given_brain") + _of_fewer(results, average) for m in METHODS[:2])])
    return markdown_table(header, rows)


def _threshold_table(results: Sequence[CaseScores], average: Mapping, left_out: Sequence[str]) -> str:
    pair = METHODS[:2]
    header = ["case", *(f"Dice {m}" for m in METHODS), *(f"lesion F1 {m}" for m in pair),
              *(f"sensitivity {m}" for m in pair), *(f"false positive ml {m}" for m in pair),
              "flagged share of healthy brain, ours", "brain mask Dice", "lesion outside our brain", "seconds"]
    rows = []
    for r in results:
        rows.append([_name(r, left_out), *(figure(r.methods[m].dice, r.methods[m].dice_interval) for m in METHODS),
                     *(figure(r.methods[m].lesion_f1) for m in pair),
                     *(figure(r.methods[m].sensitivity) for m in pair),
                     *(f"{r.methods[m].false_positive_ml:.1f}" for m in pair),
                     percent(r.methods[OURS].false_positive_fraction), figure(r.brain_dice),
                     percent(r.lesion_outside_brain), f"{r.seconds:.1f}"])
    rows.append([f"**mean of {len(average['cases'])}**", *(_mean(average, m, "dice") for m in METHODS),
                 *(_mean(average, m, "lesion_f1") for m in pair), *(_mean(average, m, "sensitivity") for m in pair),
                 *(f"{average[m]['false_positive_ml'][0]:.1f}" for m in pair),
                 percent(average[OURS]["false_positive_fraction"][0]), "", "", ""])
    return markdown_table(header, rows)


def _findings_table(results: Sequence[CaseScores], left_out: Sequence[str]) -> str:
    header = ["case", "findings", *(f"right, {m}" for m in METHODS[:2]),
              *(f"right of the first {FIRST_FINDINGS}, {m}" for m in METHODS[:2])]
    rows = [[_name(r, left_out), str(r.findings), *(f"{r.methods[m].findings_right:.0f}" for m in METHODS[:2]),
             *(f"{r.methods[m].first_findings_right:.0f}" for m in METHODS[:2])] for r in results]
    return markdown_table(header, rows)


def _autoencoder_table(results: Sequence[CaseScores], average: Mapping, left_out: Sequence[str]) -> str:
    """Every method, the best ranking first: AP per case, mean figures, and how much higher ours ranks."""
    header = ["method", *(f"AP {_name(r, left_out)}" for r in results), f"**mean AP of {len(average['cases'])}**",
              "mean best Dice (upper bound)", "mean Dice at matched volume", "mean lesion F1", "mean gain of ours"]
    ranked = sorted(methods_of(results), key=lambda method: -np.nan_to_num(average[method]["ap"][0]))
    rows = [[method, *(figure(r.methods[method].ap) for r in results), _mean(average, method, "ap"),
             *(figure(average[method][name][0]) for name in ("best_dice", "dice", "lesion_f1")),
             _mean(average, method, "ap_gain")] for method in ranked]
    return markdown_table(header, rows)


def _healthy_table(results: Sequence[CaseScores]) -> str:
    header = ["case", "flagged share of the brain", "flagged ml", "findings", "brain ml", "seconds"]
    rows = [[r.case.name, percent(r.methods[OURS].false_positive_fraction), f"{r.flagged_ml:.1f}", str(r.findings),
             f"{r.brain_ml:.0f}", f"{r.seconds:.1f}"] for r in results]
    return markdown_table(header, rows)


def _mean(average: Mapping, method: str, name: str) -> str:
    value, low, high = average[method][name]
    return figure(value, (low, high))


def _of_fewer(results: Sequence[CaseScores], average: Mapping) -> str:
    """How many of the averaged cases have a brain mask given, where not all have."""
    known = sum(math.isfinite(r.methods[OURS].ap_given_brain) for r in results if r.case.name in average["cases"])
    return f" (of {known})" if 0 < known < len(average["cases"]) else ""


def _name(result: CaseScores, left_out: Sequence[str]) -> str:
    return f"{result.case.name} (not in the mean)" if result.case.name in left_out else result.case.name
