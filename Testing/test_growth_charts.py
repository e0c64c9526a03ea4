"""Growth charts: values of the published tables, percentiles, limits."""

from __future__ import annotations

import pytest

from MedVAELib.growth_charts import BPD, HC, OFD


@pytest.mark.parametrize("chart, week, fiftieth, tolerance", [
    (HC, 20, 172.7, 1.0), (HC, 30, 278.4, 1.0), (HC, 36, 319.4, 1.5), (BPD, 20, 48.4, 0.5), (BPD, 30, 78.9, 0.5),
    (OFD, 30, 98.0, 0.5),
])
def test_means_are_those_of_the_published_tables(chart, week, fiftieth, tolerance):
    assert abs(chart.mean_mm(week) - fiftieth) < tolerance


def test_the_diameters_spread_as_the_circumference_does():
    for week in (20, 25, 30, 36):
        bpd, ofd = BPD.sd_mm(week), OFD.sd_mm(week)
        together = 1.5708 * (bpd**2 + ofd**2 + 2 * 0.4 * bpd * ofd) ** 0.5
        assert abs(together / HC.sd_mm(week) - 1) < 0.15


def test_percentiles():
    assert abs(HC.percentile(HC.mean_mm(28), 28) - 50) < 1e-9
    assert abs(HC.percentile(HC.mean_mm(28) - 1.6449 * HC.sd_mm(28), 28) - 5) < 0.01
    assert HC.percentile(400, 28) > 99.99


def test_the_age_of_a_size_is_where_the_mean_reaches_it():
    assert abs(HC.age_weeks(HC.mean_mm(27.3)) - 27.3) < 1e-6


def test_ages_outside_the_chart_are_refused():
    with pytest.raises(ValueError, match="14 to 40 weeks"):
        HC.percentile(100, 12)
