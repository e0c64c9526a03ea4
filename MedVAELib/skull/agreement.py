"""Whether planes are sections of one head, and whether they would be if they were read in another way.

An image does not say which plane it shows, nor how a coronal one stands, and whoever names the planes may err. Then the
head that fits all of them best still departs from some of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import combinations, permutations

import torch
from torch import Tensor

from ..errors import DeviceMemoryError
from ..standard_planes import PLANES

MAX_MISFIT = 0.12
"""Of an outline's area, by which it may depart from the predicted head's own section: 60 held-back heads of all kinds
with misplaced planes reached 0.119."""
_SUSPICIOUS, _BETTER = 0.07, 0.7  # from where on other readings are tried, and what share of the misfit they must leave
OutlineMap = tuple[Tensor, float]
"""A filled outline (H, W), fraction of head 0…1 on square pixels, and the pixel's edge in mm."""


def agreement_warnings(
    outlines: Mapping[str, OutlineMap], misfits: Mapping[str, float],
    misfits_of: Callable[[Mapping[str, OutlineMap]], Mapping[str, float]],
) -> list[str]:
    """A sentence where the planes do not fit one head as they are named, none where they do.

    misfits: share of each outline's area by which it departs from the head predicted from all of them; misfits_of: the
    same for another reading of the planes, which costs a prediction.
    """
    worst = max(misfits, key=misfits.__getitem__)
    if misfits[worst] > _SUSPICIOUS and len(outlines) > 1:
        try:
            tried = {words: max(misfits_of(reading).values()) for words, reading in other_readings(outlines)}
        except DeviceMemoryError:  # the prediction itself is there
            tried = {"": misfits[worst]}
        words = min(tried, key=tried.__getitem__)
        if tried[words] < min(_BETTER * misfits[worst], MAX_MISFIT):
            return [f"The planes would fit one head better if {words} (off by {tried[words]:.0%} of an outline's area "
                    f"instead of {misfits[worst]:.0%}): check which is which, and the pixel sizes."]
    if misfits[worst] <= MAX_MISFIT:
        return []
    if len(outlines) == 1:
        return [f"The outline departs from the predicted head by {misfits[worst]:.0%} of its area: check that the "
                f"image shows the whole head, in the {worst} plane."]
    upright = ", and that the coronal one is upright" if "coronal" in outlines else ""
    return [f"The outlines depart from the predicted head by up to {misfits[worst]:.0%} of their area ({worst} plane): "
            f"check that all planes show one head, which is which, their pixel sizes{upright}."]


def other_readings(outlines: Mapping[str, OutlineMap]) -> Iterator[tuple[str, dict[str, OutlineMap]]]:
    """The planes with two of them exchanged, with one taken for a plane that is not there, or with the coronal one
    turned by a quarter: what people mistake, each as it reads after "if"."""
    for one, other in combinations(PLANES, 2):
        if one in outlines and other in outlines:
            yield f"{one} and {other} were exchanged", {**outlines, one: outlines[other], other: outlines[one]}
    for given, missing in permutations(PLANES, 2):
        if given in outlines and missing not in outlines:
            rest = {name: outline for name, outline in outlines.items() if name != given}
            yield f"the {given} one were {missing}", {**rest, missing: outlines[given]}
    if "coronal" in outlines:
        outline, pixel_mm = outlines["coronal"]
        yield "the coronal one were turned upright", {**outlines, "coronal": (torch.rot90(outline), pixel_mm)}
