"""The rows of whole clips: pieces and their seams, gaps, degenerate clips, gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from pose3d_jax import noise, references, triangulate
from pose3d_jax.pieces import firsts, join
from pose3d_jax.references import PER_CLIP, PER_FRAME, ROWS, RowError, reconstruct, reconstruct_all
from pose3d_jax.schema import Observations
from pose3d_jax.skeleton import Skeleton
from tests import scenes
from tests.test_trajectory import JOINTS, VIEWS, distance, figure, rig

SKELETON = Skeleton("figure", ("hip", "neck", "left_hand", "right_hand"), (-1, 0, 1, 1), root=0)
DICE = noise.Noise(sigma_px=2.0, outliers=0.05, missing=0.2, correlation=0.0)
SHORT, SHARED = 64, 16  # frames of a piece here, and of what two pieces share
film = jax.jit(scenes.film)


def clip(frames, dice=None, seed=0, camera=None):
    """Observations `[frames, VIEWS, ...]` as NumPy arrays, and the true joints."""
    joints = figure(304, seed)[:frames]
    pad = np.repeat(joints[:1], 304 - frames, axis=0)  # one shape, one compilation
    exact = film(np.concatenate([joints, pad]).astype(np.float32), camera or rig())
    observations = jax.tree.map(lambda x: np.asarray(x)[:frames], exact)
    if dice is not None:
        observations = noise.corrupt(
            observations, dice, clip=f"{seed}", fps=30.0, mirrored=SKELETON.mirrored
        )
    return observations, joints


@pytest.fixture(autouse=True)
def short_pieces(request, monkeypatch):
    """All rows are compiled but once, for pieces that are quicker to solve for."""
    if "real_pieces" not in request.keywords:
        monkeypatch.setattr(references, "PIECE", SHORT)
        monkeypatch.setattr(references, "OVERLAP", SHARED)


def short(function):
    """What a module's fixture needs of `short_pieces`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(references, "PIECE", SHORT)
        patch.setattr(references, "OVERLAP", SHARED)
        return function()


# ------------------------------------------------------------------------------------- refusals


def test_an_unknown_row_is_named():
    with pytest.raises(RowError, match="no row is named 'best'; there are dlt, weighted"):
        reconstruct(clip(4)[0], SKELETON, ("dlt", "best"))


def test_a_clip_without_frames_is_named():
    with pytest.raises(RowError, match="clip 1 has no frames"):
        list(reconstruct_all([clip(4)[0], clip(0)[0]], SKELETON))


def test_one_view_is_too_few():
    one = jax.tree.map(lambda x: x[:, :1], clip(4)[0])
    with pytest.raises(RowError, match="clip 0 has 1 view; geometry needs two"):
        reconstruct(one, SKELETON)


def test_what_does_not_fit_is_named():
    whole = clip(4)[0]
    fewer = jax.tree.map(lambda x: x[:, :2], whole)
    with pytest.raises(RowError, match="clip 1 has 2 views, but clip 0 3"):
        list(reconstruct_all([whole, fewer], SKELETON))
    with pytest.raises(RowError, match="clip 0 has 4 keypoints, but h36m17 17"):
        reconstruct(whole, scenes.H36M)
    with pytest.raises(RowError, match="clip 0 holds NaN or infinity; give what is missing"):
        reconstruct(whole.replace(keypoints=whole.keypoints * jnp.nan), SKELETON)
    assert list(reconstruct_all([], SKELETON)) == []


# ------------------------------------------------------------------------------------- pieces


@pytest.mark.parametrize("frames", [1, 2, 31, 256, 257, 300])
def test_any_length_is_covered_once(frames):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(references, "PIECE", 256)
        patch.setattr(references, "OVERLAP", 32)
        observations, joints = clip(frames)
        found = reconstruct(observations, SKELETON, ("dlt",))
    assert set(found) == {"dlt"}
    estimate = found["dlt"]
    assert estimate.covariance is None
    assert estimate.joints.shape == (frames, JOINTS, 3)
    assert estimate.found.shape == (frames, JOINTS)
    assert np.all(estimate.found == 1)
    assert distance(estimate.joints, joints).max() < 1e-4


@pytest.mark.parametrize("frames", [1, 63, 64, 65, 112, 113, 160, 161, 999, 1000])
def test_seams_lie_where_both_pieces_know(frames):
    """Frames that know whence they come: each is there once, and from within its piece."""
    starts = firsts(frames, SHORT, SHARED)
    parts = []
    for first in starts:
        frame = first + np.arange(min(SHORT, frames))
        assert frame[-1] < frames
        away = np.minimum(
            np.where(first > 0, frame - first, SHORT),
            np.where(frame[-1] + 1 < frames, frame[-1] - frame, SHORT),
        )
        parts.append({"row": references.Estimate(frame, away, None)})
    joined = join(parts, frames, SHORT, SHARED)["row"]
    assert np.array_equal(joined.joints, np.arange(frames))
    assert joined.found.min() >= SHARED // 2 - 1


@functools.cache
def long_clip():
    return clip(150, DICE, seed=1)


@pytest.fixture(scope="module")
def long_rows():
    return short(lambda: reconstruct(long_clip()[0], SKELETON))


@pytest.mark.slow
def test_a_long_clip_is_that_of_its_pieces(long_rows):
    observations, _ = long_clip()
    assert firsts(150, SHORT, SHARED) == [0, 48, 86]
    for first, (start, stop) in zip([0, 48, 86], [(0, 56), (56, 99), (99, 150)], strict=True):
        cut = jax.tree.map(lambda x, first=first: x[first : first + SHORT], observations)
        piece = reconstruct(cut, SKELETON)
        leaves = zip(jax.tree.leaves(long_rows), jax.tree.leaves(piece), strict=True)
        for found, expected in leaves:
            assert np.array_equal(found[start:stop], expected[start - first : stop - first])


def test_seams_leave_no_jump(long_rows):
    """At the seams the two solutions are as near as their error bars allow: no jump, no step."""
    _, joints = long_clip()
    error = long_rows["smooth_bones"].joints - joints
    jumps = np.linalg.norm(np.diff(error, axis=0), axis=-1).mean(axis=-1)
    assert jumps[[55, 98]].max() < 0.01


def test_every_row_is_everywhere_and_finite(long_rows):
    observations, _ = long_clip()
    assert set(long_rows) == set(ROWS)
    for row, estimate in long_rows.items():
        assert isinstance(estimate.joints, np.ndarray)
        assert estimate.joints.shape == (150, JOINTS, 3)
        assert np.isfinite(estimate.joints).all()
        assert set(np.unique(estimate.found)) <= {0.0, 1.0}
        if row in ("refined", *PER_CLIP):
            assert_positive(estimate.covariance)
        else:
            assert estimate.covariance is None
    views = (observations.confidence > 0).sum(axis=1)
    for row in ("dlt", "weighted"):
        assert np.array_equal(long_rows[row].found, views >= 2)
    assert 0 < np.mean(long_rows["robust"].found) < 1
    for row in ("refined", *PER_CLIP):
        assert np.array_equal(long_rows[row].found, long_rows["robust"].found)
    # What is not found is between its neighbours.
    for row in PER_FRAME:
        found = long_rows[row].found > 0
        points, time = long_rows[row].joints, np.arange(150)
        for j in range(JOINTS):
            inner = np.flatnonzero(found[:56, j])
            between = time[inner[0] : inner[-1]]
            for axis in range(3):
                line = np.interp(between, inner, points[inner, j, axis])
                assert_allclose(points[between, j, axis], line, atol=1e-5)


def assert_positive(covariance, largest=3 * triangulate.ROOM):
    covariance = np.asarray(covariance, np.float64)
    assert np.isfinite(covariance).all()
    size = np.abs(covariance).max(axis=(-2, -1), keepdims=True)
    assert np.all(np.abs(covariance - covariance.swapaxes(-1, -2)) <= 1e-4 * size)
    spread = np.linalg.eigvalsh(covariance)
    assert np.all(spread[..., 0] > 0)
    assert np.sqrt(spread[..., 2].max()) < largest


def test_priors_halve_the_error(long_rows):
    _, joints = long_clip()
    error = {row: distance(long_rows[row].joints, joints).mean() for row in ROWS}
    assert error["smooth_bones"] < error["robust"] / 2
    assert error["smooth_bones"] < min(error["smooth"], error["bones"]) < error["refined"]
    assert max(error["robust"], error["refined"]) < 0.7 * error["dlt"]


def test_error_bars_are_honest(long_rows):
    """Squared errors in units of their covariances: 3 of a Gaussian, and outliers leave more."""
    _, joints = long_clip()
    for row in ("smooth", "smooth_bones"):
        error = long_rows[row].joints - joints
        away = np.linalg.solve(long_rows[row].covariance.astype(float), error[..., None])[..., 0]
        squared = np.sum(error * away, axis=-1)
        assert 1.0 < np.median(squared) < 5.0  # 2.37


def test_clips_of_different_lengths_are_as_each_alone(long_rows):
    lengths = (37, 150, 64, 33)  # padded alike, alone and together; odd numbers of frames too
    clips = [clip(n, DICE, seed=n) if n != 150 else long_clip() for n in lengths]
    together = list(reconstruct_all([observations for observations, _ in clips], SKELETON))
    for (observations, joints), found, n in zip(clips, together, lengths, strict=True):
        alone = long_rows if n == 150 else reconstruct(observations, SKELETON)
        for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(alone), strict=True):
            assert np.array_equal(x, y)
        assert found["smooth_bones"].joints.shape == joints.shape
        assert distance(found["smooth_bones"].joints, joints).mean() < 0.03


# ------------------------------------------------------------------------------------- degeneracy


def blind(observations, sees):
    """Without what `sees` (which broadcasts) is 0 for."""
    sees = np.broadcast_to(np.asarray(sees, np.float32), observations.confidence.shape)
    return Observations(
        np.where(sees[..., None] > 0, observations.keypoints, 0).astype(np.float32),
        observations.confidence * sees,
        observations.cameras,
    )


def degenerate(case):
    """Observations `[41, VIEWS, ...]` that can hardly tell where the joints are."""
    if case == "coincident":
        return clip(41, camera=jax.tree.map(lambda x: x[[0] * VIEWS], rig()))[0]
    observations, joints = clip(41)
    if case == "behind":
        centres = -np.einsum("vij,vi->vj", rig().rotation, rig().translation)
        shift = 1.3 * (centres[0] - joints.mean(axis=(0, 1)))
        moved = np.concatenate([joints + shift] + [joints[:1]] * (304 - 41))
        return jax.tree.map(lambda x: np.asarray(x)[:41], film(moved.astype(np.float32), rig()))
    sees = {
        "nothing": 0,
        "one view": [[1], [0], [0]],
        "once": (np.arange(41) == 7)[:, None, None],
        "one joint": [1, 0, 0, 0],
        "far apart": np.isin(np.arange(41), (0, 40))[:, None, None],
        "views in turn": np.arange(41)[:, None, None] % VIEWS == np.arange(VIEWS)[:, None],
    }[case]
    return blind(observations, sees)


CASES = (
    "nothing", "one view", "once", "one joint", "far apart", "views in turn", "coincident", "behind"
)  # fmt: skip


@pytest.fixture(scope="module")
def hard():
    """Every case's rows."""
    clips = [degenerate(case) for case in CASES]
    found = short(lambda: list(reconstruct_all(clips, SKELETON)))
    return dict(zip(CASES, found, strict=True))


@pytest.mark.parametrize("case", CASES)
def test_degenerate_clips_are_finite(hard, case):
    for row, estimate in hard[case].items():
        assert np.isfinite(estimate.joints).all()
        assert np.abs(estimate.joints).max() < 100
        if row in ("refined", *PER_CLIP):
            assert_positive(estimate.covariance)


def largest(estimate):
    """The largest standard deviation of each joint, metres."""
    return np.sqrt(np.linalg.eigvalsh(estimate.covariance.astype(float))[..., 2])


@pytest.mark.parametrize("row", ["refined", *PER_CLIP])
@pytest.mark.parametrize("case", ["nothing", "one view", "coincident", "views in turn"])
def test_what_is_not_known_is_in_the_room(hard, case, row):
    assert np.all(hard[case][row].found == 0)
    assert_allclose(largest(hard[case][row]), triangulate.ROOM, rtol=1e-4)


@pytest.mark.parametrize("row", ["refined", *PER_CLIP])
def test_a_joint_that_is_never_seen_is_in_the_room(hard, row):
    spread = largest(hard["one joint"][row])
    assert_allclose(spread[:, 1:], triangulate.ROOM, rtol=1e-4)
    assert spread[:, 0].max() < 0.01


def test_nothing_seen_is_at_the_origin(hard):
    for estimate in hard["nothing"].values():
        assert_allclose(estimate.joints, 0, atol=1e-3)


def test_seen_once_is_known_only_then(hard):
    known = largest(hard["once"]["smooth_bones"])
    assert known[7].max() < 0.01
    assert known[[0, 40]].min() > 10 * known[7].max()


# ------------------------------------------------------------------------------------- gradients


@jax.jit
def pull(observations, inside):
    def total(keypoints):
        seen = observations.replace(keypoints=keypoints)
        found = references.estimates(seen, inside, SKELETON, ("smooth_bones",))["smooth_bones"]
        return jnp.sum(found.joints**2), found.joints

    return jax.grad(total, has_aux=True)(observations.keypoints)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["noisy", "nothing", "one view", "coincident", "far apart"])
def test_gradient_is_finite(case):
    observations = clip(32, DICE)[0] if case == "noisy" else degenerate(case)
    observations = jax.tree.map(lambda x: jnp.asarray(x[:32], jnp.float32), observations)
    inside = jnp.asarray(np.arange(32) < 31, jnp.float32)
    observations = observations.replace(confidence=observations.confidence * inside[:, None, None])
    gradient, joints = pull(observations, inside)
    assert np.isfinite(joints).all()
    assert np.isfinite(gradient).all()
    if case == "noisy":
        assert np.abs(gradient).max() > 1e-4
    assert np.all(np.where(observations.confidence[..., None] > 0, 0, gradient) == 0)
