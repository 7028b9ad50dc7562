"""Binary glTF 2.0 files: skeletons, skins, meshes and what moves them, through pygltflib."""

from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from pose3d_jax import body as bodies
from pose3d_jax import errors

# From our axes (z up) to those of glTF and most animation software (y up): a quarter turn about x.
Y_UP = Rotation.from_euler("x", -90, degrees=True)


def continuous(quaternions: Float[np.ndarray, "time joints 4"]) -> Float[np.ndarray, "..."]:
    """Of each turn's two quaternions the one nearer to that of the frame before."""
    inner = np.sum(quaternions[1:] * quaternions[:-1], axis=-1)
    sign = np.cumprod(np.where(inner < 0, -1.0, 1.0), axis=0)
    return np.concatenate([quaternions[:1], quaternions[1:] * sign[..., None]])


def pygltflib() -> Any:
    """The library. Raises `UserError` without it."""
    return errors.library("pygltflib", "files", "glTF")


class Gltf:
    """A file as it grows: arrays go to the end of one buffer."""

    def __init__(self) -> None:
        self.lib = pygltflib()
        self.gltf = self.lib.GLTF2(asset=self.lib.Asset(generator="pose3d_jax"))
        self.gltf.scene = 0
        self.gltf.scenes.append(self.lib.Scene(nodes=[]))
        self.data = bytearray()

    def array(self, values: np.ndarray, kind: str, target: int | None = None) -> int:
        """The accessor of an array; its rows are a scalar, a vector or a matrix."""
        types = {"f": self.lib.FLOAT, "H": self.lib.UNSIGNED_SHORT, "I": self.lib.UNSIGNED_INT}
        plain = np.ascontiguousarray(values, {"f": "<f4", "H": "<u2", "I": "<u4"}[kind])
        shapes = {(): "SCALAR", (3,): "VEC3", (4,): "VEC4", (4, 4): "MAT4"}
        view = self.lib.BufferView(
            buffer=0, byteOffset=len(self.data), byteLength=plain.nbytes, target=target
        )
        self.data += plain.tobytes() + b"\0" * (-plain.nbytes % 4)
        self.gltf.bufferViews.append(view)
        bounds = {}
        if kind == "f" and plain.ndim < 3:
            rows = plain.reshape(len(plain), -1)
            bounds = {"min": rows.min(axis=0).tolist(), "max": rows.max(axis=0).tolist()}
        accessor = self.lib.Accessor(
            bufferView=len(self.gltf.bufferViews) - 1,
            componentType=types[kind],
            count=len(plain),
            type=shapes[plain.shape[1:]],
            **bounds,
        )
        self.gltf.accessors.append(accessor)
        return len(self.gltf.accessors) - 1

    def node(self, **fields: Any) -> int:
        """A node of the scene; its number."""
        self.gltf.nodes.append(self.lib.Node(**fields))
        number = len(self.gltf.nodes) - 1
        self.gltf.scenes[0].nodes.append(number)
        return number

    def skeleton(
        self,
        offsets: np.ndarray,
        parents: tuple[int, ...],
        turn: np.ndarray,
        names: tuple[str, ...] | None = None,
        whole: str = "world",
    ) -> list[int]:
        """Nodes of the joints, parents first, below one (`whole`) that turns all of them."""
        world = self.node(name=whole, rotation=turn.tolist(), children=[])
        first = world + 1
        names = names or tuple(f"joint_{number}" for number in range(len(offsets)))
        for number, (name, offset) in enumerate(zip(names, offsets, strict=True)):
            node = self.lib.Node(name=name, translation=offset.tolist(), children=[])
            self.gltf.nodes.append(node)
            above = world if parents[number] < 0 else first + parents[number]
            self.gltf.nodes[above].children.append(first + number)
        return list(range(first, first + len(offsets)))

    def mesh(
        self,
        rest: np.ndarray,
        faces: np.ndarray,
        weights: np.ndarray,
        morphs: np.ndarray | None,
    ) -> int:
        """A skinned mesh; every vertex follows as many joints as the one that follows most."""
        attributes = {"POSITION": self.array(rest, "f", self.lib.ARRAY_BUFFER)}
        attributes["NORMAL"] = self.array(bodies.normals(rest, faces), "f", self.lib.ARRAY_BUFFER)
        most = int((weights > 0).sum(axis=1).max())
        order = np.argsort(-weights, axis=1, kind="stable")[:, : 4 * -(-most // 4)]
        order = np.pad(order, ((0, 0), (0, -order.shape[1] % 4)))
        share = np.take_along_axis(weights, order, axis=1)
        share[:, weights.shape[1] :] = 0.0  # of what was padded
        order = np.where(share > 0, order, 0)
        for group in range(order.shape[1] // 4):
            part = slice(4 * group, 4 * group + 4)
            attributes[f"JOINTS_{group}"] = self.array(order[:, part], "H", self.lib.ARRAY_BUFFER)
            attributes[f"WEIGHTS_{group}"] = self.array(share[:, part], "f", self.lib.ARRAY_BUFFER)
        indices = self.array(faces.reshape(-1), "I", self.lib.ELEMENT_ARRAY_BUFFER)
        targets = [
            {"POSITION": self.array(t, "f", self.lib.ARRAY_BUFFER)}
            for t in (morphs if morphs is not None else ())
        ]
        primitive = self.lib.Primitive(
            attributes=self.lib.Attributes(**attributes), indices=indices, material=0
        )
        if targets:
            primitive.targets = targets
        surface = self.lib.PbrMetallicRoughness(
            baseColorFactor=[0.62, 0.71, 0.82, 1.0], metallicFactor=0.0, roughnessFactor=0.7
        )
        self.gltf.materials.append(self.lib.Material(pbrMetallicRoughness=surface))
        self.gltf.meshes.append(
            self.lib.Mesh(primitives=[primitive], weights=[0.0] * len(targets) or None)
        )
        return len(self.gltf.meshes) - 1

    def skin(self, joints: list[int], offsets: np.ndarray) -> int:
        """What binds the mesh at rest to the joints."""
        inverse = np.tile(np.eye(4), (len(joints), 1, 1))
        inverse[:, 3, :3] = offsets  # column by column
        matrices = self.array(inverse, "f")
        self.gltf.skins.append(
            self.lib.Skin(joints=joints, skeleton=joints[0], inverseBindMatrices=matrices)
        )
        return len(self.gltf.skins) - 1

    def animation(self, times: np.ndarray, moves: dict[tuple[int, str], np.ndarray]) -> None:
        """What moves nodes: by node and path one row a frame."""
        clock = self.array(times, "f")
        animation = self.lib.Animation(name="motion", channels=[], samplers=[])
        for (node, path), values in moves.items():
            sampler = self.lib.AnimationSampler(
                input=clock, output=self.array(values, "f"), interpolation="LINEAR"
            )
            animation.samplers.append(sampler)
            target = self.lib.AnimationChannelTarget(node=node, path=path)
            number = len(animation.samplers) - 1
            animation.channels.append(self.lib.AnimationChannel(sampler=number, target=target))
        self.gltf.animations.append(animation)

    def whole(self) -> bytes:
        """The file."""
        self.gltf.buffers.append(self.lib.Buffer(byteLength=len(self.data)))
        self.gltf.set_binary_blob(bytes(self.data))
        return b"".join(self.gltf.save_to_bytes())
