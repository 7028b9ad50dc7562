"""CMU-MV v1: real motion capture of the CMU Graphics Lab, filmed by a published camera rig.

    python -m data_prep.cmu --positions cmu_positions_30fps.npz --output DIR
    python -m data_prep.cmu --originals FOLDER --allow_partial --output DIR
    python -m data_prep.cmu --download FOLDER --allow_partial --output DIR

FOLDER holds `asfamc/SS/SS.asf`, `asfamc/SS/SS_NN.amc` and `bvh/SS_NN.bvh`, all at 120 fps;
`--download` fetches its `asfamc/` first, which is all that the laboratory's server has. The
segments, groups and splits are those of `cmu_mv_v1.json`, the joints those of `cmu_rigs.json`.
"""

import argparse
import json
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_prep import motion_files, rigs, writer
from data_prep.bones import check_bone_lengths
from data_prep.download import fetch
from pose3d_jax import skeleton
from pose3d_jax.cameras import Camera
from pose3d_jax.errors import UserError
from pose3d_jax.schema import Clip, Identity, Labels, Record
from pose3d_jax.sources import SourceError

NAME = "cmu_mv_v1"
SPLITS = ("train", "validation", "test_seen", "test_unseen")
TERMS = "Free for research and commercial use; may not be resold, even in converted form."
CITATION = (
    "The data used in this project was obtained from mocap.cs.cmu.edu. "
    "The database was created with funding from NSF EIA-0196217."
)
SERVER = "http://mocap.cs.cmu.edu/subjects"
NOT_ON_SERVER = (
    "The server has the originals of the amc/ clips alone; the BVH files of subject 131 and the "
    "dances and martial arts (daz/) are not there. Give --positions as well, or --allow_partial to "
    "go on without them."
)

_HERE = Path(__file__).parent
_STEP = 4  # 120 fps to 30 fps
_BVH_SCALE = 0.0254 / 0.45  # metres per unit, as the ASF files of the same motions say
_DAZ_HEAD = 0.20  # metres from the joint `head` to the top, along neck to head

# A clip's positions `[T, joints of its rig, 3]` (metres, y up), read when they are needed.
Sources = Mapping[str, Callable[[], np.ndarray]]


def benchmark() -> dict:
    """The benchmark's definition: fps and segments (clip, frames, centre, group, split)."""
    return json.loads((_HERE / "cmu_mv_v1.json").read_text())


def _rigs() -> dict:
    return json.loads((_HERE / "cmu_rigs.json").read_text())


def rig_joints(rig: str) -> list[str]:
    """Names of a source rig's joints, in the order of its positions."""
    return _rigs()["rigs"][rig]["joints"]


def load_positions(path: Path) -> Sources:
    """The clips of the published positions at 30 fps (npz). Raises `SourceError`."""
    try:
        archive = np.load(path, allow_pickle=False)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise SourceError(f"{path}: is not a readable npz file ({error})") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise SourceError(f"{path}: is a single array, not an npz archive of clips")
    return {clip: partial(_read_array, archive, clip, path) for clip in archive.files}


def _read_array(archive: np.lib.npyio.NpzFile, clip: str, path: Path) -> np.ndarray:
    try:
        return archive[clip]
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise SourceError(f"{path}: {clip} cannot be read ({error}); fetch it again") from error


def download_originals(folder: Path, server: str) -> None:
    """Fetches the originals of the `amc/` clips into `folder/asfamc/`. Raises `SourceError`.

    What an earlier call left there whole is kept.
    """
    clips = {spec["clip"] for spec in benchmark()["segments"]}
    trials = sorted(clip.removeprefix("amc/") for clip in clips if clip.startswith("amc/"))
    subjects = sorted({trial.partition("_")[0] for trial in trials})
    names = [f"{subject}/{subject}.asf" for subject in subjects]
    names += [f"{trial.partition('_')[0]}/{trial}.amc" for trial in trials]
    with tqdm(names, desc="download", unit="file") as bar:
        for name in bar:
            # Both kinds begin with a comment or a keyword.
            fetch(f"{server.rstrip('/')}/{name}", folder / "asfamc" / name, (b"#", b":"))


def load_originals(folder: Path) -> Sources:
    """The clips of the original AMC and BVH files. Raises `SourceError` if there are none."""
    sources: dict[str, Callable[[], np.ndarray]] = {}
    for amc in sorted(folder.glob("asfamc/*/*_*.amc")):
        asf = amc.with_name(f"{amc.parent.name}.asf")
        read = partial(motion_files.read_amc, asf, amc, step=_STEP)
        sources[f"amc/{amc.stem}"] = partial(_in_rig_order, f"amc/{amc.stem}", read)
    for bvh in sorted(folder.glob("bvh/131_*.bvh")):
        read = partial(motion_files.read_bvh, bvh, scale=_BVH_SCALE, step=_STEP)
        sources[f"bvh131/{bvh.stem}"] = partial(_in_rig_order, f"bvh131/{bvh.stem}", read)
    if not sources:
        raise SourceError(
            f"{folder}: found neither asfamc/SS/SS_NN.amc nor bvh/131_NN.bvh; give the folder "
            f"that holds asfamc/ and bvh/"
        )
    return sources


def _in_rig_order(clip: str, read: Callable[[], motion_files.Motion]) -> np.ndarray:
    motion = read()
    wanted = rig_joints(clip.partition("/")[0])
    missing = [joint for joint in wanted if joint not in motion.joints]
    if missing:
        raise SourceError(f"{clip}: its file has no joint {', '.join(missing)}")
    return motion.positions[:, [motion.joints.index(joint) for joint in wanted]]


def reduce(positions: np.ndarray, rig: str) -> np.ndarray:
    """Positions `[T, joints, 3]` of a source rig, y up, to h36m17 `[T, 17, 3]`, z up (metres)."""
    table = _rigs()
    joints = table["rigs"][rig]["joints"]
    if positions.ndim != 3 or positions.shape[1:] != (len(joints), 3):
        raise SourceError(
            f"positions of rig {rig} have shape {positions.shape}, expected [T, {len(joints)}, 3]"
        )
    point = {name: positions[:, i].astype(float) for i, name in enumerate(joints)}
    if rig == "daz":  # the only joint that the rig does not have
        up = point["head"] - point["neck"]
        top = point["head"] + _DAZ_HEAD * up / np.linalg.norm(up, axis=-1, keepdims=True)
        point[None] = top  # type: ignore[index]  # JSON's null
    reduced = np.stack([point[name] for name in table["h36m17"]["from"][rig]], axis=1)
    x, y, z = np.moveaxis(reduced, -1, 0)
    return np.stack([x, -z, y], axis=-1)


def segments(sources: Sources, *, allow_partial: bool = False) -> list[tuple[dict, np.ndarray]]:
    """The benchmark's segments, each with its joints `[T, 17, 3]` (float32, metres, z up, centred).

    Raises:
      SourceError: clips are missing and `allow_partial` is off, or a clip is too short.
      BoneLengthError: a reduced skeleton is no person's.
    """
    specs = benchmark()["segments"]
    missing = sorted({spec["clip"] for spec in specs} - sources.keys())
    if missing and not allow_partial:
        raise SourceError(
            f"{len(missing)} clips of the benchmark are missing: {', '.join(missing)}; pass "
            f"--allow_partial to go on without them"
        )
    h36m17 = skeleton.get("h36m17")
    cut = []
    reduced: dict[str, np.ndarray] = {}
    for spec in specs:
        clip = spec["clip"]
        if clip in missing:
            continue
        if clip not in reduced:
            reduced = {clip: reduce(sources[clip](), clip.partition("/")[0])}
            check_bone_lengths(reduced[clip], h36m17, clip)
        if len(reduced[clip]) < spec["stop"]:
            raise SourceError(
                f"{clip}: has {len(reduced[clip])} frames at 30 fps, but segment {spec['name']} "
                f"ends at {spec['stop']}; its file is not whole, fetch it again"
            )
        joints = reduced[clip][spec["start"] : spec["stop"]] - [*spec["center_xy"], 0.0]
        cut.append((spec, joints.astype(np.float32)))
    if not cut:
        raise SourceError("none of the benchmark's clips is there")
    return cut


def records(
    cut: Sequence[tuple[dict, np.ndarray]],
    cameras: Camera,
    camera_names: tuple[str, ...],
    *,
    dataset: str,
    recording: str,
) -> dict[str, list[Record]]:
    """The segments of `segments`, filmed by cameras `[V]`, as records by split."""
    fps = float(benchmark()["fps"])
    by_split: dict[str, list[Record]] = {split: [] for split in SPLITS}
    for spec, joints in cut:
        rig, _, trial = spec["clip"].partition("/")
        number = trial.partition("_")[0]
        # The dances and martial arts come by style, without a performer; the others by subject and
        # trial, without a label of what is done.
        subject, action = (f"daz_{number}", number) if rig == "daz" else (number, trial)
        identity = Identity(
            dataset=dataset,
            subject=subject,
            action=action,
            clip=spec["name"],
            recording=recording,
            camera_names=camera_names,
            start=spec["start"],
            group=spec["group"],
            split=spec["split"],
            fps=fps,
            keypoint_skeleton="h36m17",
            joint_skeleton="h36m17",
            keypoint_source="projected",
        )
        labels = Labels(joints, np.ones(joints.shape[:2], np.float32))
        clip = Clip(rigs.film(joints, cameras), labels, np.int32(-1))
        by_split[spec["split"]].append(Record(clip, identity))
    return {split: found for split, found in by_split.items() if found}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.cmu", description=f"{CITATION} {TERMS}"
    )
    parser.add_argument("--positions", type=Path, help="cmu_positions_30fps.npz")
    originals = parser.add_mutually_exclusive_group()
    originals.add_argument("--originals", type=Path, help="folder with asfamc/ and bvh/")
    originals.add_argument(
        "--download",
        type=Path,
        metavar="FOLDER",
        help=f"fetch FOLDER/asfamc/, then go on as --originals FOLDER. {NOT_ON_SERVER}",
    )
    parser.add_argument("--url", default=SERVER, help="where --download finds SS/SS_NN.amc")
    parser.add_argument("--output", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--rig", default="human36m", help="human36m or humaneva")
    parser.add_argument("--subject", default="S1", help="whose set-up of the rig")
    parser.add_argument("--cameras", nargs="+", metavar="NAME", help="default: all of the rig")
    parser.add_argument("--allow_partial", action="store_true", help="go on if clips are missing")
    parser.add_argument("--overwrite", action="store_true", help="replace the dataset in --output")
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = _parser()
    args = parser.parse_args(arguments)
    if not (args.positions or args.originals or args.download):
        parser.error("give --positions, --originals, or both (originals go first), or --download")
    if args.download and not (args.positions or args.allow_partial):
        parser.error(NOT_ON_SERVER)
    try:
        sources: dict[str, Callable[[], np.ndarray]] = {}
        if args.positions:
            sources.update(load_positions(args.positions))
        if args.download:
            print(f"{TERMS}\n{CITATION}\n{NOT_ON_SERVER}", flush=True)
            download_originals(args.download, args.url)
        if args.originals or args.download:
            sources.update(load_originals(args.originals or args.download))
        cameras, names = rigs.load_rig(args.rig, args.subject, args.cameras)
        cut = segments(sources, allow_partial=args.allow_partial)
        complete = len(cut) == len(benchmark()["segments"])
        dataset = NAME if complete else f"{NAME}_partial"
        recording = f"{args.rig}_{args.subject}"
        by_split = records(cut, cameras, names, dataset=dataset, recording=recording)
        proof = writer.write(
            args.output,
            dataset,
            by_split,
            description=f"{benchmark()['name']}, filmed by {recording}: {benchmark()['rule']}",
            citation=CITATION,
            terms=TERMS,
            overwrite=args.overwrite,
        )
    except (UserError, FileExistsError) as error:
        parser.exit(1, f"error: {error}\n")
    print(proof.text(dataset, args.output))


if __name__ == "__main__":
    main()
