"""The sinusoid's waves, data sets and one-step episodes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_envs
from jaxrl_envs import check_env
from jaxrl_envs.sinusoid import Sinusoid, SinusoidParams, SinusoidState
from tests.close import assert_close

WAVE = SinusoidParams(amplitude=np.float32(2), phase=np.float32(0.5))


@pytest.mark.parametrize("name", ["sinusoid", "sinusoid-full-turn"])
def test_conforms(name):
    check_env(*jaxrl_envs.make(name))


@pytest.mark.parametrize(("name", "turn"), [("sinusoid", np.pi), ("sinusoid-full-turn", 2 * np.pi)])
def test_tasks_fill_their_ranges(name, turn):
    _, tasks = jaxrl_envs.make(name)
    drawn = jax.vmap(tasks.sample)(jax.random.split(jax.random.key(0), 4000))
    for values, low, high in ((drawn.amplitude, 0.1, 5.0), (drawn.phase, 0.0, turn)):
        assert low <= float(values.min())
        assert float(values.max()) <= high
        spread = (high - low) / 12**0.5
        assert float(values.mean()) == pytest.approx((low + high) / 2, abs=4 * spread / 4000**0.5)
        assert float(values.std()) == pytest.approx(spread, rel=0.05)
    assert abs(np.corrcoef(drawn.amplitude, drawn.phase)[0, 1]) < 5 / 4000**0.5


def test_points_lie_on_the_wave():
    x, y = Sinusoid().points(jax.random.key(0), WAVE, 500)
    assert x.shape == y.shape == (500, 1)
    assert -5 <= float(x.min()) < -4.9 < 4.9 < float(x.max()) <= 5
    assert_close(y, 2 * np.sin(np.asarray(x) - 0.5))


def test_an_episode_is_one_prediction():
    env = Sinusoid()
    x, state = env.reset_env(jax.random.key(0), WAVE)
    y = 2 * np.sin(float(x[0]) - 0.5)
    _, state, reward, terminated, _ = env.step_env(jax.random.key(1), state, jnp.array([y + 3]), WAVE)
    assert float(reward) == pytest.approx(-9, abs=1e-4)
    assert bool(terminated)


def test_render_shows_the_wave():
    state = SinusoidState(x=jnp.array([-4.0]), time=jnp.zeros((), jnp.int32))
    picture = Sinusoid().render(state, WAVE)
    assert picture.shape == (256, 256, 3)
    orange = (picture[..., 0] > 200) & (picture[..., 1].astype(int) - picture[..., 2] > 60)
    rows, columns = np.nonzero(orange)
    x = columns / 255 * 10 - 5
    y = 5.75 - rows / 255 * 11.5
    inside = np.abs(columns - 25) > 4  # beside the dashed line
    assert np.abs(y - 2 * np.sin(x - 0.5))[inside].max() < 0.5
