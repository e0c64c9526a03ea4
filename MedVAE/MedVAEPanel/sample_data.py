"""The samples that come with MedVAE, a scan and three planes: in the Sample Data module, and by one click here."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from . import library
from .plane_node import PLANES, forget_file, type_size

CATEGORY = "MedVAE"
NAME = "MedVAEFlair"
TITLE = "Synthetic FLAIR with lesions"
FILE = "sample/flair.nii.gz"
SHA256 = "0c6a2198822f5b02b264a4c10253c3b77a96955a423a6ed319340bc7b0e488ae"
PLANES_NAME = "MedVAEFetalHead"
PLANES_FOLDER = "sample/skull"
PLANES_SHA256 = {
    "axial": "3623dc9dd3caf3dbba2b639c85d98cbced14fba7cd91c531c121235e0dc1ab21",
    "sagittal": "a4cce5c3b5b209b200f8bd92be887c09b700a05d30b9f9698eefaffa193831a8",
    "coronal": "1955010360bff6954030b1b9d00b522b50b7f9b9db1055c4683f86f93a677a93",
}
THUMBNAIL = Path(__file__).resolve().parents[1] / "Resources" / "Icons" / "MedVAESample.png"
_ATTRIBUTE = "MedVAE.Sample"


def register_sample_data() -> None:
    """Lists the samples in the Sample Data module; their files come with MedVAE, so that no network is needed."""
    import SampleData

    logic = SampleData.SampleDataLogic
    if hasattr(logic, "registerCustomSampleDataCategory"):  # since Slicer 5.12
        logic.registerCustomSampleDataCategory(CATEGORY, title=_("MedVAE"))
    try:
        uri = library.resource(FILE).as_uri()
        planes = [library.resource(f"{PLANES_FOLDER}/{plane}.png").as_uri() for plane in PLANES]
    except (FileNotFoundError, ImportError):
        return  # the panel says so when the samples are asked for
    logic.registerCustomSampleDataSource(
        category=CATEGORY, sampleName=NAME, uris=uri, fileNames="MedVAE-synthetic-flair.nii.gz", nodeNames=TITLE,
        checksums=f"SHA256:{SHA256}", thumbnailFileName=str(THUMBNAIL), loadFileTypes="VolumeFile",
    )
    logic.registerCustomSampleDataSource(
        category=CATEGORY, sampleName=PLANES_NAME, uris=planes, nodeNames=[_plane_title(plane) for plane in PLANES],
        fileNames=[f"MedVAE-fetal-{plane}.png" for plane in PLANES], thumbnailFileName=str(THUMBNAIL),
        checksums=[f"SHA256:{PLANES_SHA256[plane]}" for plane in PLANES],  # else copies of earlier ones are kept
        customDownloader=lambda source: list((load_sample_planes() or {}).values()),
    )


def load_sample():
    """The sample as a volume node, shown in the slice views; the one that is there if it was loaded before.

    None, after telling the user why, when it cannot be loaded.
    """
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        if node.GetAttribute(_ATTRIBUTE) == SHA256:
            return node
    try:
        file = checked_sample()
        node = slicer.util.loadVolume(str(file), {"name": TITLE})
    except (OSError, ImportError, RuntimeError) as error:
        slicer.util.errorDisplay(str(error), windowTitle="MedVAE")
        return None
    node.SetAttribute(_ATTRIBUTE, SHA256)
    forget_file(node)
    return node


def load_sample_planes() -> dict | None:
    """The sample's planes as volume nodes by the plane's name, with their pixel size; those that are there already.

    None, after telling the user why, when they cannot be loaded.
    """
    try:
        size_mm = float(sample_head()["spacing_mm"])
        return {plane: _load_plane(plane, size_mm) for plane in PLANES}
    except (OSError, ImportError, RuntimeError, ValueError, KeyError) as error:
        slicer.util.errorDisplay(str(error), windowTitle="MedVAE")
        return None


def sample_head() -> dict:
    """What is known of the head on the sample's planes. Raises OSError, ImportError or ValueError."""
    return json.loads(library.resource(f"{PLANES_FOLDER}/truth.json").read_text(encoding="utf-8"))


def _load_plane(plane: str, size_mm: float):
    mark = f"{PLANES_FOLDER}/{plane}"
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        if node.GetAttribute(_ATTRIBUTE) == mark:
            return node
    import SimpleITK as sitk

    values = sitk.GetArrayFromImage(sitk.ReadImage(str(library.resource(f"{PLANES_FOLDER}/{plane}.png"))))
    kind = "vtkMRMLVectorVolumeNode" if values.ndim == 3 else "vtkMRMLScalarVolumeNode"
    node = slicer.mrmlScene.AddNewNodeByClass(kind, _plane_title(plane))
    slicer.util.updateVolumeFromArray(node, values[None])
    node.CreateDefaultDisplayNodes()
    node.SetAttribute(_ATTRIBUTE, mark)
    type_size(node, size_mm)
    return node


def _plane_title(plane: str) -> str:
    return f"Simulated {plane} plane"


def checked_sample() -> Path:
    """The sample's file. Raises OSError, with a sentence for the user, when it is missing or not the one released."""
    file = library.resource(FILE)
    if hashlib.sha256(file.read_bytes()).hexdigest() != SHA256:
        raise OSError(_("{file} is not the file that MedVAE came with: install the extension again, or use a new clone."
                        ).format(file=file))
    return file
