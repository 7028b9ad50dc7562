"""CMU's originals from a server of the tests' own to a data set."""

import json
import os
from pathlib import Path

import pytest

from data_prep import cmu
from pose3d_jax.data import poses
from tests.data_prep.serving import cut_short

ROOT = Path(__file__).parents[2]
REAL = Path(os.environ.get("POSE3D_REAL_DATA", ROOT / "../shared/data")) / "cmu"

# A person of plausible bones, standing stiffly: bone -> (parent, direction, length in metres), with
# the names and the tree of the rig `amc`.
BONES = {
    "lowerback": ("root", (0, 1, 0), 0.12),
    "upperback": ("lowerback", (0, 1, 0), 0.12),
    "thorax": ("upperback", (0, 1, 0), 0.20),
    "lowerneck": ("thorax", (0, 1, 0), 0.06),
    "upperneck": ("lowerneck", (0, 1, 0), 0.06),
    "head": ("upperneck", (0, 1, 0), 0.16),
}
for side, sign in (("l", 1), ("r", -1)):
    BONES |= {
        f"{side}hipjoint": ("root", (sign, 0, 0), 0.11),
        f"{side}femur": (f"{side}hipjoint", (0, -1, 0), 0.42),
        f"{side}tibia": (f"{side}femur", (0, -1, 0), 0.42),
        f"{side}foot": (f"{side}tibia", (0, 0, 1), 0.12),
        f"{side}toes": (f"{side}foot", (0, 0, 1), 0.06),
        f"{side}clavicle": ("thorax", (sign, 0, 0), 0.17),
        f"{side}humerus": (f"{side}clavicle", (sign, 0, 0), 0.28),
        f"{side}radius": (f"{side}humerus", (sign, 0, 0), 0.22),
        f"{side}wrist": (f"{side}radius", (sign, 0, 0), 0.05),
        f"{side}hand": (f"{side}wrist", (sign, 0, 0), 0.05),
        f"{side}fingers": (f"{side}hand", (sign, 0, 0), 0.05),
        f"{side}thumb": (f"{side}wrist", (0, 0, 1), 0.05),
    }


def asf():
    bones = "".join(
        f"begin\nid {i}\nname {name}\ndirection {x} {y} {z}\nlength {metres * 0.45 / 0.0254}\n"
        "axis 0 0 0 XYZ\nend\n"
        for i, (name, (_, (x, y, z), metres)) in enumerate(BONES.items(), start=1)
    )
    tree = "".join(f"{parent} {name}\n" for name, (parent, _, _) in BONES.items())
    return (
        "# made up\n:version 1.10\n:units\nmass 1.0\nlength 0.45\nangle deg\n:root\n"
        "order TX TY TZ RX RY RZ\naxis XYZ\nposition 0 0 0\norientation 0 0 0\n"
        f":bonedata\n{bones}:hierarchy\nbegin\n{tree}end\n"
    ).encode()


def amc(frames):
    walk = (f"{i}\nroot {i / 1000} 17 0 0 {i / 10} 0\n" for i in range(1, frames + 1))
    return ("#!made up\n:FULLY-SPECIFIED\n:DEGREES\n" + "".join(walk)).encode()


def originals():
    """Made-up files for all `amc/` clips of the benchmark, by their names on the server."""
    files = {}
    for spec in cmu.benchmark()["segments"]:
        rig, _, trial = spec["clip"].partition("/")
        if rig == "amc":
            subject = trial.partition("_")[0]
            files[f"{subject}/{subject}.asf"] = asf()
            frames = 4 * spec["stop"]
            name = f"{subject}/{trial}.amc"
            files[name] = max(files.get(name, b""), amc(frames), key=len)
    return files


def run(server, tmp_path, *more):
    cmu.main(["--download", str(tmp_path / "cmu"), "--url", server.url, "--out",
              str(tmp_path / "set"), "--cameras", "54138969", *more])  # fmt: skip


def test_from_the_server_to_a_data_set(server, tmp_path, capsys):
    """Cut off by the server half-way, taken up again, and the same as from the files themselves."""
    server.files = originals()
    assert len(server.files) == 3 + 28
    lost = "02/02_03.amc"
    server.faults[lost] = [cut_short] * 3
    with pytest.raises(SystemExit):
        run(server, tmp_path, "--allow_partial")
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{cmu.TERMS}\n{cmu.CITATION}\nThe server has the originals of")
    assert f"\nerror: {server.url}/{lost}: only " in printed.err
    assert not (tmp_path / "set").exists()
    folder = tmp_path / "cmu" / "asfamc"
    came = {path: path.stat().st_mtime_ns for path in folder.glob("*/*.a??")}
    assert 0 < len(came) < 31

    (folder / "01" / ".01_05.amc.7.part").write_bytes(b"what a kill leaves")
    run(server, tmp_path, "--allow_partial")
    assert capsys.readouterr().out.splitlines()[3].startswith("cmu_mv_v1_partial in ")
    assert {path: path.stat().st_mtime_ns for path in came} == came
    found = {path.relative_to(folder).as_posix(): path for path in folder.glob("*/*.a??")}
    assert {name: path.read_bytes() for name, path in found.items()} == server.files
    amc_segments = [s for s in cmu.benchmark()["segments"] if s["clip"].startswith("amc/")]
    read = [
        record.identity.clip
        for split in sorted({spec["split"] for spec in amc_segments})
        for record in poses.read_split(tmp_path / "set", split)
    ]
    assert sorted(read) == sorted(spec["name"] for spec in amc_segments)

    cmu.main(["--originals", str(tmp_path / "cmu"), "--out", str(tmp_path / "same"),
              "--cameras", "54138969", "--allow_partial"])  # fmt: skip
    tables = [(tmp_path / name / "checksums.json").read_text() for name in ("set", "same")]
    assert tables[0] == tables[1]


def test_what_the_server_lacks_is_said_before_anything_is_fetched(server, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(server, tmp_path)
    message = " ".join(capsys.readouterr().err.split())
    assert "the BVH files of subject 131 and the dances and martial arts (daz/)" in message
    assert "Give --positions as well, or --allow_partial" in message
    assert not server.asked
    with pytest.raises(SystemExit):
        run(server, tmp_path, "--allow_partial", "--originals", str(tmp_path))
    assert "not allowed with argument --download" in capsys.readouterr().err


@pytest.mark.skipif(
    not (REAL / "cmu_positions_30fps.npz").exists(),
    reason=f"no real data in {REAL}; set POSE3D_REAL_DATA",
)
def test_real_files_beside_the_positions(server, tmp_path, monkeypatch, capsys):
    """Subject 03's clips come from the server, the rest from the positions; without a partial."""
    whole = cmu.benchmark()
    few = [s for s in whole["segments"] if s["clip"].startswith(("amc/03_01", "bvh131"))]
    monkeypatch.setattr(cmu, "benchmark", lambda: json.loads(json.dumps(whole | {"segments": few})))
    server.files = {
        f"03/{path.name}": path.read_bytes() for path in (REAL / "asfamc/03").glob("03*")
    }
    run(server, tmp_path, "--positions", str(REAL / "cmu_positions_30fps.npz"))
    assert server.asked == ["03/03.asf", "03/03_01.amc"]
    assert "\ncmu_mv_v1 in " in capsys.readouterr().out
    clips = {record.identity.clip for record in poses.read_split(tmp_path / "set", "test_unseen")}
    assert clips == {spec["name"] for spec in few}
