"""Biometry of ellipsoids is known exactly; spread and percentiles follow from samples and chart."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from MedVAELib.growth_charts import BPD
from MedVAELib.skull.biometry import UNITS, Drawn, drawn_outside, ellipse_circumference, measure_heads, summarise

from .heads import ellipsoid_sdf

axis = st.floats(24, 38)


@settings(max_examples=25, deadline=None)
@given(z=axis, y=axis, x=axis, spacing=st.floats(0.8, 1.8))
def test_ellipsoids(z, y, x, spacing):
    x, y = sorted((x, y))  # the longer diameter is the OFD
    sdf = ellipsoid_sdf((z, y, x), 48, 2.0) / 2  # voxels of the 48³ grid
    found = measure_heads(sdf.clamp(-4, 4)[None], 2 * spacing)
    assert float(found["BPD"]) == pytest.approx(2 * x * spacing, abs=0.15 * spacing)
    assert float(found["OFD"]) == pytest.approx(2 * y * spacing, abs=0.15 * spacing)
    circumference = float(ellipse_circumference(torch.tensor(x), torch.tensor(y))) * spacing
    assert float(found["HC"]) == pytest.approx(circumference, rel=4e-3)
    assert float(found["volume"]) == pytest.approx(4 / 3 * math.pi * x * y * z * spacing**3 / 1000, rel=0.01)
    assert float(found["cephalic index"]) == pytest.approx(100 * x / y, rel=0.01)


def test_diameters_are_those_of_the_ellipse_whose_circumference_is_given():
    """Of a section that is no ellipse, too: extents would be those of its corners."""
    plain, corner = ellipsoid_sdf((28.0, 36.0, 29.0), 48, 2.0) / 2, torch.full((48, 48, 48), -4.0)
    corner[20:28, 22:26, 37:41] = 0.5  # a knob at the side, 3 voxels beyond the head
    found, knobbed = (measure_heads(sdf[None], 2.0) for sdf in (plain, torch.maximum(plain, corner)))
    assert 0 < float(knobbed["BPD"] - found["BPD"]) < 2
    for sizes in (found, knobbed):
        assert float(ellipse_circumference(sizes["OFD"] / 2, sizes["BPD"] / 2)) == pytest.approx(float(sizes["HC"]))
        assert float(sizes["cephalic index"]) == pytest.approx(100 * float(sizes["BPD"] / sizes["OFD"]))


def test_a_circle_and_a_line():
    assert float(ellipse_circumference(torch.tensor(3.0), torch.tensor(3.0))) == pytest.approx(6 * math.pi)
    assert float(ellipse_circumference(torch.tensor(1.0), torch.tensor(0.0))) == pytest.approx(4, rel=1e-3)


def test_spread_and_percentile():
    heads = torch.stack([ellipsoid_sdf((28.0, 36.0, x), 48, 2.0) / 2 for x in (28.0, 29.0, 30.0)])
    measures = {measure.name: measure for measure in summarise(measure_heads(heads, 2.8), 30.0)}
    assert list(measures) == list(UNITS)
    bpd = measures["BPD"]
    assert bpd.std == pytest.approx(2 * 1.4 * math.sqrt(2 / 3), rel=0.1)
    assert bpd.interval == pytest.approx((bpd.value - 1.96 * bpd.std, bpd.value + 1.96 * bpd.std))
    assert bpd.percentile == pytest.approx(BPD.percentile(bpd.value, 30.0))
    assert measures["volume"].percentile is None
    assert all(m.percentile is None for m in summarise(measure_heads(heads, 2.8)))
    assert all(m.std == 0 for m in summarise(measure_heads(heads[:1], 2.8)))


def test_an_empty_field_measures_nothing():
    found = measure_heads(torch.full((1, 8, 8, 8), -1.0), 1.0)
    assert {float(value) for value in found.values()} == {0}


def test_callipers_are_placed_outside_of_the_outline():
    inner, outer = (measure_heads(ellipsoid_sdf(axes, 48, 2.0)[None] / 2, 2.0)
                    for axes in ((28.0, 36.0, 29.0), (28.0, 37.0, 30.0)))
    drawn = drawn_outside(inner, 1.0)
    for name in ("BPD", "OFD", "HC", "cephalic index"):
        assert float(drawn[name]) == pytest.approx(float(outer[name]), rel=0.005), name
    assert torch.equal(drawn["volume"], inner["volume"])
    assert all(torch.equal(value, inner[name]) for name, value in drawn_outside(inner, 0.0).items())


def test_standard_deviations_are_widened_and_never_below_those_of_drawn_outlines():
    heads = torch.stack([ellipsoid_sdf((28.0, 36.0, x), 48, 2.0) / 2 for x in (28.0, 29.0, 30.0)])
    values = measure_heads(heads, 2.0)
    plain, wide, drawn = ({each.name: each for each in summarise(values, **how)} for how in (
        {}, {"widening": {"BPD": 2.0, "volume": 0.5}}, {"drawn": Drawn(0.5, 3.0, 4.0)}))
    assert wide["BPD"].std == pytest.approx(2 * plain["BPD"].std) and wide["BPD"].value == plain["BPD"].value
    assert wide["BPD"].interval[1] - wide["BPD"].value == pytest.approx(1.96 * wide["BPD"].std)
    assert wide["volume"].std == pytest.approx(plain["volume"].std / 2) and wide["OFD"].std == plain["OFD"].std
    assert plain["BPD"].std < 3 < drawn["BPD"].std + 1e-9 and drawn["OFD"].std == 4
    # Draws of both axes with these errors, instead of the formula.
    generator = torch.Generator().manual_seed(0)
    bpd = drawn["BPD"].value + 3 * torch.randn(20_000, generator=generator)
    ofd = drawn["OFD"].value + 4 * torch.randn(20_000, generator=generator)
    assert drawn["HC"].std == pytest.approx(float(ellipse_circumference(ofd / 2, bpd / 2).std()), rel=0.03)
    assert drawn["cephalic index"].std == pytest.approx(float((100 * bpd / ofd).std()), rel=0.03)
    assert drawn["volume"].std == plain["volume"].std
