"""gymnax's own environments and every algorithm: they learn there and are evaluated, or say in one line why not."""

import gymnax
import jax
import pytest
from gymnax.environments import spaces

import jaxrl_envs
import jaxrl_hier
from jaxrl_envs.contract import EnvCheckError
from jaxrl_hier import registry
from jaxrl_hier.checks import UsageError
from tests.sizes import SIZES

# kinds of environments, told by their observations and actions
STATES, ARRAYS, CONTINUOUS = "both discrete", "arrays and discrete actions", "arrays and continuous actions"
KINDS = (STATES, ARRAYS, CONTINUOUS)
TABLES = "a table needs discrete observations and actions, such as those of four-rooms; {} has Box observations"
BOXES = "{} needs a flat vector of continuous actions; {} has Discrete actions. Use {}"
GOALS = "{} needs an environment with goals, such as {}"
# algorithm -> where it works; and what it says elsewhere, by the environment or for all others
META = {"maml", "fomaml", "reptile", "anil", "e-maml", "promp", "meta-sgd", "rl2", "recurrent-ppo", "varibad", "mlsh"}
WORKS = {
    **{name: {STATES} for name in ("q-learning", "sarsa", "option-critic-tabular", "rl3")},
    **{name: {STATES, ARRAYS} for name in ("option-critic", "fun", "dqn", "maml-options")},
    **{name: {CONTINUOUS} for name in ("ddpg", "td3", "sac", "hiro", "pearl")},
    **{name: set(KINDS) for name in (*META, "reinforce", "a2c", "trpo", "ppo", "option-ppo")},
}
CONTINUOUS_ONLY = {
    **dict.fromkeys(("ddpg", "td3", "her-ddpg", "her-td3"), ("TD3", "dqn")),
    **dict.fromkeys(("sac", "her-sac"), ("SAC", "dqn")),
    "hiro": ("HIRO", "fun or option-critic"),
    "pearl": ("PEARL", "rl2 or maml"),
}
DISCRETE_ONLY = {
    **dict.fromkeys(("dqn", "her-dqn"), "has Box actions. Use ddpg, td3 or sac"),
    **dict.fromkeys(("option-critic", "fun"), "{} has Box actions. Use hiro"),
}
TABULAR = {"q-learning", "sarsa", "option-critic-tabular", "smdp-q", "intra-option-q", "maxq", "rl2-options"}
NEEDS = {
    **dict.fromkeys(("smdp-q", "intra-option-q", "rl2-options"), "use options='repeats', or give your own"),
    "rl3": "estimates of action values need at least one sweep, and Discrete observations and actions",
    "maxq": "MAXQ needs a task graph, and {} has none of its own: make one by `task_graph`",
    **dict.fromkeys(
        ("her-dqn", "her-ddpg", "her-td3", "her-sac"), "hindsight needs an environment with goals, such as"
    ),
    "uvfa": "uvfa needs an environment with goals, such as four-rooms-goals",
    "maml-options": "maml-options needs Discrete actions; {} has Box actions. Use maml or mlsh",
    "few-shot-regression": "few-shot regression needs tasks with data sets, such as sinusoid",
}


# what is wrong with gymnax's own, for every algorithm that would work there
BROKEN = {  # its space holds whole numbers, its observations are not
    "Catch-bsuite": "the observation is float32[10, 5], it must be int32[10, 5]",
}
DOWNLOADED = "MNISTBandit-bsuite"  # its data are not in the package; see the test below


def kind_of(env):
    actions, observations = env.action_space(env.default_params), env.observation_space(env.default_params)
    if not isinstance(actions, spaces.Discrete):
        return CONTINUOUS
    return STATES if isinstance(observations, spaces.Discrete) else ARRAYS


def why_not(name, env, kind):
    """Part of the message of an algorithm that does not work there."""
    if name in TABULAR and kind != STATES:
        return TABLES.format(env)
    if name in CONTINUOUS_ONLY and kind != CONTINUOUS:
        algorithm, instead = CONTINUOUS_ONLY[name]
        return BOXES.format(algorithm, env, instead)
    if name in DISCRETE_ONLY and kind == CONTINUOUS:
        return DISCRETE_ONLY[name].format(env)
    return NEEDS[name].format(env)


# of the sizes in tests, those that depend on the length of an episode
DEPEND = {"capacity", "initial_steps", "prior_steps", "posterior_steps"}


def made(name, env):
    """The algorithm, small."""
    return jaxrl_hier.make(name, env, **{size: x for size, x in SIZES[name].items() if size not in DEPEND})


def traced(name, env):
    """Trace all that a run does."""
    algorithm = made(name, env)
    state = jax.eval_shape(algorithm.init, jax.random.key(0))
    after, metrics = jax.eval_shape(algorithm.step, state)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert "return" in metrics
    measured = jax.eval_shape(algorithm.evaluate, state, jax.random.key(0))
    assert all(len(m.axes) == m.values.ndim for m in measured.values())


NAMES = sorted(registry.ALGORITHMS)  # other tests register more, later
# what meets an environment by the loop and the networks of MAML, RL², PPO and SAC
ALIKE = META - {"maml", "rl2"} | {"rl3", "reinforce", "a2c", "trpo", "ddpg", "td3"}
# an environment of each kind of observations and actions, in which all algorithms are traced
ONE_OF_A_KIND = {"FrozenLake-misc", "CartPole-v1", "DeepSea-bsuite", "Breakout-MinAtar", "Pendulum-v1"}
# one algorithm of each way to play, which are traced in all environments
EVERYWHERE = {"q-learning", "dqn", "sac", "ppo", "rl2"}


def meets(name, env):
    """Trace an algorithm in an environment; only make it, if another algorithm or environment stands for it."""
    if name in EVERYWHERE or (env in ONE_OF_A_KIND and name not in ALIKE):
        traced(name, env)
    else:
        made(name, env)


@pytest.mark.parametrize("env", [env for env in gymnax.registered_envs if env != DOWNLOADED])
def test_every_algorithm_meets_an_environment_of_gymnax(env):
    """It can be traced there, or says in one line why it does not work."""
    played = gymnax.make(env)[0]
    kind = kind_of(played)
    for name in NAMES:
        if kind in WORKS.get(name, ()):
            if env not in BROKEN:
                meets(name, env)
                continue
            error, said = EnvCheckError, BROKEN[env]
        else:
            error, said = UsageError, why_not(name, played.name, kind)
        with pytest.raises(error) as refused:
            traced(name, env)
        message = str(refused.value)
        assert said in message
        assert "\n" not in message
        assert len(message) < 200


def test_an_environment_that_gymnax_cannot_make_is_said_in_one_line(monkeypatch):
    def no_network(name):
        raise OSError("Name or service not known\nand more")

    monkeypatch.setattr(gymnax, "make", no_network)
    with pytest.raises(ValueError, match=r"^gymnax cannot make 'MNISTBandit-bsuite': Name or service not known$"):
        jaxrl_envs.make("MNISTBandit-bsuite")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("XLand-R1-9x9", r"ids of XLand-MiniGrid are XLand-MiniGrid-… .* \(pip install 'jaxrl-hier\[xland\]'\)$"),
        ("minigrid-empty", r"ids of XLand-MiniGrid are .* MiniGrid-… \(pip install 'jaxrl-hier\[xland\]'\)$"),
        ("Atari-Pong", r"games are called atari-…, such as atari-pong \(pip install 'jaxrl-hier\[atari\]'\)$"),
        (
            "gymnasium:CartPole-v1",
            "Gymnasium's run on the host: jaxrl_hier.train and jaxrl_hier.make take them",
        ),
        ("brax-ant", r"ids of brax are brax:…, such as brax:halfcheetah \(pip install 'jaxrl-hier\[brax\]'\)$"),
        ("kinetix:small", "kinetix is not supported. Environments are"),
    ],
)
def test_an_unknown_id_that_begins_as_others_do_says_what_those_need(name, message):
    with pytest.raises(ValueError, match=f"^unknown environment '{name}': {message}"):
        jaxrl_envs.make(name)
