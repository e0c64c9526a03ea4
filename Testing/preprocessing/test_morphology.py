"""Against scipy's morphology, bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import ndimage

from MedVAELib.preprocessing.morphology import closed, dilated, eroded, filled, opened

PAIRS = [(dilated, ndimage.binary_dilation), (eroded, ndimage.binary_erosion), (opened, ndimage.binary_opening),
         (closed, ndimage.binary_closing)]


@pytest.mark.parametrize("ours, scipys", PAIRS)
@given(arrays(bool, array_shapes(min_dims=1, max_dims=3, max_side=9)), st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_small_masks(ours, scipys, mask, steps):
    before = mask.copy()
    np.testing.assert_array_equal(ours(mask, steps), scipys(mask, iterations=steps))
    np.testing.assert_array_equal(mask, before)


@pytest.mark.parametrize("ours, scipys", PAIRS)
def test_a_blob_with_holes(ours, scipys):
    mask = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((24, 30, 28)), 1.5) > 0
    np.testing.assert_array_equal(ours(mask, 2), scipys(mask, iterations=2))


@given(arrays(bool, array_shapes(min_dims=2, max_dims=3, max_side=9)))
@settings(max_examples=60, deadline=None)
def test_holes_are_filled_within_the_box(mask):
    assert (filled(mask) == ndimage.binary_fill_holes(mask)).all()
