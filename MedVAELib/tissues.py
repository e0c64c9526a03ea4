"""The tissue classes of the anatomy network, by name and number."""

from __future__ import annotations

TISSUES = (
    "background",
    "white matter",
    "cortex",
    "deep grey matter",
    "ventricles",
    "outer CSF",
    "brainstem",
    "cerebellum",
    "extracerebral",
)
BACKGROUND, WHITE, CORTEX, DEEP_GREY, VENTRICLES, OUTER_CSF, BRAINSTEM, CEREBELLUM, EXTRACEREBRAL = range(len(TISSUES))
"""BRAINSTEM includes the white matter of the cerebellum, CEREBELLUM is its cortex."""
PARENCHYMA = (WHITE, CORTEX, DEEP_GREY, BRAINSTEM, CEREBELLUM)
BRAIN = (*PARENCHYMA, VENTRICLES, OUTER_CSF)
