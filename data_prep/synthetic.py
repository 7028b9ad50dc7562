"""A procedural dataset that needs no files: five people walk, jog, box and move at will.

    python -m data_prep.synthetic --output DIR
    python -m data_prep.synthetic --output DIR --scale 0.02     # tiny, for tests

About 7,200 training, 1,100 validation and 1,500 test frames at 30 fps. The people of the test split
are not in the others. The same seed gives the same numbers on the same machine.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_prep import rigs, writer
from data_prep.articulated import SKELETON, Body
from data_prep.body_motion import MOTIONS
from data_prep.bones import check_bone_lengths
from pose3d_jax.errors import UserError
from pose3d_jax.schema import Clip, Identity, Labels, Record

NAME = "synthetic"
FPS = 30.0

BODIES = {
    "S1": Body(height=1.78),
    "S2": Body(height=1.62, legs=1.03, arms=0.97, width=0.95),
    "S3": Body(height=1.90, legs=0.98, arms=1.03, width=1.06),
    "S4": Body(height=1.55, legs=0.97, arms=1.02, width=1.02),
    "S5": Body(height=1.95, legs=1.04, arms=0.98, width=0.97),
}

# split -> (subjects, clips of each subject and action, frames of a clip at scale 1)
_SPLITS = {
    "train": (("S1", "S2", "S3"), 2, 300),
    "validation": (("S1", "S2", "S3"), 1, 90),
    "test": (("S4", "S5"), 1, 190),
}
_FEWEST_FRAMES = 8


def records(
    seed: int = 0, scale: float = 1.0, rig: str = "humaneva", cameras: Sequence[str] | None = None
) -> dict[str, list[Record]]:
    """The records of each split.

    Args:
      seed: of everything random.
      scale: factor on the frames of each clip (8 at least); the number of clips stays.
      rig: see `rigs.load_rig`; the people take turns in the set-ups of its subjects.
      cameras: names of the rig's cameras to use; all by default.

    Raises:
      rigs.RigError: there is no such rig or camera.
      UserError: the scale is not positive.
    """
    if scale <= 0:
        raise UserError(f"the scale is {scale}, but it must be positive")
    setups = rigs.subjects(rig)
    by_split: dict[str, list[Record]] = {}
    for number, (split, (subjects, clips, frames)) in enumerate(_SPLITS.items()):
        found = by_split[split] = []
        time = np.arange(max(_FEWEST_FRAMES, round(frames * scale))) / FPS
        for subject in subjects:
            setup = setups[list(BODIES).index(subject) % len(setups)]
            filming, camera_names = rigs.load_rig(rig, setup, cameras)
            for action, motion in MOTIONS.items():
                for take in range(clips):
                    # A clip's numbers depend on its own place alone, not on the clips before it.
                    rng = np.random.default_rng([seed, number, len(found)])
                    joints = motion(rng, BODIES[subject], time).astype(np.float32)
                    name = f"{split}_{subject}_{action}_{take}"
                    check_bone_lengths(joints, SKELETON, name)
                    identity = Identity(
                        dataset=NAME,
                        subject=subject,
                        action=action,
                        clip=name,
                        recording=f"{rig}_{setup}",
                        camera_names=camera_names,
                        start=0,
                        group=action,
                        split=split,
                        fps=FPS,
                        keypoint_skeleton=SKELETON.name,
                        joint_skeleton=SKELETON.name,
                        keypoint_source="projected",
                    )
                    labels = Labels(joints, np.ones(joints.shape[:2], np.float32))
                    clip = Clip(rigs.film(joints, filming), labels, np.int32(-1))
                    found.append(Record(clip, identity))
    return by_split


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m data_prep.synthetic")
    parser.add_argument("--output", type=Path, required=True, help="folder of the dataset")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the frames of a clip")
    parser.add_argument("--rig", default="humaneva", help="humaneva or human36m")
    parser.add_argument("--cameras", nargs="+", metavar="NAME", help="default: all of the rig")
    parser.add_argument("--overwrite", action="store_true", help="replace the dataset in --output")
    args = parser.parse_args(arguments)
    try:
        by_split = records(args.seed, args.scale, args.rig, args.cameras)
        description = (
            f"Procedural people, filmed by the rig {args.rig}; seed {args.seed}, scale {args.scale}"
        )
        proof = writer.write(
            args.output,
            NAME,
            by_split,
            description=description,
            terms="Made by a program of no real person's data; free for any use.",
            overwrite=args.overwrite,
        )
    except (UserError, FileExistsError) as error:
        parser.exit(1, f"error: {error}\n")
    print(proof.text(NAME, args.output))


if __name__ == "__main__":
    main()
