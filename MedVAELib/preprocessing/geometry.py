"""Between a scan's own grid and an axis-aligned model grid, in physical space: there, and exactly back.

World coordinates are RAS mm here; SimpleITK's own are LPS mm. Arrays are zyx. A model grid's array axes run
z inferior → superior, y posterior → anterior, x left → right, so index 0 is the most inferior, posterior, left voxel.

Every resampling is linear, extended by half a voxel beyond the outermost voxel centres as in SimpleITK, and invariant
to flips and permutations of the scan's storage axes. Where the scan's axes are parallel to the grid's, linear
interpolation is a product of one small matrix per axis, faster than gathering eight neighbours for every voxel.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from numpy.typing import ArrayLike, NDArray

_LPS_RAS = np.array([-1.0, -1.0, 1.0])
_EDGE = 1e-5  # in voxels: a point this close to the edge of the field of view counts as inside
_PARALLEL = 1e-3  # in voxels: drift along a whole axis below which axes count as parallel
_DECIMALS = 9  # of mm and of direction cosines: far below what a voxel can show, far above rounding
_LETTERS = ("LR", "PA", "IS")
_SAME_GRID_VOXELS = 0.5
SMOOTHING = 0.35
"""Gaussian sigma before downsampling, as a fraction of sqrt(grid² - scan²) of the spacings."""


def ras_grid(center_ras_mm: Sequence[float], size_zyx: Sequence[int],
             spacing_mm: float | Sequence[float]) -> sitk.Image:
    """An empty (uint8, all 0) image whose axes are the patient's: x left → right, y posterior → anterior, z up.

    center_ras_mm: middle of the field of view. spacing_mm: one number, or one per axis in zyx order.
    """
    size_xyz = np.array(size_zyx)[::-1]
    spacing_xyz = np.broadcast_to(np.asarray(spacing_mm, float), 3)[::-1]
    grid = sitk.Image([int(n) for n in size_xyz], sitk.sitkUInt8)
    grid.SetSpacing(spacing_xyz.tolist())
    grid.SetDirection(np.diag(_LPS_RAS).ravel().tolist())
    first_ras = np.asarray(center_ras_mm, float) - spacing_xyz * (size_xyz - 1) / 2
    grid.SetOrigin((first_ras * _LPS_RAS).tolist())
    return grid


def like(values_zyx: NDArray, image: sitk.Image) -> sitk.Image:
    """An array, in its own type, as an image with the spacing, origin and direction of another."""
    made = sitk.GetImageFromArray(np.ascontiguousarray(values_zyx))
    made.CopyInformation(image)
    return made


def rounded_geometry(image: sitk.Image) -> sitk.Image:
    """A copy whose spacing, origin and direction are rounded to nine decimals.

    Programs that keep a scan's place as one matrix give spacing and directions back with other last bits; what is
    computed on the rounded place is the same for all of them.
    """
    copy = sitk.Image(image)
    copy.SetSpacing([round(value, _DECIMALS) for value in image.GetSpacing()])
    copy.SetOrigin([round(value, _DECIMALS) + 0.0 for value in image.GetOrigin()])  # + 0.0: no negative zero
    copy.SetDirection([round(value, _DECIMALS) + 0.0 for value in image.GetDirection()])
    return copy


def same_grid(first: sitk.Image, second: sitk.Image) -> bool:
    """Whether both have the same size and no corner lies further apart than half a voxel."""
    if first.GetSize() != second.GetSize():
        return False
    corners = itertools.product(*((0.0, n - 1.0) for n in first.GetSize()))
    apart = [np.subtract(first.TransformContinuousIndexToPhysicalPoint(corner),
                         second.TransformContinuousIndexToPhysicalPoint(corner)) for corner in corners]
    return float(np.linalg.norm(apart, axis=1).max()) < _SAME_GRID_VOXELS * min(second.GetSpacing())


def inverse(transform: sitk.AffineTransform) -> sitk.AffineTransform:
    """The way back. SimpleITK's own is wrong, with a word on standard error alone, where an entry of the matrix lies
    near 1e-300: its decomposition does not converge."""
    matrix = np.linalg.inv(np.reshape(transform.GetMatrix(), (3, 3)))
    fixed = np.array(transform.GetCenter())
    return sitk.AffineTransform(matrix.ravel().tolist(),
                                (fixed - matrix @ (fixed + transform.GetTranslation())).tolist())


def ras_affine_mm(image: sitk.Image) -> NDArray[np.float64]:
    """4x4 matrix from voxel index (i, j, k) to RAS mm."""
    affine = np.eye(4)
    affine[:3, :3] = _LPS_RAS[:, None] * _index_to_lps(image)
    affine[:3, 3] = _LPS_RAS * np.array(image.GetOrigin())
    return affine


def ijk_to_ras_mm(image: sitk.Image, ijk: ArrayLike) -> NDArray[np.float64]:
    """RAS mm of voxel indices, (..., 3) in i, j, k order (an array's zyx indices reversed); they may be fractional."""
    affine = ras_affine_mm(image)
    return np.asarray(ijk, float) @ affine[:3, :3].T + affine[:3, 3]


def field_of_view_ras_mm(image: sitk.Image) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest and highest RAS mm, (3,) each, of the centres of a 3D image's voxels."""
    corners = ijk_to_ras_mm(image, np.array(list(np.ndindex(2, 2, 2))) * (np.array(image.GetSize()) - 1))
    return corners.min(0), corners.max(0)


def ras_mm_to_ijk(image: sitk.Image, ras_mm: ArrayLike) -> NDArray[np.float64]:
    """Fractional voxel indices, (..., 3) in i, j, k order, of points in RAS mm."""
    affine = ras_affine_mm(image)
    return (np.asarray(ras_mm, float) - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T


def physical_points(image: sitk.Image) -> NDArray[np.float32]:
    """RAS mm of every voxel centre, (D, H, W, 3)."""
    affine = ras_affine_mm(image)
    nx, ny, nz = image.GetSize()
    points = np.empty((nz, ny, nx, 3), np.float32)
    for axis in range(3):
        along = [affine[axis, i] * np.arange(n) for i, n in enumerate((nx, ny, nz))]
        points[..., axis] = along[2][:, None, None] + along[1][:, None] + along[0] + affine[axis, 3]
    return points


def orientation_code(image: sitk.Image) -> str:
    """Where the index axes i, j, k point, as in "RAS" or "LPS+oblique 12°" (the largest angle off a patient axis)."""
    axes = ras_affine_mm(image)[:3, :3]
    axes = axes / np.linalg.norm(axes, axis=0)
    nearest = max(itertools.permutations(range(3)), key=lambda p: sum(abs(axes[p[i], i]) for i in range(3)))
    code = "".join(_LETTERS[world][int(axes[world, i] > 0)] for i, world in enumerate(nearest))
    cosine = min(abs(axes[world, i]) for i, world in enumerate(nearest))
    angle = float(np.degrees(np.arccos(min(cosine, 1.0))))
    return code if angle < 0.5 else f"{code}+oblique {angle:.0f}°"


def to_grid(image: sitk.Image, grid: sitk.Image, outside: float = 0.0) -> sitk.Image:
    """The image on the grid, float32; `outside` where the image does not reach.

    Along each of the image's own axes that is finer than the grid it is first smoothed with a Gaussian of
    sigma = 0.35 sqrt(grid² - image²) (spacings in mm), so that nothing aliases; coarser axes are only interpolated.
    """
    axes = zip(image.GetSize(), image.GetSpacing(), _sigmas_mm(image, grid), strict=True)
    smoothing = [_gaussian_matrix(n, sigma / spacing) if sigma > 0 else None for n, spacing, sigma in axes]
    values = sitk.GetArrayViewFromImage(image)[None]
    return like(_resample(values, image, grid, [outside], smoothing)[0], grid)


def from_grid(image_on_grid: sitk.Image, scan_image: sitk.Image, outside: float = 0.0) -> sitk.Image:
    """An image on the model grid brought back: float32, with exactly the scan's size, spacing, origin, direction."""
    values = sitk.GetArrayViewFromImage(image_on_grid)[None]
    return like(_resample(values, image_on_grid, scan_image, [outside])[0], scan_image)


def channels_from_grid(channels: NDArray[np.float32], grid: sitk.Image, scan_image: sitk.Image,
                       outside: Sequence[float]) -> NDArray[np.float32]:
    """Several maps at once from the grid, (K, D, H, W), to the scan's voxels, (K, z, y, x) in its storage order.

    outside: one value per channel for voxels of the scan that the grid does not cover.
    """
    if channels.ndim != 4 or channels.shape[1:] != grid.GetSize()[::-1]:
        raise ValueError(f"channels have shape {channels.shape}, the grid (K, {grid.GetSize()[::-1]})")
    return _resample(channels, grid, scan_image, outside)


# --- One resampler for both directions -------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Mapping:
    """source index = matrix @ target index + offset, both in i, j, k order."""

    matrix: NDArray[np.float64]
    offset: NDArray[np.float64]

    @classmethod
    def between(cls, source: sitk.Image, target: sitk.Image) -> _Mapping:
        to_source = np.linalg.inv(_index_to_lps(source))
        return cls(to_source @ _index_to_lps(target),
                   to_source @ (np.array(target.GetOrigin()) - np.array(source.GetOrigin())))

    def parallel_axes(self, target_size: Sequence[int]) -> tuple[int, int, int] | None:
        """For each source axis the target axis that runs along it; None if the grids are oblique to each other."""
        drift = np.abs(self.matrix) * (np.array(target_size) - 1).clip(1)
        axes = np.abs(self.matrix).argmax(axis=1)
        off = drift.copy()
        off[np.arange(3), axes] = 0
        if sorted(axes) != [0, 1, 2] or off.max() > _PARALLEL:
            return None
        return int(axes[0]), int(axes[1]), int(axes[2])


def _index_to_lps(image: sitk.Image) -> NDArray[np.float64]:
    return np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())


def _resample(values_kzyx: NDArray, source: sitk.Image, target: sitk.Image, outside: Sequence[float],
              smoothing: Sequence[NDArray[np.float32] | None] = (None, None, None)) -> NDArray[np.float32]:
    """Linear resampling of (K, D, H, W) on `source` to (K, z, y, x) on `target`; smoothing matrices in xyz order."""
    result = np.empty((len(values_kzyx), *target.GetSize()[::-1]), np.float32)
    box = _covered_box(source, target)
    if box != tuple(slice(0, n) for n in target.GetSize()):
        for value, out in zip(outside, result, strict=True):
            out.fill(value)
    if any(part.stop <= part.start for part in box):
        return result
    part = target[box]  # most of a scan may lie outside the grid: only what it covers is computed
    mapping = _Mapping.between(source, part)
    axes = mapping.parallel_axes(part.GetSize())
    if axes is None:
        blocks = _resample_oblique(values_kzyx, source, part, mapping, outside, smoothing)
    else:
        blocks = _resample_parallel(values_kzyx, source.GetSize(), part.GetSize(), mapping, axes, outside, smoothing)
    for out, block in zip(result, blocks, strict=True):
        out[box[::-1]] = block
    return result


def _covered_box(source: sitk.Image, target: sitk.Image) -> tuple[slice, slice, slice]:
    """The target's index range (i, j, k) that holds every voxel within half a voxel of the source."""
    mapping = _Mapping.between(target, source)
    edges = [(-0.5 - _EDGE, n - 0.5 + _EDGE) for n in source.GetSize()]
    corners = np.array(list(itertools.product(*edges))) @ mapping.matrix.T + mapping.offset
    size = np.array(target.GetSize())
    start = np.ceil(corners.min(axis=0) - _EDGE).astype(int).clip(0, size)
    stop = (np.floor(corners.max(axis=0) + _EDGE).astype(int) + 1).clip(0, size)
    return slice(int(start[0]), int(stop[0])), slice(int(start[1]), int(stop[1])), slice(int(start[2]), int(stop[2]))


def _resample_parallel(values_kzyx: NDArray, source_xyz: Sequence[int], target_xyz: Sequence[int], mapping: _Mapping,
                       axes: tuple[int, int, int], outside: Sequence[float],
                       smoothing: Sequence[NDArray[np.float32] | None]) -> Iterator[NDArray[np.float32]]:
    """One matrix per axis. A block is valid until the next one is asked for.

    Rows of points outside are 0, so the value outside is subtracted before and added after.
    """
    operators = []  # in xyz order of the source
    for axis, (n, smooth) in enumerate(zip(source_xyz, smoothing, strict=True)):
        positions = mapping.matrix[axis, axes[axis]] * np.arange(target_xyz[axes[axis]]) + mapping.offset[axis]
        linear = _linear_matrix(positions, n)
        operators.append(linear if smooth is None else linear @ smooth)
    # which source array axis becomes each target array axis
    order = tuple(2 - axes.index(2 - axis) for axis in range(3))
    turned = [operators[2 - axis] for axis in order]
    block = np.empty(target_xyz[::-1], np.float32)
    for channel, value in zip(values_kzyx, outside, strict=True):
        volume = np.subtract(channel, np.float32(value), dtype=np.float32) if value else np.asarray(channel, np.float32)
        if block.size > volume.size:  # turn the axes where the volume is small
            volume = np.ascontiguousarray(volume.transpose(order))
            volume = _apply(turned[1], _apply(turned[0], volume, 0), 1)
            np.matmul(volume.reshape(-1, volume.shape[2]), turned[2].T, out=block.reshape(-1, block.shape[2]))
        else:
            for axis in range(3):
                volume = _apply(operators[2 - axis], volume, axis)
            block[:] = volume.transpose(order)
        if value:
            block += np.float32(value)
        yield block


def _apply(matrix: NDArray[np.float32], volume: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """The matrix along one axis of a contiguous (D, H, W)."""
    if axis == 0:
        return (matrix @ volume.reshape(len(volume), -1)).reshape(-1, *volume.shape[1:])
    if axis == 1:
        return np.matmul(matrix, volume)
    return (volume.reshape(-1, volume.shape[2]) @ matrix.T).reshape(*volume.shape[:2], -1)


def _resample_oblique(values_kzyx: NDArray, source: sitk.Image, target: sitk.Image, mapping: _Mapping,
                      outside: Sequence[float],
                      smoothing: Sequence[NDArray[np.float32] | None]) -> Iterator[NDArray[np.float32]]:
    """SimpleITK's interpolation channel by channel, with the edge of the field of view decided here.

    ITK counts one edge of an image as inside and the opposite one not, so a flipped scan would differ there: it gets
    the scan with its edge voxels repeated, and what lies beyond half a voxel is overwritten.
    """
    beyond = _outside_mask(mapping, source.GetSize(), target.GetSize())
    padded_origin = source.TransformContinuousIndexToPhysicalPoint([-1.0, -1.0, -1.0])
    for channel, value in zip(values_kzyx, outside, strict=True):
        volume = np.asarray(channel, np.float32)
        for axis in range(3):
            if (matrix := smoothing[2 - axis]) is not None:
                volume = _apply(matrix, volume, axis)
        padded = sitk.GetImageFromArray(np.pad(volume, 1, mode="edge"))
        padded.SetSpacing(source.GetSpacing())
        padded.SetDirection(source.GetDirection())
        padded.SetOrigin(padded_origin)
        block = sitk.GetArrayFromImage(
            sitk.Resample(padded, target, sitk.Transform(), sitk.sitkLinear, float(value), sitk.sitkFloat32))
        if beyond is not None:
            block[beyond] = value
        yield block


def _outside_mask(mapping: _Mapping, source_xyz: Sequence[int], target_xyz: Sequence[int]) -> NDArray[np.bool_] | None:
    """(z, y, x) of the target's voxels more than half a voxel off the source; None if there are none."""
    highest = np.array(source_xyz) - 0.5 + _EDGE
    corners = np.array(list(itertools.product(*((0, n - 1) for n in target_xyz)))) @ mapping.matrix.T + mapping.offset
    if np.all((corners >= -0.5 - _EDGE) & (corners <= highest)):
        return None
    nx, ny, nz = target_xyz
    mask = np.zeros((nz, ny, nx), bool)
    for axis in range(3):
        along = [mapping.matrix[axis, i] * np.arange(n) for i, n in enumerate(target_xyz)]
        plane = along[1][:, None] + along[0] + mapping.offset[axis]
        for z in range(nz):  # plane by plane: a mask of 256³ must not need coordinates of 256³
            index = plane + along[2][z]
            mask[z] |= (index < -0.5 - _EDGE) | (index > highest[axis])
    return mask


def _linear_matrix(positions: NDArray[np.float64], n: int) -> NDArray[np.float32]:
    """(len(positions), n) weights of linear interpolation at fractional indices; rows of 0 outside."""
    matrix = np.zeros((len(positions), n))
    inside = np.flatnonzero((positions >= -0.5 - _EDGE) & (positions <= n - 0.5 + _EDGE))
    clamped = positions[inside].clip(0, n - 1)
    lower = np.minimum(np.floor(clamped).astype(int), max(n - 2, 0))
    matrix[inside, lower] = 1 - (clamped - lower)
    if n > 1:
        matrix[inside, lower + 1] = clamped - lower
    return matrix.astype(np.float32)


def _gaussian_matrix(n: int, sigma_voxels: float) -> NDArray[np.float32]:
    """(n, n) Gaussian smoothing whose weights sum to 1 in every row, at the edges as well."""
    distance = np.subtract.outer(np.arange(n), np.arange(n)) / sigma_voxels
    weights = np.where(np.abs(distance) <= 4, np.exp(-(distance**2) / 2), 0)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _sigmas_mm(image: sitk.Image, grid: sitk.Image) -> NDArray[np.float64]:
    """Sigma per axis of the image, 0 where it is coarser than the grid is along that axis."""
    cosines = np.array(grid.GetDirection()).reshape(3, 3).T @ np.array(image.GetDirection()).reshape(3, 3)
    grid_mm = np.sqrt((cosines**2 * np.array(grid.GetSpacing())[:, None] ** 2).sum(axis=0))
    return SMOOTHING * np.sqrt((grid_mm**2 - np.array(image.GetSpacing()) ** 2).clip(0))
