"""The benchmark's noise: its dice, its amounts, and the digests that every number rests on."""

import dataclasses
import functools
import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import spearmanr

from pose3d_jax import noise, skeleton
from pose3d_jax.cameras import Camera
from pose3d_jax.errors import UserError
from pose3d_jax.noise import PRESETS, Noise
from pose3d_jax.schema import Observations

H36M = skeleton.get("h36m17")
MIRRORED = np.array(H36M.mirrored)
FRAMES, VIEWS, JOINTS = 12_000, 4, H36M.size  # long enough for the shares
NOISY = tuple(name for name in PRESETS if name != "clean")


def standing(frames=FRAMES, views=VIEWS):
    """Observations of someone who stands still, in whole pixels, each joint at a place of its own.

    Read-only, so that corrupting them cannot change them.
    """
    place = np.arange(views * JOINTS).reshape(views, JOINTS)
    still = np.stack([100 + 7 * place, 900 - 5 * place], axis=-1)
    keypoints = np.broadcast_to(still, (frames, *still.shape)).astype(np.float32)
    confidence = np.ones(keypoints.shape[:-1], np.float32)
    axes = {
        "rotation": (3, 3), "translation": (3,), "focal": (2,), "center": (2,),
        "distortion": (5,), "tangential": (), "size": (2,),
    }  # fmt: skip
    cameras = Camera(**{k: np.ones((frames, views, *s), np.float32) for k, s in axes.items()})
    keypoints.flags.writeable = confidence.flags.writeable = False
    return Observations(keypoints, confidence, cameras)


def corrupt(observations, amounts, *, clip="a/clip", fps=30.0, seed=0):
    return noise.corrupt(
        observations, amounts, clip=clip, fps=fps, mirrored=H36M.mirrored, seed=seed
    )


@functools.cache
def long_clip():
    return standing()


@functools.lru_cache(maxsize=12)
def long(name, fps=30.0, seed=0, **changes):
    """The long clip under a preset, of which some amounts may be changed."""
    return corrupt(long_clip(), dataclasses.replace(PRESETS[name], **changes), fps=fps, seed=seed)


def offsets(observations):
    """From where the joints are, float64; zeros where missing."""
    off = np.asarray(observations.keypoints, np.float64) - long_clip().keypoints
    return np.where(observations.confidence[..., None] > 0, off, 0.0)


def assert_share(found, expected, burst):
    """Within four standard errors of a share, where bursts are drawn independently."""
    error = np.sqrt(expected * (1 - expected) * burst / found.size)
    assert_allclose(found.mean(), expected, atol=4 * error)


def runs(flags):
    """Lengths of the runs of True along time `[frames, ...]` that touch neither end."""
    series = flags.reshape(len(flags), -1).T
    edges = np.diff(series.astype(np.int8), axis=1)
    lengths = []
    for line in edges:
        starts, ends = np.flatnonzero(line == 1), np.flatnonzero(line == -1)
        ends = ends[ends > starts[0]] if len(starts) else ends[:0]
        lengths.extend(ends - starts[: len(ends)])
    return np.array(lengths)


def same(a, b):
    return np.array_equal(a.keypoints, b.keypoints) and np.array_equal(a.confidence, b.confidence)


# ------------------------------------------------------------------------------------- digests

# A change here changes every published number.
DIGESTS = {
    "clean": "bf1a3415262e2caa",
    "mild": "077f350ad5d67f83",
    "typical": "1f73c40ceb2f6514",
    "hard": "9c2bf2b04e21b1e6",
}


def digest(observations):
    """Of keypoints to 0.01 pixels and confidence to 0.001."""
    numbers = (100 * observations.keypoints, 1000 * observations.confidence)
    data = b"".join(np.round(x).astype("<i4").tobytes() for x in numbers)
    return hashlib.sha256(data).hexdigest()[:16]


def test_digests():
    given_ = standing(frames=600, views=3)
    found = {name: corrupt(given_, PRESETS[name], fps=50.0) for name in PRESETS}
    assert {name: digest(x) for name, x in found.items()} == DIGESTS
    # There is something of everything in them.
    for name in ("typical", "hard"):
        alone = Noise(swaps=PRESETS[name].swaps, unsure=False)
        assert not same(corrupt(given_, alone, fps=50.0), given_)


# ------------------------------------------------------------------------------------- dice


@pytest.mark.parametrize("name", NOISY)
def test_draws_follow_from_the_seed_and_the_name_of_the_clip(name):
    short, amounts = standing(frames=50), PRESETS[name]
    first = corrupt(short, amounts)
    assert same(first, corrupt(short, amounts))
    errors = [first.keypoints - short.keypoints]
    for other in ({"clip": "a/clip2"}, {"seed": 1}, {"clip": "b", "seed": 7}):
        found = corrupt(short, amounts, **other)
        assert not same(first, found)
        errors.append(found.keypoints - short.keypoints)
    assert same(
        corrupt(short, amounts, clip="1/x", seed=1), corrupt(short, amounts, clip="1/x", seed=1)
    )
    # Not the same dice in another order either: medians hold outliers and gaps off.
    clear = [np.clip(error, -3, 3).ravel() for error in errors]
    assert np.abs(np.corrcoef(clear) - np.eye(4)).max() < 0.15


def test_another_clip_has_other_dice_in_every_kind():
    """Errors, outliers, swaps, gaps, lost views and confidence all differ between two seeds."""
    kinds = {
        "sigma_px": {"sigma_px": 2.0},
        "outliers": {"outliers": 0.2},
        "missing": {"missing": 0.3},
        "swaps": {"swaps": 0.2},
    }
    short = standing(frames=200)
    for amounts in kinds.values():
        alone = Noise(**amounts, unsure=False)
        assert not same(corrupt(short, alone), corrupt(short, alone, seed=1))
    doubt = Noise(unsure=True)
    first, second = corrupt(short, doubt), corrupt(short, doubt, seed=1)
    assert_array_equal(first.keypoints, second.keypoints)
    assert not np.array_equal(first.confidence, second.confidence)
    lost = {
        tuple(
            np.flatnonzero(corrupt(short, Noise(lost_views=1), seed=s).confidence[0].max(-1) == 0)
        )
        for s in range(30)
    }
    assert lost == {(view,) for view in range(VIEWS)}


def test_one_kind_does_not_change_the_dice_of_another():
    whole = long("typical")
    seen = whole.confidence > 0
    # Without gaps, what was seen before is as it was.
    full = long("typical", missing=0.0)
    assert (full.confidence > 0).all()
    assert_array_equal(full.keypoints[seen], whole.keypoints[seen])
    assert_array_equal(full.confidence[seen], whole.confidence[seen])
    # Without outliers and swaps, what was neither is as it was: most of it.
    plain = long("typical", missing=0.0, outliers=0.0, swaps=0.0)
    kept = (plain.keypoints == full.keypoints).all(-1)
    assert kept.mean() > 0.9
    assert_array_equal(plain.confidence[kept], full.confidence[kept])
    # Twice the errors are twice the same errors.
    twice = long("typical", missing=0.0, outliers=0.0, swaps=0.0, sigma_px=4.0)
    assert_allclose(offsets(twice), 2 * offsets(plain), atol=5e-4)
    # Other numbers of outliers: the fewer are among the more, in the same bursts.
    few, many = (offsets(long("clean", outliers=share)) for share in (0.05, 0.1))
    hit_few, hit_many = few.any(-1), many.any(-1)
    assert np.all(hit_many[hit_few])
    few_gaps, many_gaps = (long("clean", missing=x).confidence == 0 for x in (0.2, 0.3))
    assert np.all(many_gaps[few_gaps])


# ------------------------------------------------------------------------------------- identity


@pytest.mark.parametrize("fps", [25.0, 30.0, 60.0])
def test_clean_is_the_identity_bit_for_bit(fps):
    rng = np.random.default_rng(0)
    given_ = standing(frames=30)
    there = (rng.random(given_.confidence.shape) < 0.8).astype(np.float32)
    given_ = given_.replace(
        keypoints=(1000 * rng.random(given_.keypoints.shape)).astype(np.float32) * there[..., None],
        confidence=rng.random(there.shape).astype(np.float32) * there,
    )
    found = corrupt(given_, PRESETS["clean"], fps=fps)
    for field in ("keypoints", "confidence"):
        before, after = getattr(given_, field), getattr(found, field)
        assert after.dtype == before.dtype == np.float32
        assert after.tobytes() == before.tobytes()
    assert found.cameras is given_.cameras


@pytest.mark.parametrize("name", PRESETS)
def test_input_is_left_alone(name):
    given_ = standing(frames=60)
    given_.keypoints.flags.writeable = given_.confidence.flags.writeable = True
    before = [x.copy() for x in (given_.keypoints, given_.confidence)]
    found = corrupt(given_, dataclasses.replace(PRESETS[name], lost_views=1))
    assert_array_equal(given_.keypoints, before[0])
    assert_array_equal(given_.confidence, before[1])
    assert not np.shares_memory(found.keypoints, given_.keypoints)
    assert not np.shares_memory(found.confidence, given_.confidence)
    assert found.cameras is given_.cameras


@pytest.mark.parametrize("name", PRESETS)
def test_arrays_are_single_precision_and_finite(name):
    found = corrupt(standing(frames=60), PRESETS[name])
    assert found.keypoints.dtype == found.confidence.dtype == np.float32
    assert np.isfinite(found.keypoints).all()
    assert found.keypoints.shape == (60, VIEWS, JOINTS, 2)
    assert found.confidence.shape == (60, VIEWS, JOINTS)


@pytest.mark.parametrize("frames", [1, 2, 4])
@pytest.mark.parametrize("name", PRESETS)
def test_short_clips_have_noise_too(name, frames):
    """Bursts may have begun before the first frame: the shares hold in clips of any length."""
    short = standing(frames=frames)
    found = [corrupt(short, PRESETS[name], clip=f"c{i}") for i in range(300)]
    missing = np.mean([x.confidence == 0 for x in found])
    assert_allclose(missing, PRESETS[name].missing, atol=0.02)


# ------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("fps", [30.0, 60.0])
@pytest.mark.parametrize("name", NOISY)
def test_errors_have_their_size_and_correlation(name, fps):
    error = offsets(long(name, fps, outliers=0.0, missing=0.0, swaps=0.0))
    sigma = PRESETS[name].sigma_px
    # Worth about a tenth of the frames: (1 - rho^2) / (1 + rho^2).
    assert_allclose(error.std(axis=(0, 1, 2)), sigma, rtol=0.02)
    assert_allclose(error.mean(axis=(0, 1, 2)), 0.0, atol=0.04 * sigma)
    assert_allclose(error[0].std(), sigma, rtol=0.25)  # in equilibrium from the first frame on
    rho = 0.9 if fps == 30.0 else 0.9**0.5
    assert_allclose(autocorrelation(error), rho, atol=0.005)
    # x and y, neighbours and views are independent.
    assert abs(np.corrcoef(error[..., 0].ravel(), error[..., 1].ravel())[0, 1]) < 0.03
    assert abs(np.corrcoef(error[:, :, 1:].ravel(), error[:, :, :-1].ravel())[0, 1]) < 0.03
    assert abs(np.corrcoef(error[:, 1:].ravel(), error[:, :-1].ravel())[0, 1]) < 0.03


@pytest.mark.parametrize("fps", [30.0, 60.0])
def test_errors_without_correlation_are_independent(fps):
    error = offsets(long("mild", fps, correlation=0.0))
    assert_allclose(error.std(), 1.0, rtol=0.01)
    assert_allclose(autocorrelation(error), 0.0, atol=0.005)


def autocorrelation(error):
    """With the frame before."""
    return np.mean(error[1:] * error[:-1]) / np.mean(error**2)


def test_errors_are_normal():
    error = offsets(long("mild", correlation=0.0))
    assert_allclose(np.mean(np.abs(error) < 1.959964), 0.95, atol=0.002)
    assert_allclose(np.mean(error**4), 3.0, rtol=0.03)


# ------------------------------------------------------------------------------------- outliers


@pytest.mark.parametrize("name", ["typical", "hard"])
def test_outliers(name):
    """On someone who stands still, without other errors: bursts of 5 frames of one offset."""
    off = offsets(long(name, sigma_px=0.0, missing=0.0, swaps=0.0))
    hit = off.any(-1)
    assert_share(hit, PRESETS[name].outliers, noise.BURST_FRAMES)
    length = np.linalg.norm(off[hit], axis=-1)
    assert 0.99 * noise.OUTLIER_PX < length.max() < noise.OUTLIER_PX + 1e-3
    # Uniform in length and in direction.
    assert_allclose(np.quantile(length, [0.1, 0.5, 0.9]), [10, 50, 90], atol=2.0)
    assert_allclose(off[hit].mean(axis=0), 0.0, atol=2.0)
    # A burst lasts its five frames unless another begins: of one offset, then another or none.
    changed = (off[1:] != off[:-1]).any(-1)
    begins = np.concatenate([np.ones_like(hit[:1]), changed]) & hit
    same_burst = hit & ~begins
    held = runs(same_burst) + 1  # a burst that another follows at once has its own first frame
    assert held.max() == noise.BURST_FRAMES
    assert (held == noise.BURST_FRAMES).mean() > 0.75
    ends = np.flatnonzero((hit[:-1] & ~hit[1:]).ravel()) // hit[0].size
    assert len(ends) > 100
    for lag in range(noise.BURST_FRAMES):  # the five frames before the end of a burst are outliers
        over = hit[noise.BURST_FRAMES - 1 : -1] & ~hit[noise.BURST_FRAMES :]
        earlier = slice(noise.BURST_FRAMES - 1 - lag, len(off) - 1 - lag)
        assert_array_equal(off[earlier][over], off[noise.BURST_FRAMES - 1 : -1][over])


def test_outliers_come_on_top_of_the_other_errors():
    plain = offsets(long("typical", missing=0.0, swaps=0.0, outliers=0.0))
    both = offsets(long("typical", missing=0.0, swaps=0.0))
    alone = offsets(long("typical", missing=0.0, swaps=0.0, sigma_px=0.0))
    assert_allclose(both, plain + alone, atol=5e-4)


# ------------------------------------------------------------------------------------- gaps


@pytest.mark.parametrize("name", ["typical", "hard"])
def test_gaps(name):
    found = long(name)
    missing = found.confidence == 0
    assert_share(missing, PRESETS[name].missing, noise.GAP_FRAMES)
    assert not found.keypoints[missing].any()
    lengths = runs(missing)
    assert lengths.min() == noise.GAP_FRAMES
    assert 0.3 < (lengths == noise.GAP_FRAMES).mean() < 1  # some begin before another ends
    # Of each joint of each view on its own.
    assert_allclose(missing.mean(axis=0), PRESETS[name].missing, atol=0.08)
    apart = np.corrcoef(missing.reshape(FRAMES, -1).T)
    assert np.abs(apart - np.eye(len(apart))).max() < 0.2


def test_mild_has_no_gaps():
    assert (long("mild").confidence > 0).all()


def test_what_was_missing_stays_so():
    rng = np.random.default_rng(1)
    given_ = standing(frames=300)
    there = rng.random(given_.confidence.shape) < 0.7
    there[:, 2] = False  # a whole view
    given_ = given_.replace(
        keypoints=given_.keypoints * there[..., None], confidence=there.astype(np.float32)
    )
    for name in PRESETS:
        found = corrupt(given_, dataclasses.replace(PRESETS[name], swaps=0.0))
        assert not found.confidence[~there].any()
        assert not found.keypoints[~there].any()
        if PRESETS[name].missing == 0:
            assert (found.confidence[there] > 0).all()
        # Sides that are exchanged take what is missing with them.
        found = corrupt(given_, PRESETS[name])
        neither = ~(there | there[:, :, MIRRORED])
        assert not found.confidence[neither].any()
        assert not found.keypoints[found.confidence == 0].any()


# ------------------------------------------------------------------------------------- swaps


@pytest.mark.parametrize("name", ["typical", "hard"])
def test_swaps_exchange_the_sides_of_whole_views(name):
    found = long(name, sigma_px=0.0, outliers=0.0, missing=0.0).keypoints
    clean = long_clip().keypoints
    is_clean = (found == clean).all(axis=(2, 3))
    is_mirrored = (found == clean[:, :, MIRRORED]).all(axis=(2, 3))
    assert_array_equal(is_clean, ~is_mirrored)
    assert_share(is_mirrored, PRESETS[name].swaps, noise.BURST_FRAMES)
    lengths = runs(is_mirrored)
    assert lengths.min() == noise.BURST_FRAMES
    assert (lengths == noise.BURST_FRAMES).mean() > 0.75
    apart = np.corrcoef(is_mirrored.T)
    assert np.abs(apart - np.eye(VIEWS)).max() < 0.1


def test_swaps_exchange_errors_and_outliers_but_not_gaps():
    before, after = long("hard", swaps=0.0, missing=0.0), long("hard", missing=0.0)
    exchanged = (after.keypoints == before.keypoints[:, :, MIRRORED]).all(axis=(2, 3))
    kept = (after.keypoints == before.keypoints).all(axis=(2, 3))
    assert_array_equal(exchanged, ~kept)
    assert_share(exchanged, PRESETS["hard"].swaps, noise.BURST_FRAMES)
    assert_array_equal(after.confidence[kept], before.confidence[kept])
    middle = np.arange(JOINTS) == MIRRORED
    assert_array_equal(after.confidence[..., middle], before.confidence[..., middle])
    # Who errs by nothing is sure, wherever the other side's outlier went.
    found = long("hard", sigma_px=0.0, missing=0.0)
    exact = (found.keypoints == long_clip().keypoints[:, :, MIRRORED]).all(-1) & exchanged[
        ..., None
    ]
    assert exact.any()
    assert np.all(found.confidence[exact] >= 0.8)
    # The gaps are in the same places with swaps as without.
    assert_array_equal(long("hard").confidence == 0, long("hard", swaps=0.0).confidence == 0)


# ------------------------------------------------------------------------------------- views


@pytest.mark.parametrize("name", PRESETS)
def test_lost_views(name):
    short, lost_before = standing(frames=80), np.zeros(VIEWS, bool)
    whole = corrupt(short, PRESETS[name])
    for number in range(VIEWS):
        found = corrupt(short, dataclasses.replace(PRESETS[name], lost_views=number))
        lost = (found.confidence == 0).all(axis=(0, 2))
        assert lost.sum() == number
        assert not found.keypoints[:, lost].any()
        assert_array_equal(found.keypoints[:, ~lost], whole.keypoints[:, ~lost])
        assert_array_equal(found.confidence[:, ~lost], whole.confidence[:, ~lost])
        assert np.all(lost[lost_before])  # the views of a smaller number are among them
        lost_before = lost


@pytest.mark.parametrize("views", [1, 3])
def test_losing_every_view_is_refused(views):
    for number in (views, views + 1):
        with pytest.raises(UserError, match=rf"clip a/clip: {number} of {views} views"):
            corrupt(standing(5, views), Noise(lost_views=number))


# ------------------------------------------------------------------------------------- confidence


@pytest.mark.parametrize("name", NOISY)
def test_confidence_is_in_range(name):
    found = long(name)
    seen = found.confidence > 0
    assert_array_equal(seen, found.keypoints.any(-1))
    assert found.confidence[seen].min() >= np.float32(0.05)
    assert found.confidence.max() <= 1


def test_confidence_knows_a_part_of_the_error():
    found = long("typical")
    seen = found.confidence > 0
    error = np.linalg.norm(offsets(found), axis=-1)
    assert -0.6 < spearmanr(found.confidence[seen], error[seen]).statistic < -0.3
    # A part: outliers that were not noticed are as sure as the rest.
    outliers = long("typical", sigma_px=0.0, missing=0.0, swaps=0.0)
    far = np.linalg.norm(offsets(outliers), axis=-1) > 50
    confidence = outliers.confidence
    assert_allclose(np.mean(confidence[far] > 0.7), noise.SURE, atol=0.06)
    assert np.all(confidence[~offsets(outliers).any(-1)] >= 0.8)


def test_confidence_scales_what_was_there():
    given_ = standing(frames=100)
    half = given_.replace(confidence=0.5 * given_.confidence)
    for name in PRESETS:
        whole, halved = corrupt(given_, PRESETS[name]), corrupt(half, PRESETS[name])
        assert_array_equal(halved.confidence, 0.5 * whole.confidence)
        assert_array_equal(halved.keypoints, whole.keypoints)


@pytest.mark.parametrize("name", NOISY)
def test_a_sure_detector_keeps_its_confidence(name):
    found, unsure = long(name, unsure=False), long(name)
    assert_array_equal(found.confidence, (unsure.confidence > 0).astype(np.float32))
    assert_array_equal(found.keypoints, unsure.keypoints)


# ------------------------------------------------------------------------------------- amounts


@pytest.mark.parametrize("field", ["outliers", "missing", "swaps", "correlation"])
@pytest.mark.parametrize("value", [-0.01, 1.0, 20.0, float("nan")])
def test_a_share_out_of_range_is_refused(field, value):
    with pytest.raises(UserError, match=rf"noise\.{field} is {value}; give 0 <= {field} < 1"):
        Noise(**{field: value})


@pytest.mark.parametrize("value", [-1.0, float("inf"), float("nan")])
def test_a_negative_amount_is_refused(value):
    with pytest.raises(UserError, match=rf"noise\.sigma_px is {value}; give 0 or more"):
        Noise(sigma_px=value)


def test_a_negative_number_of_views_is_refused():
    with pytest.raises(UserError, match=r"noise\.lost_views is -1; give a whole number"):
        Noise(lost_views=-1)


def test_a_view_that_shows_nothing_cannot_be_the_one_that_is_left():
    """A set with fewer views than others is padded with views that see nothing."""
    clip = standing(5, 2)
    confidence = clip.confidence.copy()
    confidence[:, 0] = 0
    blind = dataclasses.replace(clip, confidence=confidence)
    with pytest.raises(UserError, match=r"1 of 1 views that show anything"):
        corrupt(blind, Noise(lost_views=1))


def test_presets():
    assert list(PRESETS) == ["clean", "mild", "typical", "hard"]
    for name in PRESETS:
        assert noise.preset(name) == PRESETS[name]
    with pytest.raises(UserError, match=r"'dirty'; there are clean, mild, typical, hard"):
        noise.preset("dirty")


@settings(deadline=None, max_examples=40)
@given(
    st.builds(
        Noise,
        sigma_px=st.floats(0, 50),
        outliers=st.floats(0, 0.99),
        missing=st.floats(0, 0.99),
        swaps=st.floats(0, 0.99),
        lost_views=st.integers(0, 2),
        correlation=st.floats(0, 0.999),
        unsure=st.booleans(),
    ),
    st.integers(1, 30),
    st.sampled_from([1.0, 25.0, 50.0, 240.0]),
    st.text(max_size=20),
    st.integers(0, 2**31),
)
def test_any_amounts_leave_observations(amounts, frames, fps, clip, seed):
    given_ = standing(frames, views=3)
    found = corrupt(given_, amounts, clip=clip, fps=fps, seed=seed)
    seen = found.confidence > 0
    assert np.isfinite(found.keypoints).all()
    assert not found.keypoints[~seen].any()
    assert np.all((found.confidence[seen] >= np.float32(0.05)) & (found.confidence[seen] <= 1))
    assert (~seen.any(axis=(0, 2))).sum() >= amounts.lost_views
