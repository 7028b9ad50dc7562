import warnings

import numpy as np
import pytest
from matplotlib.figure import Figure

from pose3d_jax import skeleton
from pose3d_jax.viewer import figures

pytestmark = pytest.mark.filterwarnings("error")
H36M, COCO = skeleton.get("h36m17"), skeleton.get("coco17")


def _space():
    return Figure().add_subplot(projection="3d", computed_zorder=False)


def _pose(seed=0):
    return np.random.default_rng(seed).normal(0, 0.4, (17, 3))


def _segments(axes):
    return np.array(axes.collections[-1]._segments3d)


def test_a_pose_has_all_its_bones_and_two_shades():
    axes = _space()
    figures.pose_3d(axes, _pose(), H36M, colour="#ff0000")
    assert _segments(axes).shape == (16, 2, 3)
    opacity = dict(zip(H36M.bones, axes.collections[0].get_edgecolor()[:, 3], strict=True))
    left, right = (H36M.joints.index(f"{side}_knee") for side in ("left", "right"))
    assert opacity[(left - 1, left)] > opacity[(right - 1, right)]


def test_up_is_up_right_is_right_and_away_is_away():
    joints = np.zeros((17, 3))
    joints[:] = [0.3, 0.2, 4.0]
    head = H36M.joints.index("head")
    joints[head] = [0.4, -0.5, 4.3]  # the camera's y points down
    axes = _space()
    figures.pose_3d(axes, joints, H36M)
    start, end = _segments(axes)[H36M.bones.index((head - 1, head))]
    np.testing.assert_allclose(end - start, [0.1, 0.3, 0.7], atol=1e-12)
    widths = [np.ptp(limits) for limits in (axes.get_xlim(), axes.get_ylim(), axes.get_zlim())]
    np.testing.assert_allclose(widths, widths[0])
    assert axes.get_zlim()[0] < axes.get_zlim()[1]
    # On the canvas too: z axis upwards.
    axes.figure.canvas.draw()
    heights = [axes.transData.transform(_project(axes, p))[1] for p in (start, end)]
    assert heights[1] > heights[0]


def _project(axes, point):
    from mpl_toolkits.mplot3d import proj3d

    return proj3d.proj_transform(*point, axes.get_proj())[:2]


def test_a_missing_joint_takes_its_bones_along():
    joints = _pose()
    joints[H36M.joints.index("left_knee")] = np.nan
    axes = _space()
    figures.pose_3d(axes, joints, H36M)
    assert len(_segments(axes)) == 14
    assert np.isfinite(_segments(axes)).all()


@pytest.mark.parametrize("present", [17, 16, 0])
def test_a_keypoint_without_confidence_is_not_drawn(present):
    confidence = np.ones(17)
    confidence[present:] = 0  # the last is an ankle, with one bone
    axes = Figure().add_subplot()
    pixels = np.random.default_rng(0).uniform(100, 500, (17, 2))
    figures.pose_2d(axes, pixels, confidence, COCO, np.array([640.0, 480.0]))
    lines, dots = axes.collections
    assert len(lines.get_segments()) == max(present - 1, 0)
    assert len(dots.get_offsets()) == present
    bottom, top = axes.get_ylim()
    assert bottom > top  # y down
    axes.figure.canvas.draw()


def _example(number=2):
    rng = np.random.default_rng(1)
    truth = rng.normal(0, 0.4, (number, 17, 3))
    truth[0, 3] = np.nan
    return {
        "names": np.array(["walk", "a $hostile_{ <name>"][:number]),
        "keypoints": rng.uniform(0, 480, (number, 17, 2)),
        "confidence": np.ones((number, 17)),
        "size": np.full((number, 2), 480.0),
        "truth": truth,
        "predictions": {"one": np.nan_to_num(truth) + 0.02, "$two": np.nan_to_num(truth)},
        "captions": {"one": ["20.0 mm"] * number, "$two": ["0.0 mm"] * number},
    }


def test_an_example_is_a_row_of_input_truth_and_predictions_over_it():
    figure = figures.examples((COCO, H36M), _example(), figures.palette(["one", "$two"]))
    assert len(figure.axes) == 2 * (2 + 2)
    _, truth, one, _ = figure.axes[:4]
    assert [len(c._segments3d) for c in truth.collections] == [15]
    assert [len(c._segments3d) for c in one.collections] == [15, 16]
    faint, strong = one.collections
    assert faint.get_edgecolor()[:, 3].max() < strong.get_edgecolor()[:, 3].min()
    np.testing.assert_allclose(one.get_zlim(), truth.get_zlim())
    assert [text.get_text() for text in one.texts] == ["20.0 mm", "one"]
    svg = figures.to_svg(figure)
    assert "&lt;name&gt;" in svg
    assert "<name>" not in svg


def test_an_example_without_truth_shows_the_prediction():
    example = _example(1)
    example["truth"][:] = np.nan
    figure = figures.examples((COCO, H36M), example, {})
    assert [len(c._segments3d) for c in figure.axes[2].collections] == [16]
    figures.to_png(figure, dpi=40)


ROWS = [
    {"step": 10, "phase": 0, "train/loss": 1.0, "train/all/two_d": 0.5},
    {"step": 20, "phase": 0, "train/loss": None, "train/all/two_d": 0.4},
    {"step": 20, "validation/p1": 80.0},
    {"step": 30, "phase": 1, "train/loss": 0.1, "train/all/two_d": -0.1},
    {"step": 30, "phase": 1, "train/loss": 0.2, "train/all/two_d": 0.1},
    {"step": 40, "phase": 1, "train/loss": float("inf"), "validation/p1": 60.0},
]


def test_curves_have_a_panel_per_scalar_and_a_line_per_run():
    runs = {"_a": ROWS, "b": ROWS[:3]}
    figure = figures.curves(runs, figures.palette(runs), unit="mm")
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == ["validation/p1 (mm)", "train/loss", "train/all/two_d"]
    assert [axes.get_yscale() for axes in figure.axes] == ["linear", "log", "log"]
    first, end_of_phase, second = figure.axes[1].lines
    np.testing.assert_array_equal(first.get_xydata(), [[10, 1.0], [30, 0.2]])
    assert end_of_phase.get_xdata()[0] == 20
    np.testing.assert_array_equal(second.get_xydata(), [[10, 1.0]])
    assert [text.get_text().strip() for text in figure.legends[0].texts] == ["_a", "b"]
    assert figures.to_svg(figure).count("<svg") == 1


def test_a_term_that_is_not_positive_keeps_a_linear_scale():
    rows = [{"step": i, "train/elbo": 1.0 - i} for i in range(4)]
    (axes,) = figures.curves({"a": rows}, figures.palette("a")).axes
    assert axes.get_yscale() == "linear"


def test_curves_of_nothing_have_no_axes():
    assert not figures.curves({"a": []}, figures.palette("a")).axes


def test_errors_by_group_have_a_dot_per_method_and_group():
    errors = {"a": {"walk": 40.0, "sit": None}, "triangulation": {"walk": 8.0, "sit": 9.0}}
    (axes,) = figures.errors_by_group(errors, figures.palette("a"), "mm").axes
    mine, baseline = axes.lines
    np.testing.assert_array_equal(mine.get_xydata(), [[40, 0]])
    np.testing.assert_array_equal(baseline.get_xydata(), [[8, 0], [9, 1]])
    assert baseline.get_color() == figures.GREY
    assert [label.get_text() for label in axes.get_yticklabels()] == ["walk", "sit"]


def test_svg_is_the_same_each_time_and_takes_the_page_s_ink():
    def draw():
        return figures.to_svg(figures.curves({"a": ROWS}, figures.palette("a")))

    svg = draw()
    assert svg == draw()
    assert svg.startswith("<svg")
    assert "currentColor" in svg
    assert figures.INK not in svg
    assert "<metadata" not in svg


def test_png_is_one():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        png = figures.to_png(figures.curves({"a": ROWS}, figures.palette("a")), dpi=40)
    assert png.startswith(b"\x89PNG")
