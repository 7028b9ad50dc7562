"""Critics: kinematic chain space against a direct computation, and what a critic may depend on."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation

from pose3d_jax import skeleton
from pose3d_jax.models.critic import (
    BodyCritic,
    BoneCritic,
    Critic,
    Regressor,
    kinematic_chain_space,
)

H36M = skeleton.get("h36m17")


def poses(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(*shape, 17, 3)).astype(np.float32)


def test_kinematic_chain_space_is_the_product_of_the_bones():
    joints = poses(2, 3)
    # The paper's form: X [3, joints], C [joints, bones] with 1 at one end of a bone, -1 at the
    # other, and psi = C^T X^T X C.
    ends = np.zeros((17, 16))
    for bone, (parent, child) in enumerate(H36M.bones):
        ends[[parent, child], bone] = -1, 1
    found = np.asarray(kinematic_chain_space(jnp.asarray(joints), H36M))
    for row in np.ndindex(2, 3):
        x = joints[row].T.astype(np.float64)
        np.testing.assert_allclose(found[row], ends.T @ x.T @ x @ ends, atol=1e-5)


def test_kinematic_chain_space_has_squared_lengths_and_cosines():
    joints = poses()
    found = np.asarray(kinematic_chain_space(jnp.asarray(joints), H36M))
    thigh, shin = (H36M.bones.index(bone) for bone in ((1, 2), (2, 3)))
    a, b = joints[2] - joints[1], joints[3] - joints[2]
    np.testing.assert_allclose(found[thigh, thigh], np.linalg.norm(a) ** 2, rtol=1e-5)
    cosine = found[thigh, shin] / np.sqrt(found[thigh, thigh] * found[shin, shin])
    np.testing.assert_allclose(
        np.arccos(cosine), np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b), rtol=1e-4
    )


def test_a_critic_says_of_a_row_what_it_says_of_it_alone():
    joints = jnp.asarray(poses(2, 3))
    for critic, x in ((BoneCritic(H36M, 16, 1), joints), (Critic(16, 1), joints[..., 0])):
        variables = jax.jit(critic.init)(jax.random.key(0), x)
        found = critic.apply(variables, x)
        alone = critic.apply(variables, x[1, 2])
        assert found.shape == (2, 3)
        np.testing.assert_allclose(found[1, 2], alone, rtol=1e-4, atol=1e-5)


def test_a_regressor_starts_near_zero():
    x = jnp.asarray(poses(8)).reshape(8, -1)
    net = Regressor(4, 32, 2)
    found = net.apply(jax.jit(net.init)(jax.random.key(0), x), x)
    assert found.shape == (8, 4)
    assert 0 < np.abs(found).max() < 0.3


def test_a_body_s_critics_see_what_they_are_named_for():
    """Each joint's its rotation, the pose's all but the root's, the shape's the shape alone."""
    rng = np.random.default_rng(0)
    turns = jnp.asarray(Rotation.random(2 * 6, random_state=0).as_matrix(), jnp.float32)
    turns, shape = turns.reshape(2, 6, 3, 3), jnp.asarray(rng.normal(size=(2, 4)), jnp.float32)
    critic = BodyCritic(width=16)
    variables = jax.jit(critic.init)(jax.random.key(0), turns, shape)
    run = jax.jit(lambda *body: critic.apply(variables, *body))
    first = run(turns, shape)
    assert first.shape == (2, 7)  # five joints, the pose, the shape

    def changed(*body):
        return np.flatnonzero(np.abs(run(*body) - first)[1] > 1e-6).tolist()

    assert changed(turns.at[1, 0].set(jnp.eye(3)), shape) == []
    assert changed(turns.at[1, 3].set(jnp.eye(3)), shape) == [2, 5]
    assert changed(turns, shape.at[1].add(1.0)) == [6]
    # Joints share what is looked for, and weigh it by themselves.
    same = run(turns.at[1, 1:].set(turns[1, 1]), shape)[1, :5]
    assert len(np.unique(np.round(same, 6))) == 5
