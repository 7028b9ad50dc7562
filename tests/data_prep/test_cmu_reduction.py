"""The CMU benchmark's reduction and errors, on made-up positions; `tests/real` has real ones."""

import numpy as np
import pytest

from data_prep import cmu


def test_reduction_turns_y_up_into_z_up_and_finds_joints_by_name():
    positions = np.arange(31 * 3, dtype=float).reshape(1, 31, 3)
    reduced = cmu.reduce(positions, "amc")
    x, y, z = positions[0, 6]  # `rhipjoint`, whose end is the hip
    np.testing.assert_array_equal(reduced[0, 1], [x, -z, y])
    assert reduced.shape == (1, 17, 3)


def test_the_top_of_the_head_continues_the_neck():
    positions = np.zeros((1, 43, 3))
    positions[0, 3], positions[0, 4] = [0.0, 1.5, 0.0], [0.0, 1.58, 0.0]
    np.testing.assert_allclose(cmu.reduce(positions, "daz")[0, 10], [0.0, 0.0, 1.78])


def test_the_definition_is_whole():
    specs = cmu.benchmark()["segments"]
    assert len({spec["name"] for spec in specs}) == 114
    frames = dict.fromkeys(cmu.SPLITS, 0)
    for spec in specs:
        frames[spec["split"]] += spec["stop"] - spec["start"]
    assert list(frames.values()) == [35_619, 9_106, 8_655, 3_348]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        (b"no archive", "is not a readable npz file"),
        ({"amc/01_01": np.zeros((5, 3, 3))}, "expected [T, 31, 3]"),
        ({"amc/99_01": np.zeros((5, 31, 3))}, "none of the benchmark's clips"),
        ({"amc/01_01": np.zeros((700, 31, 3))}, "amc/01_01: the bone pelvis to right_hip is 0.000"),
        ({"amc/01_01": np.array([None])}, "amc/01_01 cannot be read"),
    ],
)
def test_what_a_user_can_get_wrong_is_said(tmp_path, capsys, content, message):
    path = tmp_path / "positions.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.savez(path, **content)
    with pytest.raises(SystemExit):
        cmu.main(["--positions", str(path), "--out", str(tmp_path / "out"), "--allow_partial"])
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "out").exists()


def test_a_wrong_folder_and_no_source_at_all(tmp_path, capsys):
    with pytest.raises(SystemExit):
        cmu.main(["--originals", str(tmp_path), "--out", str(tmp_path / "out")])
    assert "give the folder that holds asfamc/ and bvh/" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cmu.main(["--out", str(tmp_path / "out")])
    assert "give --positions, --originals, or both" in capsys.readouterr().err
