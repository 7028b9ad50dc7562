"""Calibrations in the layouts that tools publish, against OpenCV, closed forms, and damage."""

import json
import re

import cv2
import jax
import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from pose3d_jax import cameras as cam
from pose3d_jax.formats import calibration
from pose3d_jax.formats.calibration import Rig, centres, fitted, read, subset, write
from pose3d_jax.formats.keypoint_people import Picture
from pose3d_jax.sources import SourceError
from tests import scenes

NAMES = ("cam2", "01", "cam10")
SIZE = (1920, 1080)
WORLD = np.random.default_rng(3).uniform([-0.8, -0.8, 0.2], [0.8, 0.8, 1.8], (20, 3))
project = jax.jit(cam.batched(cam.project))


def lens(view):
    matrix = np.array([[1400.0 + view, 0, 950.5], [0, 1390.5, 545.25 - view], [0, 0, 1]])
    return matrix, np.array([-0.2, 0.11, 0.001 * view, -0.0012, 0.02])


def place(view):
    """Rotation vector and translation, metres, of cameras that see the points."""
    angle = 0.5 * view
    rotation = (
        cv2.Rodrigues(np.array([np.pi / 2 + 0.1, 0, 0]))[0]
        @ (cv2.Rodrigues(np.array([0, 0, angle]))[0])
    )
    rotation = cv2.Rodrigues(rotation)[0].ravel()
    return rotation, np.array([0.1 * view, 0.9, 4.0 + 0.3 * view])


def seen(view):
    rotation, translation = place(view)
    return cv2.projectPoints(WORLD, rotation, translation, *lens(view))[0][:, 0]


def assert_sees(rig, names=NAMES):
    """The rig projects as OpenCV does with the numbers that the files were made of."""
    assert rig.names == names
    assert all(x.dtype == np.float32 for x in jax.tree.leaves(rig.cameras))
    points = np.broadcast_to(WORLD, (len(names), *WORLD.shape)).astype(np.float32)
    expected = np.stack([seen(NAMES.index(name)) for name in names])
    assert_allclose(project(rig.cameras, points), expected, atol=2e-2)
    assert_allclose(rig.cameras.size, [SIZE] * len(names))


# -------------------------------------------------------------- files, as the tools write them


def toml(folder, factor=1.0, **changes):
    """Pose2Sim's and anipose's layout."""
    text = ""
    for view, name in enumerate(NAMES):
        (matrix, distortion), (rotation, translation) = lens(view), place(view)
        lines = {
            "name": f'"{name}"',
            "size": f"[ {SIZE[0]}.0, {SIZE[1]}.0,]",
            "matrix": matrix.tolist(),
            "distortions": distortion.tolist(),
            "rotation": rotation.tolist(),
            "translation": (factor * translation).tolist(),
            "fisheye": "false",
        } | (changes if view == 1 else {})
        text += f"[cam_{view}]\n"
        text += "".join(f"{k} = {v}\n" for k, v in lines.items() if v is not None)
    (folder / "Calib.toml").write_text(f"{text}\n[metadata]\nadjusted = false\nerror = 0.0\n")
    return folder / "Calib.toml"


def easymocap(folder, sizes=True, rotation="R"):
    folder.mkdir(exist_ok=True)
    files = {
        name: cv2.FileStorage(str(folder / f"{name}.yml"), cv2.FILE_STORAGE_WRITE)
        for name in ("intri", "extri")
    }
    for file in files.values():
        file.startWriteStruct("names", cv2.FileNode_SEQ)
        for name in NAMES:
            file.write("", name)
        file.endWriteStruct()
    for view, name in enumerate(NAMES):
        matrix, distortion = lens(view)
        turn, translation = place(view)
        files["intri"].write(f"K_{name}", matrix)
        files["intri"].write(f"dist_{name}", distortion[None])
        if sizes:
            files["intri"].write(f"W_{name}", SIZE[0])
            files["intri"].write(f"H_{name}", SIZE[1])
        if rotation != "Rot":
            files["extri"].write(f"R_{name}", turn[:, None])
        if rotation != "R":
            files["extri"].write(f"Rot_{name}", cv2.Rodrigues(turn)[0])
        files["extri"].write(f"T_{name}", translation[:, None])
    for file in files.values():
        file.release()
    return folder


def opencv(folder, ending="yml", names=NAMES, vectors=True):
    """One file for each camera."""
    folder.mkdir(exist_ok=True)
    for view, name in enumerate(names):
        matrix, distortion = lens(view)
        turn, translation = place(view)
        file = cv2.FileStorage(str(folder / f"{name}.{ending}"), cv2.FILE_STORAGE_WRITE)
        file.write("image_width", SIZE[0])
        file.write("image_height", SIZE[1])
        file.write("camera_matrix", matrix)
        file.write("distortion_coefficients", distortion[:, None])
        file.write(*(("rvec", turn) if vectors else ("R", cv2.Rodrigues(turn)[0])))
        file.write("tvec" if vectors else "T", translation)
        file.release()
    return folder


def plain_json(folder, change=lambda table: table, factor=1.0):
    """One file with all, of lists."""
    table = {}
    for view, name in enumerate(NAMES):
        matrix, distortion = lens(view)
        turn, translation = place(view)
        table[name] = {
            "K": matrix.tolist(),
            "dist_coeffs": distortion.tolist(),
            "R": cv2.Rodrigues(turn)[0].tolist(),
            "t": (factor * translation).tolist(),
            "image_size": list(SIZE),
        }
    (folder / "cameras.json").write_text(json.dumps(change(table)))
    return folder / "cameras.json"


QCA = """<?xml version="1.0" encoding="UTF-8"?>
<calibration source="a.qca" qtm-version="2023.1" type="regular" wandLength="601.1">
  <results std-dev="0.7" min-max-diff="3.1"/>
  <cameras>
    <camera active="1" point-count="2200" avg-residual="0.5" serial="26580" model="Miqus Video" viewrotation="0">
      <fov_marker left="0" top="0" right="1919" bottom="1087"/>
      <fov_marker_max left="0" top="0" right="1919" bottom="1087"/>
      <fov_video left="0" top="0" right="1919" bottom="1087"/>
      <fov_video_max left="0" top="0" right="1919" bottom="1087"/>
      <transform x="4000" y="0" z="1000" r11="0" r12="1" r13="0" r21="0" r22="0" r23="1" r31="1" r32="0" r33="0"/>
      <intrinsic focallength="9.3" sensorMinU="0" sensorMaxU="122879" sensorMinV="0" sensorMaxV="69631"
        focalLengthU="102400" focalLengthV="108800" centerPointU="60800" centerPointV="33600" skew="0"
        radialDistortion1="-0.05" radialDistortion2="0.14" radialDistortion3="0.01"
        tangentalDistortion1="0.0006" tangentalDistortion2="-0.0004"/>
    </camera>
    <camera active="0" serial="26581" model="Miqus Video" viewrotation="0"/>
    <camera active="1" serial="26582" model="Miqus M3" viewrotation="0"/>
  </cameras>
</calibration>
"""  # noqa: E501


def qualisys(folder, *changes):
    text = QCA
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "calib.qca.txt").write_text(text)
    return folder / "calib.qca.txt"


# --------------------------------------------------------------------------------------- read


@pytest.mark.parametrize("make", [toml, easymocap, plain_json])
def test_a_rig_projects_as_opencv_does(tmp_path, make):
    assert_sees(read(make(tmp_path)))


@pytest.mark.parametrize("rotation", ["R", "Rot", "both"])
@pytest.mark.parametrize("given", [".", "intri.yml", "extri.yml"])
def test_easymocap_s_pair_is_one_rig(tmp_path, rotation, given):
    assert_sees(read(easymocap(tmp_path, rotation=rotation) / given))


@pytest.mark.parametrize("ending", ["yml", "yaml", "json"])
@pytest.mark.parametrize("vectors", [True, False])
@pytest.mark.parametrize("header", ["%YAML:1.0", "%YAML 1.2"])  # of OpenCV to 4, and from 5 on
def test_opencv_s_files_of_a_folder_are_one_rig(tmp_path, ending, vectors, header):
    for path in opencv(tmp_path, ending, vectors=vectors).iterdir():
        path.write_text(re.sub("^%YAML.*", header, path.read_text()))
    (tmp_path / "notes.md").write_text("of no account")
    # In the order of their names, numbers by their value.
    assert_sees(read(tmp_path), ("01", "cam2", "cam10"))
    assert_sees(read(tmp_path / f"cam2.{ending}"), ("cam2",))


@pytest.mark.parametrize(
    "change",
    [
        lambda table: {"cameras": table},
        lambda table: [{"name": name, **camera} for name, camera in table.items()],
        lambda table: {"cameras": [{"id": name, **c} for name, c in table.items()]},
        lambda table: table | {"version": 1, "metadata": {"error": 0.2}},
    ],
)
def test_json_has_cameras_by_key_or_in_a_list(tmp_path, change):
    assert_sees(read(plain_json(tmp_path, change)))


def test_a_name_may_be_the_section_s_and_a_number(tmp_path):
    assert read(toml(tmp_path, name=None)).names == ("cam2", "cam_1", "cam10")
    assert read(toml(tmp_path, name="7")).names == ("cam2", "7", "cam10")


@pytest.mark.parametrize(
    ("view", "corner", "size"),
    [
        ('fov_video left="0" top="0"', [0, 0], [1920, 1088]),
        ('fov_video left="100" top="40"', [100, 40], [1820, 1048]),
    ],
)
def test_qualisys_looks_along_minus_x_from_4_m(tmp_path, view, corner, size):
    """A camera at (4, 0, 1) m, upright, in closed form; only active cameras that film count."""
    rig = read(qualisys(tmp_path, ('fov_video left="0" top="0"', view)))
    assert rig.names == ("26580",)
    assert_allclose(rig.cameras.size, [size])
    assert_allclose(centres(rig.cameras), [[4, 0, 1]], atol=1e-6)
    assert_allclose(rig.cameras.distortion, [[-0.05, 0.14, 0.0006, -0.0004, 0.01]], rtol=1e-6)
    straight = rig.cameras.replace(distortion=np.zeros((1, 5), np.float32))
    points = np.array([[[0, 0, 1], [0, 1, 1], [0, 0, 2]]], np.float32)  # ahead, right, above
    expected = np.array([[950, 525], [950 + 1600 / 4, 525], [950, 525 - 1700 / 4]]) - corner
    assert_allclose(project(straight, points)[0], expected, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('viewrotation="0">', 'viewrotation="90">'), "turned by 90 degrees"),
        (('sensorMaxU="122879"', 'sensorMaxU="1920"'), "not QTM"),
        (('active="1" point', 'active="0" point'), "no active video cameras.*Miqus M3"),
        (('r11="0"', 'r11="0.5"'), "is no rotation"),
        (('r11="0" r12="1"', 'r11="0" r12="-1"'), "mirrors"),
        (('skew="0"', 'skew="900"'), "skew of 14"),
        (('x="4000"', 'x="far"'), "'far', not a number"),
        (('x="4000"', ""), "has no 'x'"),
        (("<results", "<!DOCTYPE x><results"), "declares XML entities"),
        (("</calibration>", ""), r"export the calibration from QTM as text"),
    ],
)
def test_qualisys_files_that_cannot_be_right_are_refused(tmp_path, change, message):
    with pytest.raises(SourceError, match=message):
        read(qualisys(tmp_path, change))


# -------------------------------------------------------------------------------------- units


@pytest.mark.parametrize("make", [toml, plain_json])
def test_lengths_are_in_metres_or_in_what_is_said(tmp_path, make):
    with pytest.raises(
        SourceError, match=r"4210 m apart; give --unit cm \(42.1 m\) or --unit mm \("
    ):
        read(make(tmp_path, factor=1000.0))
    assert_sees(read(make(tmp_path, factor=1000.0), unit="mm"))
    with pytest.raises(SourceError, match=r"give --unit cm \(.+ or --unit mm \(0"):
        read(make(tmp_path, factor=100.0))
    assert_sees(read(make(tmp_path, factor=100.0), unit="cm"))
    with pytest.raises(SourceError, match="board of known size, or --unit m if"):
        read(make(tmp_path, factor=0.001))
    small = centres(read(make(tmp_path, factor=0.001), unit="m").cameras)
    assert_allclose(small, 0.001 * centres(read(make(tmp_path)).cameras), atol=1e-8)


def test_a_unit_that_is_none_is_refused(tmp_path):
    with pytest.raises(SourceError, match="'inch' is no unit of length; give one of m, cm, mm"):
        read(toml(tmp_path), unit="inch")


def test_the_format_s_own_unit_can_be_overruled(tmp_path):
    rig = read(qualisys(tmp_path), unit="cm")
    assert_allclose(centres(rig.cameras), [[40, 0, 10]], atol=1e-5)


# ---------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fisheye": "true"}, r"\[cam_1\]: has another lens model \(fisheye\)"),
        ({"distortions": [0.1, 0, 0, 0, 0, 0.2]}, "camera 01: has 6 distortion coefficients"),
        ({"matrix": [[900, 5, 1], [0, 900, 1], [0, 0, 1]]}, "camera 01: has a skew of 5 pixels"),
        ({"matrix": [[900, 0, 1], [0, -900, 1], [0, 0, 1]]}, "camera 01: its matrix is not"),
        ({"matrix": [[900, 0, 1], [0, 900]]}, "camera 01, camera matrix: has rows of several"),
        ({"rotation": [[1, 0], [0, 1]]}, "camera 01, rotation: has shape"),
        ({"translation": [0, "nan", 1]}, "camera 01, translation: is nan"),
        ({"translation": None}, r"\[cam_1\]: has no 'translation'"),
        ({"size": [0, 100]}, "both must be above 0"),
        ({"size": None}, "does not say how large the image of camera 01"),
        ({"name": '"cam2"'}, "two cameras are called 'cam2'"),
        ({"distortions": "]"}, "not readable TOML"),
    ],
)
def test_cameras_that_are_none_or_not_modelled_are_named(tmp_path, changes, message):
    changes = {
        k: str(v).replace("'nan'", "nan") if v is not None else v for k, v in changes.items()
    }
    with pytest.raises(SourceError, match=message):
        read(toml(tmp_path, **changes))


def test_zeros_beyond_five_coefficients_and_fewer_than_five_are_read(tmp_path):
    rig = read(toml(tmp_path, distortions=[-0.2, 0.1, 0.001, 0.002, 0.3, 0.0, 0.0, 0.0]))
    assert_allclose(rig.cameras.distortion[1], [-0.2, 0.1, 0.001, 0.002, 0.3])
    rig = read(toml(tmp_path, distortions=[-0.2, 0.1, 0.001, 0.002]))
    assert_allclose(rig.cameras.distortion[1], [-0.2, 0.1, 0.001, 0.002, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"distortion_model": "equidistant"}, "camera 01: has another lens model .equidistant"),
        ({"fisheye_model": 1}, "camera 01: has another lens model"),
        ({"R": None}, "camera 01: has no R or rvec; it has K, dist_coeffs, t, image_size"),
        ({"K": None}, "camera 01: has no camera_matrix"),
        ({"K": "wide"}, "camera_matrix: is not an array of numbers"),
        ({"K": {"rows": 3, "cols": 2, "data": [1] * 9}}, r"has 9 numbers, not 3\.0 x 2\.0"),
        ({"image_size": None}, "does not say how large"),
    ],
)
def test_json_that_is_no_rig_is_refused(tmp_path, change, message):
    def changed(table):
        camera = table["01"] | change
        return table | {"01": {k: v for k, v in camera.items() if v is not None}}

    with pytest.raises(SourceError, match=message):
        read(plain_json(tmp_path, changed))


def test_images_of_unknown_size_have_the_size_that_is_given(tmp_path):
    easymocap(tmp_path, sizes=False)
    with pytest.raises(SourceError, match="how large the image of camera cam2 is"):
        read(tmp_path)
    assert_sees(read(tmp_path, size=SIZE))


def test_easymocap_s_files_must_be_of_one_rig(tmp_path):
    easymocap(tmp_path)
    text = (tmp_path / "extri.yml").read_text()
    (tmp_path / "extri.yml").write_text(text.replace("cam10", "cam11"))
    with pytest.raises(SourceError, match=r"not those of intri\.yml"):
        read(tmp_path)
    (tmp_path / "extri.yml").unlink()
    with pytest.raises(SourceError, match=r"extri\.yml: cannot be read"):
        read(tmp_path)


def test_folders_hold_one_format_and_names_once(tmp_path):
    with pytest.raises(SourceError, match="holds no calibration"):
        read(tmp_path)
    with pytest.raises(SourceError, match="is not there"):
        read(tmp_path / "missing.toml")
    toml(tmp_path).rename(tmp_path / "old.toml")
    toml(tmp_path)
    with pytest.raises(SourceError, match=r"Calib.toml and .*old.toml: two cameras are called"):
        read(tmp_path)
    plain_json(tmp_path)
    with pytest.raises(SourceError, match="files of OpenCV and TOML; give one of them"):
        read(tmp_path)
    (tmp_path / "notes.md").write_text("")
    with pytest.raises(SourceError, match="no calibration that is known"):
        read(tmp_path / "notes.md")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_is_a_source_error(tmp_path_factory, data):
    """A byte changed, or the rest cut off: a rig all the same, or a `SourceError`."""
    folder = tmp_path_factory.mktemp("damaged")
    make = data.draw(st.sampled_from([toml, plain_json, qualisys, easymocap, opencv]))
    path = make(folder)
    if path.is_dir():
        path = path / data.draw(st.sampled_from(sorted(p.name for p in path.iterdir())))
    whole = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        whole[at] = data.draw(st.integers(0, 255))
    else:
        del whole[at:]
    path.write_bytes(whole)
    try:
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(read(path).cameras))
    except SourceError:
        event("refused")


# -------------------------------------------------------------------------- subset, and write


def test_a_subset_is_in_the_order_that_is_asked_for(tmp_path):
    rig = read(toml(tmp_path))
    assert_sees(subset(rig, ["cam10", "cam2"]), ("cam10", "cam2"))
    with pytest.raises(SourceError, match="no camera is called 'cam3'; there are cam2, 01, cam10"):
        subset(rig, ["cam2", "cam3"])
    for names in ([], ["01", "01"]):
        with pytest.raises(SourceError, match="give each once"):
            subset(rig, names)


@pytest.mark.parametrize("ending", ["npz", "toml"])
def test_what_is_written_is_read(tmp_path, ending):
    rig = read(toml(tmp_path))
    (tmp_path / "own").mkdir()
    write(tmp_path / f"own/rig.{ending}", rig)
    assert_sees(read(tmp_path / "own"))
    assert [path.name for path in (tmp_path / "own").iterdir()] == [f"rig.{ending}"]


def test_npz_holds_plain_arrays_and_keeps_the_other_tangential_factor(tmp_path):
    rig = read(toml(tmp_path))
    other = Rig(rig.names, rig.cameras.replace(tangential=np.ones(3, np.float32)))
    write(tmp_path / "rig.npz", other)
    with np.load(tmp_path / "rig.npz") as file:
        assert file["names"].tolist() == list(NAMES)
        assert_allclose(file["rotation"], rig.cameras.rotation)
        assert set(file) == {"names", *rig.cameras.__dataclass_fields__}
    assert_allclose(read(tmp_path / "rig.npz").cameras.tangential, 1)
    with pytest.raises(SourceError, match=r"camera cam2: its tangential distortion is not OpenCV"):
        write(tmp_path / "rig.toml", other)
    with pytest.raises(SourceError, match=r"as \.npz or \.toml"):
        write(tmp_path / "rig.json", rig)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["Calib.toml", "rig.npz"]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1),
        min_size=3, max_size=3, unique=True,
    ),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["npz", "toml"]),
)  # fmt: skip
def test_any_rig_comes_back(tmp_path_factory, names, seed, ending):
    rng = np.random.default_rng(seed)
    rotation = [cv2.Rodrigues(rng.uniform(-3, 3, 3))[0] for _ in names]
    cameras = cam.Camera(
        rotation=np.array(rotation, np.float32),
        translation=rng.uniform(1, 9, (3, 3)).astype(np.float32),
        focal=rng.uniform(500, 3000, (3, 2)).astype(np.float32),
        center=rng.uniform(100, 900, (3, 2)).astype(np.float32),
        distortion=rng.uniform(-0.3, 0.3, (3, 5)).astype(np.float32),
        tangential=np.full(3, 2, np.float32),
        size=rng.integers(100, 4000, (3, 2)).astype(np.float32),
    )
    path = tmp_path_factory.mktemp("rig") / f"rig.{ending}"
    write(path, Rig(tuple(names), cameras))
    found = read(path, unit="m")
    assert found.names == tuple(names)
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-6, atol=1e-6), found.cameras, cameras)


def test_every_ending_has_a_format():
    assert set(calibration._ENDINGS.values()) < set(calibration._FORMATS)


def test_cameras_follow_their_pictures_made_smaller_between_bars():
    """The pixel of a point moves as its picture did, whose edges are those of the outer pixels."""
    cameras = jax.tree.map(np.asarray, scenes.ring(3))
    rig = Rig(("a", "b", "c"), cameras)
    width, height = 1000.0, 1002.0
    dark = Picture(100.0, 50.0, width - 300, height - 90, width, height)  # a dark room, no bars
    pictures = [None, Picture(0.0, 7.0, 500.0, 501.0, 500.0, 515.0), dark]
    found, told = fitted(rig, pictures)
    assert len(told) == 1
    assert "b was calibrated for 1000 x 1002, its pictures are 500 x 501 pixels" in told[0]
    points = np.array([[0.3, -0.2, 1.1], [-0.5, 0.4, 0.2]], np.float32)
    project = jax.jit(jax.vmap(cam.project, in_axes=(None, 0)))
    for v, (scale, down) in enumerate([(1.0, 0.0), (0.5, 7.0), (1.0, 0.0)]):
        before, after = (
            np.asarray(project(jax.tree.map(lambda x, v=v: x[v], c), points))
            for c in (cameras, found.cameras)
        )
        assert_allclose(after, (before + 0.5) * scale - 0.5 + [0, down], atol=2e-3)
    assert_allclose(found.cameras.size[1], [500, 515])


def test_pictures_of_another_shape_leave_their_camera():
    rig = Rig(("a",), jax.tree.map(np.asarray, scenes.ring(1)))
    found, told = fitted(rig, [Picture(0.0, 0.0, 1000.0, 900.0, 1000.0, 900.0)])
    assert "left as it is" in told[0]
    assert_allclose(found.cameras.center, rig.cameras.center)
