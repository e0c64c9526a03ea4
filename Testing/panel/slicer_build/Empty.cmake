# Nothing is needed of what Slicer sets up here.
