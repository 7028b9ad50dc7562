"""Structure from motion of shapes that change: a mean and few modes, found by EM.

Conventions are those of `rigid`. NumPy, in float64: no network, no gradient.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial.transform import Rotation

from pose3d_jax.rigid import FactorError, Factors, checked, mean_seen, rigid

Array = np.ndarray


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
    points = checked(points, visible)
    seen = np.ones(points.shape[:2]) if visible is None else np.asarray(visible, np.float64)
    if (seen.sum(axis=1) < 3).any():
        frame = int(np.argmax(seen.sum(axis=1) < 3))
        raise FactorError(f"frame {frame} has fewer than three visible points; leave it out")
    if not seen.any(axis=0).all():
        raise FactorError(f"no frame sees joint {int(np.argmin(seen.any(axis=0)))}; leave it out")
    points = np.where(seen[..., None] > 0, points, 0.0)
    unit = np.sqrt((seen[..., None] * (points - mean_seen(points, seen)) ** 2).sum() / seen.sum())
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


def _filled(
    points: Float[Array, "frames joints 2"], seen: Float[Array, "frames joints"]
) -> Float[Array, "frames joints 2"]:
    """Missing points as the rank 3 of all makes them, again and again; a beginning."""
    if seen.all():
        return points
    filled = np.where(seen[..., None] > 0, points, mean_seen(points, seen))
    for _ in range(30):
        centre = filled.mean(axis=1, keepdims=True)
        rows = (filled - centre).swapaxes(1, 2).reshape(-1, points.shape[1])
        u, singular, vt = np.linalg.svd(rows, full_matrices=False)
        low = ((u[:, :3] * singular[:3]) @ vt[:3]).reshape(len(points), 2, -1).swapaxes(1, 2)
        filled = np.where(seen[..., None] > 0, points, low + centre)
    return filled


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
    centre = mean_seen(points, seen)
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
