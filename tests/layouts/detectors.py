"""Files of keypoints, as detectors write them, and how they are read back."""

import json

import numpy as np

from pose3d_jax.formats import keypoints

RNG = np.random.default_rng(0)
SETS = {17: "coco17", 18: "coco18", 25: "body25", 26: "halpe26"}


def person(joints=25):
    points = np.concatenate([RNG.uniform(0, 500, (joints, 2)), RNG.uniform(size=(joints, 1))], 1)
    points[3] = 0
    return np.round(points, 5)


def save(path, table):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(table))
    return path


def write(
    folder, frame, people, key="pose_keypoints_2d", video="a_video", end="_keypoints", ids=()
):
    ids = [*ids] or [-1] * len(people)
    table = {
        "version": 1.3,
        "people": [
            {"person_id": [i], key: p.ravel().tolist(), "face_keypoints_2d": []}
            for i, p in zip(ids, people, strict=True)
        ],
    }
    save(folder / f"{video}_{frame:012d}{end}.json", table)


def only(path, **more):
    (found,) = keypoints.read(path, **more).values()
    return found


def entry(image, points, **more):
    flat = points.ravel().tolist()
    return {"image_id": image, "category_id": 1, "keypoints": flat, "score": 2.9, **more}


def instance(points):
    xy, score = points[:, :2].tolist(), points[:, 2].tolist()
    return {"keypoints": xy, "keypoint_scores": score, "bbox": [[0, 0, 9, 9]], "bbox_score": 0.9}


def archive(frames=3, views=2, people=()):
    shape = (frames, views, *people, 17)
    return {
        "keypoints": RNG.uniform(0, 500, (*shape, 2)),
        "confidence": RNG.uniform(0.1, 1, shape),
        "skeleton": "coco17",
        "views": ["left", "right"][:views],
    }
