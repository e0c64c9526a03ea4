"""The panel behind `MedVAE.py`: one file per tab, the worker's client, and what a result becomes in the scene.

Only what comes with Slicer is imported here: neither torch nor anything that has to be installed.
"""
