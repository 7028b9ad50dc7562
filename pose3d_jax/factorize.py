"""Classical low-rank structure from motion: the 2D points of a sequence factorised into shapes and
cameras, with nothing learnt.

Cameras are orthographic, each with a scale of its own (weak perspective); joints come out in the
axes of each frame's camera, x and y in the points' units, their depths up to one sign for the whole
sequence. NumPy, in float64: no network, no gradient.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial.transform import Rotation

from pose3d_jax import cameras as cam
from pose3d_jax.errors import UserError
from pose3d_jax.schema import Observations

Array = np.ndarray


class FactorError(UserError):
    """Points that cannot be factorised; the message says why."""


@dataclasses.dataclass(frozen=True)
class Factors:
    """A sequence as `points = scale * (rotation @ shape)[:2] + translation`."""

    shape: Float[Array, "frames joints 3"]  # in axes that all frames share
    rotation: Float[Array, "frames 3 3"]
    scale: Float[Array, "frames"]
    translation: Float[Array, "frames 2"]

    @property
    def joints(self) -> Float[Array, "frames joints 3"]:
        """In the axes of each frame's camera; the mean depth of each frame is 0."""
        turned = np.einsum("fij,fnj->fni", self.rotation, self.shape)
        joints = self.scale[:, None, None] * turned
        joints[..., :2] += self.translation[:, None]
        joints[..., 2] -= joints[..., 2].mean(axis=1, keepdims=True)
        return joints


def rigid(points: Float[Array, "frames joints 2"]) -> Factors:
    """One shape, turned: the closed form of Tomasi and Kanade.

    "Shape and Motion from Image Streams under Orthography" (IJCV 1992): rank 3 of the centred
    measurements, and the linear metric upgrade, here for cameras with scales (rows of a frame are
    at right angles and equally long: Weinshall and Tomasi, PAMI 1995). Exact for exact points of
    one shape, seen from three directions or more. The mean scale is 1.

    Raises `FactorError` for fewer than three frames or four joints, points that are not finite, and
    points of rank below 3 (a flat shape, or one direction).
    """
    points = _checked(points)
    centre = points.mean(axis=1)
    rows = (points - centre[:, None]).swapaxes(1, 2).reshape(-1, points.shape[1])
    u, singular, vt = np.linalg.svd(rows, full_matrices=False)
    if singular[2] < 1e-9 * singular[0]:
        raise FactorError(
            "the points have rank 2: the shape is flat, or seen from one direction alone"
        )
    root = np.sqrt(singular[:3])
    motion, shape = u[:, :3] * root, (root[:, None] * vt[:3]).T
    upgrade = _metric(motion.reshape(-1, 2, 3))
    axes = (motion @ upgrade).reshape(-1, 2, 3)
    rotation, scale = _nearest_cameras(axes)
    mean = scale.mean()
    shape = shape @ np.linalg.inv(upgrade).T * mean
    whole = np.broadcast_to(shape, (len(points), *shape.shape)).copy()
    return Factors(whole, rotation, scale / mean, centre)


def nonrigid(
    points: Float[Array, "frames joints 2"],
    visible: Bool[Array, "frames joints"] | None = None,
    *,
    shapes: int = 5,
    iterations: int = 100,
    tolerance: float = 0.0,
) -> Factors:
    """Shapes that differ from a mean by `shapes` modes, as likely as a normal distribution says.

    EM for probabilistic principal components, by Torresani, Hertzmann and Bregler, "Nonrigid
    Structure-from-Motion: Estimating Shape and Motion with Hierarchical Priors" (PAMI 2008),
    section 4, without its dynamics: the modes' weights are hidden and standard normal, what the
    points differ by is normal noise of one size. Begins from `rigid`; each frame's camera takes
    Gauss-Newton steps, and may change to its reflection about the image plane. Frames need no
    order. Exact for exact points of few modes, given iterations enough.

    Args:
      points: in any unit.
      visible: which there are; None: all. A frame needs three or more.
      shapes: modes beside the mean; 0 is `rigid` with noise and missing points.
      iterations: at most.
      tolerance: it ends when the noise changes by less than this share of itself.

    Raises `FactorError` as `rigid` does, for a frame with fewer than three visible points, and for
    a joint that no frame sees.
    """
    points = _checked(points, visible)
    seen = np.ones(points.shape[:2]) if visible is None else np.asarray(visible, np.float64)
    if (seen.sum(axis=1) < 3).any():
        frame = int(np.argmax(seen.sum(axis=1) < 3))
        raise FactorError(f"frame {frame} has fewer than three visible points; leave it out")
    if not seen.any(axis=0).all():
        raise FactorError(f"no frame sees joint {int(np.argmin(seen.any(axis=0)))}; leave it out")
    points = np.where(seen[..., None] > 0, points, 0.0)
    unit = np.sqrt((seen[..., None] * (points - _mean(points, seen)) ** 2).sum() / seen.sum())
    state = _begin(_filled(points, seen) / unit, seen, shapes)
    points = points / unit
    for _ in range(iterations):
        before = state.noise
        state = _step(state, points, seen)
        if abs(before - state.noise) < tolerance * before:
            break
    mean, _ = _weights(state, points, seen)
    shape = np.einsum("fk,knj->fnj", np.insert(mean, 0, 1.0, axis=1), state.basis)
    return Factors(shape * unit, state.rotation, state.scale, state.translation * unit)


def sign_of_depth(
    joints: Float[Array, "frames joints 3"],
    points: Float[Array, "frames joints 2"],
    visible: Bool[Array, "frames joints"],
    spread: Float[Array, "frames"],
) -> float:
    """1, or -1 where the joints fit better with depths of the other sign: perspective says which.

    What is nearer is larger, by a share of `spread` times its depth. A sequence of orthographic
    cameras alone has no sign.

    Args:
      joints: about a point on each camera's axis, in units of the points.
      points: of a pinhole camera, divided by `spread`.
      visible: which there are.
      spread: the unit of the points, on the plane z = 1: that of the joints is as many depths.
    """

    def error(sign: float) -> float:
        away = np.maximum(1 + sign * spread[:, None, None] * joints[..., 2:], 0.2)
        return float((visible[..., None] * (joints[..., :2] / away - points) ** 2).sum())

    return 1.0 if error(1.0) <= error(-1.0) else -1.0


def reconstruct(
    observations: Observations, *, shapes: int = 12, iterations: int = 60, root_depth: float = 4.0
) -> Float[Array, "frames views joints 3"]:
    """`nonrigid` of all frames and views `[frames, views, ...]` at once, as joints up to scale.

    In the axes of each view's camera, about metres for a person of usual size (`root_depth` away
    where the points spread as such a person's do). Each view by itself is turned to its points'
    mean and measured in their spread; which frame or view it is, is not used. Seen joints lie on
    their rays. The sign is what `sign_of_depth` says. Depths are scaled to be as large as what lies
    sideways in the images: people face every direction as often as any other, and low rank alone
    cannot tell great depths and small turns from small depths and great ones. (A camera on its side
    would break that.) A view with fewer than four points gets the mean of the others.

    Raises `FactorError` as `nonrigid` does.
    """
    confidence = np.asarray(observations.confidence)
    shape = confidence.shape
    rays = np.asarray(cam.batched(cam.normalise)(observations.cameras, observations.keypoints))
    rays = rays.reshape(-1, shape[-1], 2).astype(np.float64)
    visible = confidence.reshape(-1, shape[-1]) > 0
    enough = visible.sum(axis=1) >= 4
    chosen, seen = rays[enough], visible[enough]

    turn = _towards(_mean(chosen, seen.astype(np.float64))[:, 0])
    turned = np.einsum("fij,fnj->fni", turn, np.insert(chosen, 2, 1.0, axis=-1))
    points = turned[..., :2] / np.maximum(turned[..., 2:], 0.1)
    spread = np.sqrt((seen[..., None] * points**2).sum(axis=(1, 2)) / seen.sum(axis=1))
    points = points / spread[:, None, None]
    joints = nonrigid(points, seen, shapes=shapes, iterations=iterations).joints
    about = joints - joints.mean(axis=1, keepdims=True)
    depth = about[..., 2] * np.sqrt((about[..., 0] ** 2).mean() / (about[..., 2] ** 2).mean())
    joints[..., 2] = depth
    depth = sign_of_depth(joints, points, seen, spread) * depth
    away = np.maximum(1 + spread[:, None] * depth, 0.1)[..., None]
    plane = np.where(seen[..., None], points, joints[..., :2]) * spread[:, None, None]
    size = root_depth * 0.13 / spread[:, None, None]
    placed = size * away * np.insert(plane, 2, 1.0, axis=-1)
    back = np.einsum("fji,fnj->fni", turn, placed)
    whole = np.broadcast_to(back.mean(axis=0), (len(rays), *back.shape[1:])).copy()
    whole[enough] = back
    return whole.reshape(*shape, 3).astype(np.float32)


def _towards(point: Float[Array, "frames 2"]) -> Float[Array, "frames 3 3"]:
    """Rotations that bring the rays of points onto the optical axis, with x as level as it was."""
    ray = np.insert(point, 2, 1.0, axis=-1)
    z = ray / np.linalg.norm(ray, axis=1, keepdims=True)
    x = np.cross([0.0, 1.0, 0.0], z)
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return np.stack([x, np.cross(z, x), z], axis=1)


# ------------------------------------------------------------------------------------ closed form


def _metric(motion: Float[Array, "frames 2 3"]) -> Float[Array, "3 3"]:
    """The matrix A for which the rows of `motion @ A` are at right angles and equally long."""
    first, second = motion[:, 0], motion[:, 1]
    index = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)]

    def products(a: Array, b: Array) -> Array:
        columns = [a[:, i] * b[:, j] + (a[:, j] * b[:, i] if i != j else 0) for i, j in index]
        return np.stack(columns, axis=1)

    equations = np.concatenate(
        [products(first, first) - products(second, second), products(first, second)]
    )
    # The squares' mean is 1 where they are equal; that leaves the zero matrix out.
    size = (products(first, first) + products(second, second)).mean(axis=0)
    null = np.linalg.svd(equations, full_matrices=False)[2][-1]
    upper = null / (size @ null) * 2
    symmetric = np.zeros((3, 3))
    for (i, j), value in zip(index, upper, strict=True):
        symmetric[i, j] = symmetric[j, i] = value
    values, vectors = np.linalg.eigh(symmetric)
    # Of noisy points it may be indefinite; the nearest that is not has the others at 0.
    return vectors * np.sqrt(np.maximum(values, 1e-6 * values.max()))


def _nearest_cameras(
    axes: Float[Array, "frames 2 3"],
) -> tuple[Float[Array, "frames 3 3"], Float[Array, "frames"]]:
    """The rotations whose first two rows, times a scale, are nearest to pairs of axes."""
    u, singular, vt = np.linalg.svd(axes, full_matrices=False)
    two = u @ vt
    third = np.cross(two[:, 0], two[:, 1])
    return np.concatenate([two, third[:, None]], axis=1), singular.mean(axis=1)


def _filled(
    points: Float[Array, "frames joints 2"], seen: Float[Array, "frames joints"]
) -> Float[Array, "frames joints 2"]:
    """Missing points as the rank 3 of all makes them, again and again; a beginning."""
    if seen.all():
        return points
    filled = np.where(seen[..., None] > 0, points, _mean(points, seen))
    for _ in range(30):
        centre = filled.mean(axis=1, keepdims=True)
        rows = (filled - centre).swapaxes(1, 2).reshape(-1, points.shape[1])
        u, singular, vt = np.linalg.svd(rows, full_matrices=False)
        low = ((u[:, :3] * singular[:3]) @ vt[:3]).reshape(len(points), 2, -1).swapaxes(1, 2)
        filled = np.where(seen[..., None] > 0, points, low + centre)
    return filled


def _mean(
    points: Float[Array, "frames joints 2"], seen: Float[Array, "frames joints"]
) -> Float[Array, "frames 1 2"]:
    """Of the points that are seen, frame by frame."""
    total = (seen[..., None] * np.where(seen[..., None] > 0, points, 0.0)).sum(axis=1)
    return (total / seen.sum(axis=1)[:, None])[:, None]


def _checked(points: Array, visible: Array | None = None) -> Array:
    points = np.asarray(points, np.float64)
    frames, joints = points.shape[:2]
    if frames < 3 or joints < 4:
        raise FactorError(
            f"there are {frames} frames of {joints} joints; it takes 3 frames of 4 joints at least"
        )
    known = points if visible is None else points[np.asarray(visible) > 0]
    if not np.isfinite(known).all():
        raise FactorError("points are not finite; say in `visible` which of them are there")
    return points


# ------------------------------------------------------------------------------------ expectation


@dataclasses.dataclass(frozen=True)
class _State:
    basis: Array  # [1 + shapes, joints, 3]: the mean, and the modes
    rotation: Array  # [frames, 3, 3]
    scale: Array  # [frames]
    translation: Array  # [frames, 2]
    noise: float  # variance of a coordinate


def _begin(points: Array, seen: Array, shapes: int) -> _State:
    """The rigid shape; modes from what its cameras do not explain, as if it lay in their planes."""
    found = rigid(points)
    scale, rotation = found.scale, found.rotation
    off = points - found.joints[..., :2]
    variance = float((seen[..., None] * off**2).sum() / (2 * seen.sum()))
    flat = np.einsum("fni,fij->fnj", off / scale[:, None, None], rotation[:, :2])
    _, singular, vt = np.linalg.svd(flat.reshape(len(flat), -1), full_matrices=False)
    modes = np.zeros((shapes, vt.shape[1]))
    few = min(shapes, len(vt))
    modes[:few] = singular[:few, None] * vt[:few] / np.sqrt(len(flat))
    basis = np.concatenate([found.shape[:1], modes.reshape(shapes, *found.shape.shape[1:])])
    return _State(basis, rotation, scale, found.translation, max(variance, 1e-12))


def _weights(state: _State, points: Array, seen: Array) -> tuple[Array, Array]:
    """The modes' weights given the points: posterior mean [frames, shapes], and covariance."""
    scaled = state.scale[:, None, None] * state.rotation[:, :2]
    seen_basis = np.einsum("fij,knj->fkni", scaled, state.basis)
    off = (points - state.translation[:, None] - seen_basis[:, 0]) * seen[..., None]
    modes = seen_basis[:, 1:] * seen[:, None, :, None]
    off = off.reshape(len(off), -1)
    modes = modes.reshape(*modes.shape[:2], off.shape[1])
    precision = modes @ modes.swapaxes(1, 2) / state.noise + np.eye(modes.shape[1])
    covariance = np.linalg.inv(precision)
    mean = np.einsum("fkl,flm,fm->fk", covariance, modes, off, optimize=True) / state.noise
    return mean, covariance


def _step(state: _State, points: Array, seen: Array) -> _State:
    """One round of expectation and maximisation: basis, cameras, noise."""
    mean, covariance = _weights(state, points, seen)
    first = np.insert(mean, 0, 1.0, axis=1)
    second = first[:, :, None] * first[:, None]  # of the weights, the mean's being 1
    second[:, 1:, 1:] += covariance

    # Linear in the basis, joint by joint.
    scaled = state.scale[:, None, None] * state.rotation[:, :2]
    frames, terms = len(points), first.shape[1]
    gram = np.einsum("fki,fkj->fij", scaled, scaled)
    products = (second[:, :, None, :, None] * gram[:, None, :, None]).reshape(frames, -1)
    off = (points - state.translation[:, None]) * seen[..., None]
    back = np.einsum("fni,fij->fnj", off, scaled)
    right = np.einsum("fk,fnj->nkj", first, back, optimize=True)
    left = (seen.T @ products).reshape(-1, 3 * terms, 3 * terms)
    left = left + 1e-12 * np.trace(left, axis1=1, axis2=2)[:, None, None] * np.eye(3 * terms)
    basis = np.linalg.solve(left, right.reshape(len(right), -1, 1))
    basis = basis.reshape(-1, terms, 3).swapaxes(0, 1)

    # Moments of each frame's shape, about the means of what is seen.
    weight = seen / seen.sum(axis=1, keepdims=True)
    middle = np.einsum("fn,knj->fkj", weight, basis)
    centred = basis[None] - middle[:, :, None]
    shape = np.einsum("fk,fknj->fnj", first, centred, optimize=True)
    moments = np.einsum("fn,fni,fnj->fij", seen, shape, shape, optimize=True)
    if terms > 1:
        spread = np.einsum(
            "fn,fkni,flnj->fklij", seen, centred[:, 1:], centred[:, 1:], optimize=True
        )
        moments = moments + np.einsum("fkl,fklij->fij", covariance, spread, optimize=True)
    centre = _mean(points, seen)
    cross = np.einsum("fn,fni,fnj->fij", seen, points - centre, shape, optimize=True)
    rotation, scale = _cameras(state.rotation, state.scale, moments, cross)

    size = (seen[..., None] * (points - centre) ** 2).sum(axis=(1, 2))
    error = size + _cost(rotation, scale, moments, cross)
    noise = max(float(error.sum() / (2 * seen.sum())), 1e-14)
    whole = np.einsum("fk,fkj->fj", first, middle)
    aside = scale[:, None] * np.einsum("fij,fj->fi", rotation[:, :2], whole)
    return _State(basis, rotation, scale, centre[:, 0] - aside, noise)


def _cost(rotation: Array, scale: Array, moments: Array, cross: Array) -> Array:
    """What the expected squared error of each frame has beside the points' own size."""
    two = scale[:, None, None] * rotation[:, :2]
    square = np.einsum("fai,fij,faj->f", two, moments, two, optimize=True)
    return square - 2 * np.einsum("fai,fai->f", cross, two)


def _cameras(rotation: Array, scale: Array, moments: Array, cross: Array) -> tuple[Array, Array]:
    """Cameras that fit better: Gauss-Newton from what they are, and from their reflections.

    A reflection about the image plane changes the third row and column of a camera: what a flat
    shape cannot be told from. It is taken where it fits better.
    """
    best, best_scale = rotation, scale
    lowest = _cost(rotation, scale, moments, cross)
    mirror = np.diag([1.0, 1.0, -1.0])
    for start in (rotation, mirror @ rotation @ _flat(moments)):
        found, size = start, scale
        for _ in range(2):
            found = _gauss_newton(found, size, moments, cross)
            two = found[:, :2]
            square = np.einsum("fai,fij,faj->f", two, moments, two, optimize=True)
            along = np.einsum("fai,fai->f", cross, two)
            size = np.maximum(along, 1e-6 * square) / square
        cost = _cost(found, size, moments, cross)
        better = cost < lowest
        best = np.where(better[:, None, None], found, best)
        best_scale = np.where(better, size, best_scale)
        lowest = np.where(better, cost, lowest)
    return best, best_scale


def _flat(moments: Array) -> Array:
    """Reflections of shapes about the planes that they are nearest to."""
    normal = np.linalg.eigh(moments)[1][..., 0]
    return np.eye(3) - 2 * normal[:, :, None] * normal[:, None]


def _gauss_newton(rotation: Array, scale: Array, moments: Array, cross: Array) -> Array:
    """One step, about the camera's axes, of the expected squared error."""
    own = np.einsum("fij,fjk,flk->fil", rotation, moments, rotation, optimize=True)
    wanted = np.einsum("fij,fkj->fik", cross, rotation) - scale[:, None, None] * own[:, :2]
    x, y, z = range(3)
    hessian = np.zeros_like(own)
    hessian[:, x, x] = hessian[:, y, y] = own[:, z, z]
    hessian[:, z, z] = own[:, x, x] + own[:, y, y]
    hessian[:, x, z] = hessian[:, z, x] = -own[:, x, z]
    hessian[:, y, z] = hessian[:, z, y] = -own[:, y, z]
    gradient = np.stack(
        [-wanted[:, y, z], wanted[:, x, z], wanted[:, y, x] - wanted[:, x, y]], axis=1
    )
    damped = hessian + 1e-6 * np.trace(hessian, axis1=1, axis2=2)[:, None, None] * np.eye(3)
    turn = np.linalg.solve(damped, gradient[..., None])[..., 0] / scale[:, None]
    angle = np.linalg.norm(turn, axis=1)
    turn = turn * np.minimum(1.0, 0.5 / np.maximum(angle, 1e-12))[:, None]
    return Rotation.from_rotvec(turn).as_matrix() @ rotation
