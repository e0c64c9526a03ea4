"""Fetal head growth charts: mean, spread and percentile by gestational age.

The international standards of the INTERGROWTH-21st project (Papageorghiou et al. 2014, Lancet 384:869-79,
doi:10.1016/S0140-6736(14)61490-2, equations of table 3). Ages are exact weeks, sizes mm, and biparietal and
occipitofrontal diameter are measured from the outer to the outer table. Values at one age are taken as normal.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

FIRST_WEEK, LAST_WEEK = 14.0, 40.0


@dataclass(frozen=True)
class GrowthChart:
    """Mean and standard deviation (mm) of one measure at an age in weeks."""

    name: str
    mean_mm: Callable[[float], float]
    sd_mm: Callable[[float], float]

    def z_score(self, value_mm: float, ga_weeks: float) -> float:
        """Standard deviations above the mean at that age; ValueError outside the chart's weeks."""
        check_age(ga_weeks)
        return (value_mm - self.mean_mm(ga_weeks)) / self.sd_mm(ga_weeks)

    def percentile(self, value_mm: float, ga_weeks: float) -> float:
        """0…100: how many of a hundred healthy fetuses of that age measure less."""
        return 50 * math.erfc(-self.z_score(value_mm, ga_weeks) / math.sqrt(2))

    def age_weeks(self, value_mm: float) -> float:
        """The age at which `value_mm` is the mean, within the chart's weeks."""
        low, high = FIRST_WEEK, LAST_WEEK
        for _ in range(40):  # the means rise with age
            middle = (low + high) / 2
            low, high = (middle, high) if self.mean_mm(middle) < value_mm else (low, middle)
        return (low + high) / 2


def ordinal(percentile: float) -> str:
    """A percentile in words; the charts say little of what is rarer than one in a hundred."""
    if percentile < 1:
        return "< 1st"
    if percentile > 99:
        return "> 99th"
    number = round(percentile)
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def check_age(ga_weeks: float) -> None:
    """Raises ValueError for an age in weeks that the charts do not hold for."""
    if not FIRST_WEEK <= ga_weeks <= LAST_WEEK:
        raise ValueError(f"the growth charts hold for {FIRST_WEEK:g} to {LAST_WEEK:g} weeks, not {ga_weeks:g}")


def _hc_mean(w: float) -> float:
    return -28.2849 + 1.69267 * w**2 - 0.397485 * w**2 * math.log(w)


def _hc_sd(w: float) -> float:
    log = math.log(w)
    return 1.98735 + w**3 * (0.0136772 - 0.00726264 * log + 0.000976253 * log**2)


def _bpd_mean(w: float) -> float:
    return 5.60878 + 0.158369 * w**2 - 0.00256379 * w**3


def _bpd_sd(w: float) -> float:
    log = math.log(w)
    return math.exp(0.101242 + w**3 * (0.00150557 - 0.000771535 * log + 0.0000999638 * log**2))


def _ofd_mean(w: float) -> float:
    return -12.4097 + 0.626342 * w**2 - 0.148075 * w**2 * math.log(w)


def _ofd_sd(w: float) -> float:
    log = math.log(w)
    return math.exp(-0.880034 + w**2 * (0.0631165 - 0.0317136 * log + 0.00408302 * log**2))


HC = GrowthChart("head circumference", _hc_mean, _hc_sd)
BPD = GrowthChart("biparietal diameter", _bpd_mean, _bpd_sd)
OFD = GrowthChart("occipitofrontal diameter", _ofd_mean, _ofd_sd)
