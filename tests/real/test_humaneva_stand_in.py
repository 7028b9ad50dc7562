"""HumanEva-I's whole way on other people: files, preparation, training, adaptation, metric."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks import humaneva_stand_in
from data_prep import rigs
from pose3d_jax import sources

ROOT = Path(__file__).parents[2]
POSITIONS = (
    Path(os.environ.get("POSE3D_REAL_DATA", ROOT / "../shared/data"))
    / "cmu"
    / "cmu_positions_30fps.npz"
)

pytestmark = pytest.mark.skipif(
    not POSITIONS.exists(), reason=f"there is no {POSITIONS}; set POSE3D_REAL_DATA"
)


def test_its_files_hold_real_people_at_twice_the_rate(tmp_path):
    frames = humaneva_stand_in.write(POSITIONS, tmp_path, longest=40)
    found = sources.load_npz(tmp_path / "data_3d_humaneva15.npz", "positions_3d")["positions_3d"]
    assert set(found) == {
        f"{part}/{subject}"
        for part in ("Train", "Validate")
        for subject in rigs.subjects("humaneva")
    }
    for part, number in frames.items():
        own = [x for key, clips in found.items() if key.startswith(part) for x in clips.values()]
        assert number == sum(map(len, own))
    halves = [found[f"{part}/S2"]["Box 1 chunk0"] for part in ("Train", "Validate")]
    joints = np.concatenate(halves)
    assert joints.shape == (79, 15, 3)
    # Between two frames a joint is between them, but for what it is accelerated by.
    off = np.linalg.norm(joints[1:-1:2] - (joints[:-2:2] + joints[2::2]) / 2, axis=-1)
    assert 0 < np.median(off) < 0.002


@pytest.mark.slow
def test_adapted_poses_are_within_a_tenth_of_a_millimetre(tmp_path, monkeypatch, capsys):
    given = ["--positions", str(POSITIONS), "--output", str(tmp_path), "--quick"]
    monkeypatch.setattr("sys.argv", ["humaneva_stand_in", *given])
    humaneva_stand_in.main()
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    rows = {name: row["mpjpe_report"] for name, row in last["by"].items()}
    assert rows["multiview_adapted_poses"] < 0.1 < rows["multiview"]
    assert rows["multiview_adapted_shared"] < rows["multiview"]
    assert rows["triangulation"] < 0.01
