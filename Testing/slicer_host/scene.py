"""3D Slicer without its application: the real MRML scene and logics of slicer-core, slice and 3D views offscreen.

Rendering needs EGL (libegl1, libegl-mesa0, libgl1-mesa-dri) and is bit-identical from run to run.
"""

import atexit
import shutil
import tempfile

import slicer
import vtk
from vtkmodules.vtkInteractionStyle import vtkInteractorStyleUser
from vtkmodules.vtkRenderingCore import (
    vtkActor2D,
    vtkImageMapper,
    vtkInteractorStyle3D,
    vtkRenderer,
    vtkRenderWindow,
    vtkRenderWindowInteractor,
)

from .pictures import window_image

SLICE_DMS = [
    "vtkMRMLCrosshairDisplayableManager",
    "vtkMRMLVolumeGlyphSliceDisplayableManager",
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLOrientationMarkerDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
    "vtkMRMLScalarBarDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLTransformsDisplayableManager2D",
    "vtkMRMLColorLegendDisplayableManager",
]
VIEW_DMS = [
    "vtkMRMLVolumeRenderingDisplayableManager",
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLThreeDReformatDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager3D",
    "vtkMRMLOrientationMarkerDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLTransformsDisplayableManager3D",
    "vtkMRMLColorLegendDisplayableManager",
]


class HeadlessSlicer:
    def __init__(self):
        out = vtk.vtkOutputWindow()
        out.SetDisplayModeToAlwaysStdErr()
        vtk.vtkOutputWindow.SetInstance(out)
        self.scene = s = slicer.vtkMRMLScene()
        ch = slicer.vtkMRMLCrosshairNode()
        ch.SetCrosshairName("default")
        s.AddNode(ch)
        self.appLogic = al = slicer.vtkSlicerApplicationLogic()
        al.SetMRMLScene(s)
        cl = slicer.vtkSlicerColorLogic()
        cl.SetMRMLApplicationLogic(al)
        al.SetColorLogic(cl)
        cl.SetMRMLScene(s)
        cl.AddDefaultColorNodes()
        al.SetModuleLogic("Colors", cl)
        # Slicer's default label table (GenericColors.txt) is not in the wheel: use the built-in "Labels" table.
        d = slicer.vtkMRMLLabelMapVolumeDisplayNode()
        d.SetAndObserveColorNodeID("vtkMRMLColorTableNodeLabels")
        s.AddDefaultNode(d)
        al.SetSliceLogics(vtk.vtkCollection())
        al.SetViewLogics(vtk.vtkCollection())
        for f in (slicer.vtkMRMLThreeDViewDisplayableManagerFactory, slicer.vtkMRMLSliceViewDisplayableManagerFactory):
            f.GetInstance().SetMRMLApplicationLogic(al)
        self.logics = {"Colors": cl}
        for name, cls in [
            ("Volumes", "vtkSlicerVolumesLogic"),
            ("Segmentations", "vtkSlicerSegmentationsModuleLogic"),
            ("SubjectHierarchy", "vtkSlicerSubjectHierarchyModuleLogic"),
            ("Markups", "vtkSlicerMarkupsLogic"),
            ("Data", "vtkSlicerDataModuleLogic"),
            ("VolumeRendering", "vtkSlicerVolumeRenderingLogic"),
            ("Models", "vtkSlicerModelsLogic"),
            ("Plots", "vtkSlicerPlotsLogic"),
            ("Tables", "vtkSlicerTablesLogic"),
            ("Transforms", "vtkSlicerTransformLogic"),
            ("CropVolume", "vtkSlicerCropVolumeLogic"),
        ]:
            logic = getattr(slicer, cls)()
            logic.SetMRMLScene(s)
            logic.SetMRMLApplicationLogic(al)
            al.SetModuleLogic(name, logic)
            self.logics[name] = logic
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(s, True)
        self._cache = slicer.vtkCacheManager()
        folder = tempfile.mkdtemp(prefix="slicer-cache-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        self._cache.SetRemoteCacheDirectory(folder)
        self._io = slicer.vtkDataIOManager()
        self._io.SetCacheManager(self._cache)
        s.SetCacheManager(self._cache)
        s.SetDataIOManager(self._io)
        interaction = slicer.vtkMRMLInteractionNode()
        interaction.SetSingletonTag("Singleton")
        s.AddNode(interaction)
        slicer.mrmlScene = s  # makes the real slicer.util array/node functions work
        self.views = {}
        self.plot_views = []

    def addSliceView(self, name="Red", orientation="Axial", size=(500, 500)):
        v = self.views[name] = SliceView(self, name, orientation, size)
        return v

    def add3DView(self, name="1", size=(500, 500)):
        v = self.views[name] = ThreeDView(self, name, size)
        return v


class _View:
    def __init__(self, app, size, dms, factoryClass):
        self.app = app
        self.renderer = vtkRenderer()
        self.rw = rw = vtkRenderWindow()
        rw.SetOffScreenRendering(1)
        rw.SetMultiSamples(0)
        rw.SetSize(*size)
        rw.AddRenderer(self.renderer)
        self.iren = vtkRenderWindowInteractor()
        self.iren.SetRenderWindow(rw)
        self.iren.Initialize()
        self.dmg = slicer.vtkMRMLDisplayableManagerGroup()
        self.dmg.SetRenderer(self.renderer)
        fac = factoryClass.GetInstance()
        fac.SetMRMLApplicationLogic(app.appLogic)
        for d in dms:
            if not fac.IsDisplayableManagerRegistered(d):
                fac.RegisterDisplayableManager(d)
        self.dmg.Initialize(fac, self.renderer)

    def render(self):
        self.rw.Render()

    def image(self):
        """RGB uint8 array, row 0 on top."""
        return window_image(self.rw)


class SliceView(_View):
    def __init__(self, app, name, orientation, size):
        super().__init__(app, size, SLICE_DMS, slicer.vtkMRMLSliceViewDisplayableManagerFactory)
        self.renderer.GetActiveCamera().ParallelProjectionOn()
        ov = self.overlay = vtkRenderer()
        ov.GetActiveCamera().ParallelProjectionOn()
        ov.SetLayer(1)
        self.rw.SetNumberOfLayers(2)
        self.rw.AddRenderer(ov)
        self.rw.SetAlphaBitPlanes(1)
        self.mapper = vtkImageMapper()
        self.mapper.SetColorWindow(255)
        self.mapper.SetColorLevel(127.5)
        self.actor = vtkActor2D()
        self.actor.SetMapper(self.mapper)
        self.actor.GetProperty().SetDisplayLocationToBackground()
        self.istyle = slicer.vtkMRMLSliceViewInteractorStyle()
        self.logic = lg = slicer.vtkMRMLSliceLogic()
        lg.SetMRMLApplicationLogic(app.appLogic)
        app.appLogic.GetSliceLogics().AddItem(lg)
        lg.AddObserver(vtk.vtkCommand.ModifiedEvent, self._conn)
        self.istyle.SetSliceLogic(lg)
        self.istyle.SetDisplayableManagers(self.dmg)
        lg.SetMRMLScene(app.scene)
        self.node = app.scene.GetSingletonNode(name, "vtkMRMLSliceNode")
        if self.node is not None:  # of a scene that was loaded
            lg.SetSliceNode(self.node)
        else:
            self.node = lg.AddSliceNode(name)
            self.node.SetOrientation(orientation)
        self.node.SetDefaultOrientation(orientation)
        self.dmg.SetMRMLDisplayableNode(self.node)
        self.iren.SetInteractorStyle(vtkInteractorStyleUser())
        self.istyle.SetInteractor(self.iren)
        lg.ResizeSliceNode(*size)

    def resize(self, width, height):
        """The size that the window has got."""
        self.rw.SetSize(width, height)
        self.logic.ResizeSliceNode(width, height)

    def _conn(self, *_):
        c = self.logic.GetImageDataConnection()
        if c is not None:
            self.mapper.SetInputConnection(c)
            if not self.renderer.HasViewProp(self.actor):
                self.renderer.AddViewProp(self.actor)
        self.actor.SetVisibility(c is not None)

    @property
    def composite(self):
        return self.logic.GetSliceCompositeNode()

    def fit(self, offset=None):
        self.logic.FitSliceToBackground()
        self.logic.SnapSliceOffsetToIJK()
        if offset is not None:
            self.logic.SetSliceOffset(offset)


class ThreeDView(_View):
    def __init__(self, app, name, size):
        super().__init__(app, size, VIEW_DMS, slicer.vtkMRMLThreeDViewDisplayableManagerFactory)
        self.renderer.SetUseDepthPeeling(True)
        self.istyle = slicer.vtkMRMLThreeDViewInteractorStyle()
        self.istyle.SetDisplayableManagers(self.dmg)
        self.istyle.SetInteractor(self.iren)
        self.iren.SetInteractorStyle(vtkInteractorStyle3D())
        self.logic = slicer.vtkMRMLViewLogic()
        self.logic.SetMRMLApplicationLogic(app.appLogic)
        app.appLogic.GetViewLogics().AddItem(self.logic)
        self.logic.SetMRMLScene(app.scene)
        self.node = self.logic.AddViewNode(name)
        self.dmg.SetMRMLDisplayableNode(self.node)

    @property
    def camera(self):
        """The node of its camera."""
        return self.dmg.GetDisplayableManagerByClassName("vtkMRMLCameraDisplayableManager").GetCameraNode()

    def resetCamera(self):
        self.renderer.ResetCamera()
        self.renderer.ResetCameraClippingRange()
