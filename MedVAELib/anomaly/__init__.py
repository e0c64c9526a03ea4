"""Where a scan departs from the healthy brain behind it. Loads nothing by itself: torch takes seconds to load, and an
error in what was asked for is said before."""
