"""What a render window shows, as an array."""

import vtk
from vtkmodules.util.numpy_support import vtk_to_numpy


def window_image(window):
    """RGB uint8 array (rows, columns, 3) of a vtkRenderWindow, rendered first; row 0 on top."""
    window.Render()
    grabber = vtk.vtkWindowToImageFilter()
    grabber.SetInput(window)
    grabber.ReadFrontBufferOff()
    grabber.Update()
    picture = grabber.GetOutput()
    width, height, _ = picture.GetDimensions()
    return vtk_to_numpy(picture.GetPointData().GetScalars()).reshape(height, width, -1)[::-1].copy()
