"""Pictures of meshes: where the silhouette is, and which side is lit."""

import numpy as np
import trimesh
from PIL import Image

from pose3d_jax.viewer import render

FOCAL, CENTER, SIZE = np.array([300.0, 280.0]), np.array([127.5, 95.5]), (256, 192)
PLACE, RADIUS = np.array([0.3, -0.2, 4.0]), 0.6


def ball():
    found = trimesh.creation.icosphere(subdivisions=5, radius=RADIUS)
    return np.asarray(found.vertices) + PLACE, np.asarray(found.faces)


def test_a_ball_is_seen_where_rays_pass_nearer_to_it_than_its_radius():
    picture = render.mesh(*ball(), FOCAL, CENTER, SIZE)
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    rays = np.stack([(x - CENTER[0]) / FOCAL[0], (y - CENTER[1]) / FOCAL[1], np.ones(x.shape)], -1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    away = np.linalg.norm(PLACE - (rays @ PLACE)[..., None] * rays, axis=-1)
    seen = picture[..., 3] > 0
    assert seen.sum() > 3000
    differ = seen != (away < RADIUS)
    assert differ.sum() < 20
    assert (abs(away - RADIUS)[differ] < 0.01).all()
    # The light stands above: the upper side is brighter.
    brightness = np.where(seen, picture[..., :3].sum(axis=-1), np.nan)
    rows = np.nanmean(brightness[seen.any(axis=1)], axis=1)
    assert rows[: len(rows) // 3].mean() > 1.2 * rows[-len(rows) // 3 :].mean()


def test_a_preview_shows_the_mesh_under_the_points(tmp_path):
    """At half the rate: no more than 15 frames a second."""
    vertices, faces = ball()
    points = np.array([[0, RADIUS], [0, -RADIUS], [RADIUS, 0], [-RADIUS, 0]]) + PLACE[:2]
    pixels = FOCAL * points / PLACE[2] + CENTER
    keypoints = np.concatenate([pixels, np.ones((4, 1))], axis=-1)
    keypoints = np.concatenate([keypoints, np.zeros((1, 3))])  # one is missing
    path = tmp_path / "clip.gif"
    render.preview(
        path,
        np.stack([vertices + np.array([0, 0, 0.1 * frame]) for frame in range(5)]),
        faces,
        np.tile(keypoints, (5, 1, 1)),
        np.tile(FOCAL, (5, 1)),
        np.tile(CENTER, (5, 1)),
        30.0,
    )
    with Image.open(path) as found:
        assert (found.n_frames, found.size) == (3, (512, 256))
        picture = np.asarray(found.convert("RGB")).astype(int)
        lasts = []
        for frame in range(3):
            found.seek(frame)
            lasts.append(found.info["duration"])
    # Hundredths of a second, but no less in all than the five frames take.
    assert lasts == [70, 60, 70]
    left, right = picture[:, :256], picture[:, 256:]
    dots = np.argwhere((left[..., 0] > 170) & (left[..., 1] < 110))
    surface = np.argwhere(left[..., 2] > left[..., 0] + 10)
    # Dots stand where the ball ends, to either side.
    assert abs(dots.min(axis=0) - surface.min(axis=0)).max() < 8
    assert abs(dots.max(axis=0) - surface.max(axis=0)).max() < 8
    assert (right[..., 2] > right[..., 0] + 10).sum() > 1000
