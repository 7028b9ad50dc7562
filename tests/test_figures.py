"""Figures for papers: which poses, which numbers, what is drawn; read by an XML reader, Pillow."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from pose3d_jax import figures, skeleton
from pose3d_jax.errors import UserError
from pose3d_jax.viewer import paper
from tests.test_report import _examples, _metrics, _workdir

NUMBER = 9
H36M = skeleton.get("h36m17")


def moved(offsets):
    """Examples whose joints but the root are so many metres off."""
    made = _examples(tuple(f"walk $_{n}" for n in range(NUMBER)))
    made["prediction"] = made["truth"].copy()
    made["prediction"][:, 1:, 2] += np.asarray(offsets)[:, None]
    return made


@pytest.fixture
def two(tmp_path):
    """Two runs; by the mean of both, example 4 is the best, 0 the median, 7 the worst."""
    one = np.array([50, 60, 40, 30, 10, 20, 80, 90, 70]) / 1000
    other = np.array([10, 11, 12, 13, 9, 14, 15, 30, 16]) / 1000
    paths = [
        _workdir(tmp_path / name, _metrics(), moved(offsets))
        for name, offsets in (("a", one), ("b", other))
    ]
    return paths, 1000 * np.stack([one, other]) * 16 / 17  # the root has no error


def texts(path):
    """All text of an SVG, in order."""
    tree = ET.parse(path)
    return ["".join(node.itertext()).strip() for node in tree.iter() if node.tag.endswith("text")]


def test_rows_are_ranks_of_the_error_and_numbers_are_the_examples_own(two, tmp_path):
    paths, errors = two
    output = tmp_path / "out" / "figure.svg"
    told = figures.run(paths, output, labels=("base$", "_ours"))
    order = np.argsort(errors.mean(axis=0))
    found = [int(n) for n in re.findall(r"example (\d+)", told)]
    assert found == [order[0], order[4], order[8]]
    written = texts(output)
    assert written.count("input") == written.count("truth") == 1
    assert {"base$", "_ours", "best", "median", "worst"} <= set(written)
    numbers = [text for text in written if text.endswith(" mm")]
    assert numbers == [f"{errors[m, n]:.1f} mm" for n in found for m in range(2)]
    for n in found:
        assert f"walk $_{n}: base$ {errors[0, n]:.1f} mm, _ours {errors[1, n]:.1f} mm" in told
    assert f"P1, of {NUMBER} examples" in told


def test_one_column_may_rank_and_other_numbers_of_rows(two, tmp_path):
    paths, errors = two
    told = figures.run(paths, tmp_path / "a.svg", by="b", rows=5)
    order = np.argsort(errors[1])
    assert [int(n) for n in re.findall(r"example (\d+)", told)] == order[[0, 2, 4, 6, 8]].tolist()
    assert [line.split(":")[0] for line in told.splitlines()[:5]] == [
        "best", "rank 25 %", "median", "rank 75 %", "worst",
    ]  # fmt: skip
    assert figures.run(paths, tmp_path / "a.svg", rows=1).startswith("median: example 0")


def test_examples_may_be_asked_for(two, tmp_path):
    told = figures.run(two[0], tmp_path / "a.svg", examples=(6, 0))
    assert [int(n) for n in re.findall(r": example (\d+)", told)] == [6, 0]
    with pytest.raises(UserError, match="there are 0 to 8"):
        figures.run(two[0], tmp_path / "a.svg", examples=(9,))


def test_a_pose_without_a_label_has_no_rank(tmp_path):
    made = moved(np.arange(1, NUMBER + 1) / 100)
    made["truth_valid"][0, H36M.root] = 0
    path = _workdir(tmp_path / "a", _metrics(), made)
    assert "best: example 1," in figures.run([path], tmp_path / "a.svg")
    told = figures.run([path], tmp_path / "b.svg", examples=(0,))
    assert "a – mm" in told
    made["truth_valid"][:, H36M.root] = 0
    bare = _workdir(tmp_path / "b", _metrics(), made)
    with pytest.raises(UserError, match="0 examples have an error"):
        figures.run([bare], tmp_path / "a.svg")


def test_poses_without_a_size_have_n_mpjpe(tmp_path):
    metrics = _metrics()
    metrics["splits"]["test"]["rows"]["multiview"]["p1"] = {"frames": None, "groups": None}
    made = _examples(tuple("abcde"))
    made["prediction"] = 3.0 * made["truth"]
    told = figures.run([_workdir(tmp_path / "a", metrics, made)], tmp_path / "a.svg")
    assert told.count(" 0.0 mm") == 3
    assert "N-MPJPE, of 5 examples" in told


def test_every_format_is_written_and_alike_each_time(two, tmp_path):
    for kind in paper.FORMATS:
        one, other = tmp_path / f"1.{kind}", tmp_path / f"2.{kind}"
        for path in (one, other):
            figures.run(two[0], path, rows=2)
        assert one.read_bytes() == other.read_bytes()
    with Image.open(tmp_path / "1.png") as image:
        assert image.size[0] == 2100  # 7 inches
        seen = np.asarray(image.convert("L"))
    # Rows and columns of panels, each with something in it.
    assert (seen < 200).any(axis=1).mean() > 0.5
    for part in np.array_split(seen, 4, axis=1):
        assert (part < 200).any()
    pdf = (tmp_path / "1.pdf").read_bytes()
    assert pdf.startswith(b"%PDF-")
    assert b"/Subtype /Image" not in pdf  # vectors
    assert b"<image" not in (tmp_path / "1.svg").read_bytes()


def test_panels_show_the_truth_under_each_prediction():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(2, 17, 3))
    columns = {"a": (truth + 0.1, ["1 mm", "2 mm"]), "b": (truth - 0.1, ["3 mm", "4 mm"])}
    seen = (rng.uniform(0, 100, (2, 17, 2)), np.ones((2, 17)))
    figure = paper.rows((H36M, H36M), seen, np.full((2, 2), 100.0), columns, truth, ["x", "y"])
    assert len(figure.axes) == 2 * 4
    flat, one, other, true = figure.axes[:4]
    assert [len(panel.collections) for panel in (one, other, true)] == [2, 2, 1]
    np.testing.assert_allclose(one.get_xlim(), true.get_xlim())
    faint, drawn = one.collections
    assert faint.get_edgecolor()[:, 3].max() < drawn.get_edgecolor()[:, 3].min()
    own = np.sort(np.stack(drawn._segments3d)[:, :, 0].ravel())
    bones = np.array(H36M.bones)
    np.testing.assert_allclose(own, np.sort((truth[0] + 0.1)[bones][..., 0].ravel()))
    assert flat.get_position().x0 < one.get_position().x0 < true.get_position().x0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"labels": ("a",)}, "--labels takes 2 different names"),
        ({"labels": ("a", "a")}, "--labels takes 2 different names"),
        ({"by": "c"}, "--by c: no column is named so; there are a, b"),
        ({"rows": 10}, "--rows 10: 9 examples have an error"),
        ({"rows": 0}, "--rows 0"),
    ],
)
def test_what_is_not_there_is_told(two, tmp_path, given, message):
    with pytest.raises(UserError, match=message):
        figures.run(two[0], tmp_path / "a.pdf", **given)
    assert not (tmp_path / "a.pdf").exists()


def test_runs_that_show_other_examples_are_refused(two, tmp_path, capsys):
    other = _workdir(tmp_path / "c", _metrics(), _examples(tuple("abcdefghi")))
    with pytest.raises(UserError, match=r"c shows other examples than .*a: evaluate both"):
        figures.run([two[0][0], other], tmp_path / "a.pdf")
    (other / "examples.npz").unlink()
    with pytest.raises(UserError, match=r"c has no examples\.npz; run with --mode=evaluate"):
        figures.run([two[0][0], other], tmp_path / "a.pdf")
    with pytest.raises(SystemExit, match=r"error: .*a\.gif: figures are pdf, svg, png"):
        figures.main([*map(str, two[0]), "--output", str(tmp_path / "a.gif")])
    figures.main([*map(str, two[0]), "--output", str(tmp_path / "a.png"), "--rows", "2"])
    assert "a.png" in capsys.readouterr().out
