"""The examples run, and what they say of themselves is true."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl_envs
import jaxrl_hier
from examples import changing_task, curriculum, hidden_task, my_env, reinforce, train_test_split
from jaxrl_envs import FourRooms, check_env
from jaxrl_hier import cli, testing
from jaxrl_hier.exact import tabular
from tests.sizes import SIZES, TINY_MAML

QUIET = {"quiet": True, "tensorboard": False}


# Tasks


def test_train_and_test_tasks_are_apart_and_each_is_used_where_it_should_be():
    tasks = train_test_split.split(goals=8, test=3)
    held_out, trained = (np.asarray(x.goal).tolist() for x in (tasks.test, tasks.train))
    assert (len(held_out), len(trained)) == (3, 5)
    drawn = jax.vmap(tasks.sample)(jax.random.split(jax.random.key(0), 200)).goal
    assert {tuple(x) for x in np.asarray(drawn).tolist()} == {tuple(x) for x in trained}
    assert not {tuple(x) for x in held_out} & {tuple(x) for x in trained}


def test_train_test_split_runs():
    result = train_test_split.main(iterations=1, **QUIET, **TINY_MAML | {"eval_inner_steps": 3})
    assert result.evaluation["return"].values.shape == (1, 4, 4)


def test_a_curriculum_begins_near_the_goal_and_reaches_every_cell():
    env = FourRooms()
    tasks = curriculum.curriculum(env, pace=0.5, first=3.0)
    P, _ = env.model(env.default_params)
    away = np.asarray(tabular.minimal_expected_steps(P))
    begins = {}
    for episode in (0, 10, 100):
        task = tasks.sample(jax.random.key(0)).replace(episode=jnp.int32(episode - 1))
        follow = jax.vmap(lambda key, task=task: tasks.following(key, task))
        lessons = follow(jax.random.split(jax.random.key(episode), 4000))
        assert np.asarray(lessons.episode == episode).all()
        begins[episode] = set(np.asarray(lessons.start).tolist())
        near = {cell for cell, steps in enumerate(away) if 0 < steps <= max(3.0, away[away > 0].min()) + 0.5 * episode}
        assert begins[episode] == near
    assert begins[0] < begins[10] < begins[100]
    assert len(begins[100]) == 103  # all but the goal


def test_the_curriculum_runs():
    results = curriculum.main(iterations=200, log_every=200, checkpoint_every=200, seeds=2, **QUIET)
    assert set(results) == {"curriculum", "from anywhere"}
    task = results["curriculum"].state.world.task
    ended = (results["curriculum"].evaluation["training_length"].values > 0).sum(axis=-1)
    np.testing.assert_array_equal(task.episode, ended)  # a world counts its own episodes


def test_what_memory_is_worth_in_the_hidden_task_by_enumeration():
    """With the last pull alone, of all 32 ways to begin and to go on; with all of them, by dynamic programming over the
    evidence d, wins of door 0 and losses of door 1 less the others, where door 0 is good with odds 3^d."""
    pays = np.array([[hidden_task.GOOD, hidden_task.BAD], [hidden_task.BAD, hidden_task.GOOD]])  # [task, door]

    def earned(first, following):  # following [door, reward] -> door
        total = 0.0
        for chance in pays:
            at = np.eye(2)[first]
            for _ in range(hidden_task.PULLS):
                total += 0.5 * at @ chance
                after = np.zeros(2)
                for door, reward in np.ndindex(2, 2):
                    after[following[door, reward]] += at[door] * (chance[door] if reward else 1 - chance[door])
                at = after
        return total

    ways = [(first, np.reshape(way, (2, 2))) for first, *way in np.ndindex(*[2] * 5)]
    assert np.isclose(max(earned(*way) for way in ways), hidden_task.best(1))
    worth = {d: 0.0 for d in range(-hidden_task.PULLS, hidden_task.PULLS + 1)}
    for t in reversed(range(hidden_task.PULLS)):
        belief = {d: 1 / (1 + 3.0**-d) for d in range(-t, t + 1)}
        up = {d: hidden_task.GOOD * p + hidden_task.BAD * (1 - p) for d, p in belief.items()}
        worth = {d: max(p, 1 - p) + p * worth[d + 1] + (1 - p) * worth[d - 1] for d, p in up.items()}
    assert np.isclose(worth[0], hidden_task.best())
    assert (round(hidden_task.best(1), 1), round(hidden_task.best(), 1)) == (6.1, 6.6)
    drawn = jax.vmap(hidden_task.doors().sample)(jax.random.split(jax.random.key(0), 100)).probabilities
    assert set(map(tuple, np.asarray(drawn).tolist())) == set(map(tuple, pays.tolist()))


def test_the_hidden_task_runs():
    result = hidden_task.main(memories=["gru"], iterations=1, **QUIET, **SIZES["rl2"])["gru"]
    assert (result.evaluation["return"].values <= hidden_task.PULLS).all()


def test_a_task_changes_in_the_episode_that_it_should():
    episodes = 20
    result = changing_task.main(episodes=episodes, log_every=20, checkpoint_every=20, seeds=2, **QUIET)
    tasks, task = changing_task.reversal(at=3), None
    better = []
    for _ in range(6):
        task = tasks.sample(jax.random.key(0)) if task is None else tasks.following(jax.random.key(0), task)
        better.append(int(np.argmax(task.probabilities)))
    assert better == [0, 0, 0, 1, 1, 1]
    np.testing.assert_array_equal(result.state.world.task.episode, np.full((2, 1), episodes))
    assert (result.evaluation["training_length"].values == 1).all()


# An environment


def test_the_environment_keeps_the_contract_and_draws_itself():
    env, tasks = my_env.make()
    check_env(env, tasks, episodes=2)
    played = jaxrl_envs.to_gymnasium(env, tasks, render_mode="rgb_array")
    played.reset(seed=0)
    before = played.render()
    played.step(np.ones(1, np.float32))
    assert before.shape == (256, 256, 3)
    assert (played.render() != before).any()


def test_the_ball_moves_as_a_push_and_friction_say():
    env, tasks = my_env.make()
    params = tasks.sample(jax.random.key(0))
    _, state = env.reset_env(jax.random.key(0), params)
    x = velocity = 0.0
    for t in range(30):
        _, state, reward, terminated, _ = env.step_env(jax.random.key(t), state, jnp.ones(1), params)
        velocity = 0.8 * velocity + 0.05
        x = min(x + velocity, 1.0)
        velocity = 0.0 if x == 1.0 else velocity
        np.testing.assert_allclose((state.x, state.velocity), (x, velocity), rtol=1e-5)
        np.testing.assert_allclose(reward, -abs(x - params.target), rtol=1e-4, atol=1e-6)
        assert not terminated
    assert x == 1.0


# An algorithm


def test_reinforce_is_short():
    assert len(Path(reinforce.__file__).read_text().splitlines()) <= 70


def test_the_surrogates_gradient_is_the_policy_gradient_in_expectation():
    """Two pulls of two arms, whose four sequences are enumerated: whatever the baseline, weighted by their
    probabilities their gradients are that of the expected return."""
    payouts = jnp.array([1.0, -0.5])
    sequences = jnp.array(list(np.ndindex(2, 2)))  # [4, T]
    baseline = jnp.array([0.7, -3.0])  # of each step, chosen without regard to the action

    def log_probs(logits):
        return jax.nn.log_softmax(logits)[jnp.arange(2), sequences]  # logits [T, 2] -> [4, T]

    def expected(logits):
        return jnp.sum(jnp.exp(log_probs(logits).sum(axis=1)) * payouts[sequences].sum(axis=1))

    def of_one(logits, i):
        column = lambda x: x[i][:, None]  # [T, 1]
        returns = jnp.cumsum(payouts[sequences][:, ::-1], axis=1)[:, ::-1]
        return reinforce.surrogate(column(log_probs(logits)), column(returns), baseline[:, None], jnp.ones((2, 1)))

    logits = jnp.array([[0.3, -0.2], [-1.0, 0.4]])
    gradients = jnp.stack([jax.grad(of_one)(logits, i) for i in range(4)])
    mean = jnp.tensordot(jnp.exp(log_probs(logits).sum(axis=1)), gradients, 1)
    testing.assert_close(-mean, jax.grad(expected)(logits), 1e-5)


def test_steps_after_an_episodes_end_do_not_count():
    rng = np.random.default_rng(0)
    log_prob, returns, baseline = (jnp.asarray(rng.normal(size=(5, 3)), jnp.float32) for _ in range(3))
    mask = jnp.array([[1, 1, 1, 0, 0]] * 3, jnp.float32).T
    wild = log_prob.at[3:].mul(1e3)
    assert reinforce.surrogate(wild, returns, baseline, mask) == reinforce.surrogate(log_prob, returns, baseline, mask)


@pytest.fixture(scope="module")
def learner():
    env, tasks = my_env.make()
    return reinforce.make(reinforce.Config(environments=8), env, tasks), env, tasks


@pytest.mark.parametrize("check", testing.INVARIANTS, ids=testing.name_of)
def test_invariants_of_reinforce(learner, check):
    check(learner[0])


def test_actions_of_reinforce(learner):
    testing.actions_are_of_their_space(*learner)


# The command line


# import paths in the folder of a run are named again, since it may be a stranger's
MINE = {"algorithm": "examples.reinforce:reinforce", "env": "examples.my_env:make"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two folders of the same run on the ball: four iterations at once, and two that were resumed to four."""
    folder = tmp_path_factory.mktemp("runs")
    train = ["train", "examples.reinforce:reinforce", "--env", "examples.my_env:make", "--quiet", "--environments", "8"]
    train += ["--checkpoint-every", "2", "--no-tensorboard", "--out"]
    cli.main([*train, str(folder / "whole"), "--iterations", "4"])
    cli.main([*train, str(folder / "resumed"), "--iterations", "2"])
    cli.main([*train, str(folder / "resumed"), "--iterations", "4", "--resume"])
    return folder


def test_a_file_of_ones_own_is_trained_and_resumed_from_the_command_line(runs):
    whole, resumed = (jaxrl_hier.load(runs / name, **MINE) for name in ("whole", "resumed"))
    assert (whole.iteration, resumed.iteration) == (4, 4)
    testing.assert_equal(resumed.state, whole.state)
    assert [row["iteration"] for row in resumed.rows] == [1, 2, 3, 4]


def test_it_is_evaluated_and_drawn_from_the_command_line(runs, capsys):
    cli.main(["evaluate", str(runs / "whole"), *(f"--{k}={v}" for k, v in MINE.items())])
    assert "examples.reinforce:reinforce on examples.my_env:make, iteration 4" in capsys.readouterr().out
    assert {path.suffix for path in (runs / "whole" / "plots").iterdir()} >= {".png"}


def test_the_settings_of_ones_own_are_flags_with_their_texts(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["train", "examples.reinforce:reinforce", "--help"])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert "--learning-rate" in said
    assert "episodes per iteration" in said
    assert "REINFORCE with a baseline" in said


# A package


STRANGER = """
from examples import my_env, reinforce

ball = my_env.make
baseline = reinforce.reinforce
"""
POINTS = """
[jaxrl_envs.environments]
strange-ball = stranger:ball

[jaxrl_hier.algorithms]
strange-reinforce = stranger:baseline
"""


def test_a_package_brings_names_by_its_entry_points(runs, tmp_path, monkeypatch, capsys):
    """An installed package, as importlib.metadata finds it on the path; nothing of it is imported to list it."""
    (tmp_path / "stranger.py").write_text(STRANGER)
    about = tmp_path / "stranger-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(tmp_path)
    cli.main(["list"])
    listed = capsys.readouterr().out
    for name in ("strange-ball", "strange-reinforce"):
        assert any(line.split() == [name, "from", "stranger"] for line in listed.splitlines())
    assert "stranger" not in sys.modules

    out = ["--out", str(tmp_path / "run"), "--quiet", "--environments", "8", "--checkpoint-every", "2"]
    train = ["train", "strange-reinforce", "--env", "strange-ball", "--no-tensorboard", *out]
    cli.main([*train, "--iterations", "2"])
    cli.main([*train, "--iterations", "4", "--resume"])
    cli.main(["evaluate", str(tmp_path / "run")])
    assert "strange-reinforce on strange-ball, iteration 4" in capsys.readouterr().out
    # by whatever names, it is the same run
    testing.assert_equal(jaxrl_hier.load(tmp_path / "run").state, jaxrl_hier.load(runs / "whole", **MINE).state)
    with pytest.raises(SystemExit):
        cli.main(["train", "strange-reinforc"])
    assert "nearest: strange-reinforce" in capsys.readouterr().err


def test_optuna_halves_groups():
    pytest.importorskip("optuna")
    from examples import optuna_halving

    found = optuna_halving.main(groups=2, members=2, iterations=4, seeds=1, **SIZES["dqn"] | {"eval_episodes": 2})
    assert set(found) == {"learning_rate", "target_rate", "epsilon"}
