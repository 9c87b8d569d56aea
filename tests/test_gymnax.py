"""gymnax's own environments and every algorithm: they learn there and are evaluated, or say in one line why not."""

import gymnax
import jax
import pytest

import jaxrl_envs
import jaxrl_hier
from jaxrl_hier import registry
from jaxrl_hier.checks import UsageError
from tests.sizes import SIZES

# one of each kind, told by its observations and actions
STATES, VECTOR, PICTURE, CONTINUOUS = "FrozenLake-misc", "CartPole-v1", "DeepSea-bsuite", "Pendulum-v1"
KINDS = (STATES, VECTOR, PICTURE, CONTINUOUS)
TABLES = "a table needs discrete observations and actions, such as those of four-rooms; {} has Box observations"
BOXES = "{} needs a flat vector of continuous actions; {} has Discrete actions. Use {}"
GOALS = "{} needs an environment with goals, such as {}"
# algorithm -> where it works; and what it says elsewhere, by the environment or for all others
META = {"maml", "fomaml", "reptile", "anil", "e-maml", "promp", "meta-sgd", "rl2"}
WORKS = {
    **{name: {STATES} for name in ("q-learning", "sarsa", "option-critic-tabular")},
    **{name: {STATES, VECTOR, PICTURE} for name in ("option-critic", "fun", "dqn")},
    **{name: {CONTINUOUS} for name in ("ddpg", "td3", "sac", "hiro", "pearl")},
    **{name: set(KINDS) for name in META},
}
CONTINUOUS_ONLY = {
    **dict.fromkeys(("ddpg", "td3", "her-ddpg", "her-td3"), ("TD3", "dqn")),
    **dict.fromkeys(("sac", "her-sac"), ("SAC", "dqn")),
    "hiro": ("HIRO", "fun or option-critic"),
    "pearl": ("PEARL", "rl2 or maml"),
}
DISCRETE_ONLY = {
    **dict.fromkeys(("dqn", "her-dqn"), "has Box actions. Use ddpg, td3 or sac"),
    **dict.fromkeys(("option-critic", "fun"), "Pendulum-v1 has Box actions. Use hiro"),
}
TABULAR = {"q-learning", "sarsa", "option-critic-tabular", "smdp-q", "intra-option-q", "maxq"}
NEEDS = {
    **dict.fromkeys(("smdp-q", "intra-option-q"), "use options='primitive', or give your own"),
    "maxq": "MAXQ needs a task graph, and FrozenLake-misc has none of its own: make one by `task_graph`",
    **dict.fromkeys(
        ("her-dqn", "her-ddpg", "her-td3", "her-sac"), "hindsight needs an environment with goals, such as"
    ),
    "uvfa": "uvfa needs an environment with goals, such as four-rooms-goals",
    "few-shot-regression": "few-shot regression needs tasks with data sets, such as sinusoid",
}


def why_not(name, env):
    """Part of the message of an algorithm that does not work there."""
    discrete_actions = env != CONTINUOUS
    if name in TABULAR and env != STATES:
        return TABLES.format(env)
    if name in CONTINUOUS_ONLY and discrete_actions:
        algorithm, instead = CONTINUOUS_ONLY[name]
        return BOXES.format(algorithm, env, instead)
    if name in DISCRETE_ONLY and not discrete_actions:
        return DISCRETE_ONLY[name]
    return NEEDS[name]


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


# presets of MAML have its loop and networks
ALIKE = META - {"maml", "rl2"}


@pytest.mark.parametrize("name", sorted(registry.ALGORITHMS))
def test_an_algorithm_meets_every_kind_of_gymnax_environment(name):
    for env in KINDS:
        if env in WORKS.get(name, ()):
            (made if name in ALIKE else traced)(name, env)
            continue
        with pytest.raises(UsageError) as refused:
            traced(name, env)
        message = str(refused.value)
        assert why_not(name, env) in message
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
            "Gymnasium's environments are not compiled; jaxrl_hier.train takes them, for learners",
        ),
        ("craftax:Craftax-Symbolic-v1", "craftax is not supported. Environments are"),
    ],
)
def test_an_unknown_id_that_begins_as_others_do_says_what_those_need(name, message):
    with pytest.raises(ValueError, match=f"^unknown environment '{name}': {message}"):
        jaxrl_envs.make(name)
