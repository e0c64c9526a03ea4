"""Which run of MedVAE a node of the scene belongs to, and which part it has in it."""

from __future__ import annotations

RUN, ROLE = "MedVAE.Run", "MedVAE.Role"
"""Attributes of every node that a run made: which run, and what the node is in it."""
_ITSELF = "MedVAE.Itself"


def mark(node, run: str) -> None:
    """Makes a node of the scene part of a run."""
    node.SetAttribute(RUN, run)
    node.SetNodeReferenceID(_ITSELF, node.GetID())


def run_of(node) -> str:
    """The run that a node is part of, "" if of none.

    A copy that a user made is of none: Slicer copies attributes, but a copy refers to the node it was made from, not to
    itself. References stay true when a loaded scene gives its nodes other IDs.
    """
    is_original = node.GetNodeReferenceID(_ITSELF) == node.GetID()
    return (node.GetAttribute(RUN) or "") if is_original else ""


def original(node):
    """What a copy that a user made was made from, None if that is gone; any other node itself."""
    return node.GetNodeReference(_ITSELF) if node.GetAttribute(RUN) else node
