"""Algorithms by name: an explicit table, filled by hand, its modules imported on use.

Another package adds its algorithms by entry points of the group `jaxrl_hier.algorithms`, each of which names an
`Entry`; a program adds its own by `register`; and the import path of an `Entry`, "my_module:my_entry", is a name, too.
"""

from dataclasses import dataclass, field
from importlib import import_module, metadata
from typing import Any

from jaxrl_hier.checks import UsageError, unknown


@dataclass(frozen=True)
class Entry:
    """An algorithm and its preset."""

    # a module, or its name, that has `make(config, env, tasks)` and `Config`, which derives from `settings.BaseConfig`.
    # Optional: `published(config, env_name)`, published values to compare with; `pictures(trained, folder) -> paths`,
    # which draws what one seed has learned (see `pictures`); `QUANTITIES`, labels of its measurements (`quantities`)
    module: Any
    env: str  # the environment of its preset
    summary: str
    run: dict[str, Any] = field(default_factory=dict)  # what differs from RunConfig's defaults
    config: dict[str, Any] = field(default_factory=dict)  # and from those of the module's Config


def _maml(summary: str, **config: Any) -> Entry:
    run = {"iterations": 100, "checkpoint_every": 10, "evaluate_every": 25}
    return Entry("jaxrl_hier.meta.maml", env="navigation2d", summary=summary, run=run, config=config)


TABULAR = {"iterations": 200_000, "log_every": 2_000, "checkpoint_every": 20_000, "evaluate_every": 20_000}
REPLAY = {"iterations": 20_000, "log_every": 500, "checkpoint_every": 5_000, "evaluate_every": 5_000}
ROLLOUTS = {"iterations": 200, "log_every": 5, "checkpoint_every": 50, "evaluate_every": 50}
# of 20: an iteration of MAML with TRPO takes half the time (`python -m benchmarks throughput maml`), and its returns
# stay inside the published intervals (`python -m benchmarks run maml_navigation`)
FISHER = {"fisher_episodes": 4}
SCALED = {"normalize_rewards": True}
DDPG = {"critics": 1, "policy_delay": 1, "target_noise": 0.0}
HER = {"her": "future", "reward_range": (-1.0, 0.0), "discount": 0.98}
HER_CONTINUOUS = {"normalize_observations": True, "random_actions": 0.2, "action_penalty": 1.0}

ALGORITHMS: dict[str, Entry] = {
    "q-learning": Entry(
        "jaxrl_hier.flat.q_learning",
        env="four-rooms",
        summary="tabular Q-learning (Watkins, 1989)",
        run=TABULAR,
    ),
    "smdp-q": Entry(
        "jaxrl_hier.hierarchical.smdp_q",
        env="four-rooms",
        summary="Q-learning over options, updated when an option ends (Sutton, Precup & Singh, 1999)",
        run=TABULAR,
    ),
    "intra-option-q": Entry(
        "jaxrl_hier.hierarchical.intra_option_q",
        env="four-rooms",
        summary="learns about every consistent option from every step (Sutton, Precup & Singh, 1999)",
        run=TABULAR,
    ),
    "option-critic": Entry(
        "jaxrl_hier.hierarchical.option_critic",
        env="four-rooms-option-critic",
        summary="learns options with a network, as an advantage actor-critic (Bacon, Harb & Precup, 2017)",
        run={"iterations": 2_000, "log_every": 20, "checkpoint_every": 200, "evaluate_every": 500},
    ),
    "option-critic-tabular": Entry(
        "jaxrl_hier.hierarchical.option_critic_tabular",
        env="four-rooms-moving-goal",
        summary="learns policies and terminations of options, in tables (Bacon, Harb & Precup, 2017)",
        run=TABULAR,
    ),
    "option-ppo": Entry(
        "jaxrl_hier.hierarchical.option_ppo",
        env="four-rooms-option-critic",
        summary="PPO over options, their policies and terminations (Zhang & Whiteson, 2019; Harb et al., 2018)",
        run=ROLLOUTS,
    ),
    "maxq": Entry(
        "jaxrl_hier.hierarchical.maxq",
        env="taxi",
        summary="learns the value function of every subtask of a task graph (Dietterich, 2000)",
        run={"iterations": 1_000, "log_every": 10, "checkpoint_every": 100, "evaluate_every": 100},
    ),
    "sarsa": Entry(
        "jaxrl_hier.flat.sarsa",
        env="four-rooms-moving-goal",
        summary="tabular SARSA(0) with a Boltzmann policy (Rummery & Niranjan, 1994)",
        run=TABULAR,
    ),
    "dqn": Entry(
        "jaxrl_hier.flat.dqn",
        env="CartPole-v1",
        summary="deep Q-networks: Q-learning with a network and replay (Mnih et al., 2015)",
        run=REPLAY,
        config={
            "environments": 8,
            "updates": 2,
            "batch_size": 128,
            "hidden": (64, 64),
            "target_rate": 0.01,
            "double": True,
        },
    ),
    "ddpg": Entry(
        "jaxrl_hier.flat.td3",
        env="Pendulum-v1",
        summary="deep deterministic policy gradient, for continuous actions (Lillicrap et al., 2016)",
        run=REPLAY,
        config=DDPG,
    ),
    "td3": Entry(
        "jaxrl_hier.flat.td3",
        env="Pendulum-v1",
        summary="DDPG with twin critics, a delayed actor and smoothed targets (Fujimoto et al., 2018)",
        run=REPLAY,
    ),
    "sac": Entry(
        "jaxrl_hier.flat.sac",
        env="Pendulum-v1",
        summary="soft actor-critic with a learned temperature, for continuous actions (Haarnoja et al., 2018)",
        run=REPLAY,
    ),
    "reinforce": Entry(
        "jaxrl_hier.flat.policy_gradient",
        env="CartPole-v1",
        summary="the policy gradient of whole returns, less a learned baseline (Williams, 1992)",
        run=ROLLOUTS,
        config=SCALED
        | {"learner": "a2c", "gae_lambda": 1.0, "environments": 16, "rollout_length": 500, "learning_rate": 1e-2},
    ),
    "a2c": Entry(
        "jaxrl_hier.flat.policy_gradient",
        env="CartPole-v1",
        summary="advantage actor-critic, one gradient step for each short rollout (Mnih et al., 2016)",
        run={"iterations": 4_000, "log_every": 100, "checkpoint_every": 1_000, "evaluate_every": 1_000},
        config=SCALED | {"learner": "a2c", "environments": 16, "rollout_length": 8, "learning_rate": 2e-3},
    ),
    "trpo": Entry(
        "jaxrl_hier.flat.policy_gradient",
        env="CartPole-v1",
        summary="natural policy gradient steps within a trust region (Schulman et al., 2015)",
        run=ROLLOUTS,
        config=SCALED | {"learner": "trpo"},
    ),
    "ppo": Entry(
        "jaxrl_hier.flat.policy_gradient",
        env="CartPole-v1",
        summary="proximal policy optimisation, several epochs on each rollout (Schulman et al., 2017)",
        run=ROLLOUTS,
        config=SCALED,
    ),
    "her-dqn": Entry(
        "jaxrl_hier.flat.dqn",
        env="bit-flipping-15",
        summary="DQN with hindsight experience replay (Andrychowicz et al., 2017)",
        run=REPLAY | {"iterations": 10_000},
        config=HER | {"hidden": (256,), "epsilon": 0.2},
    ),
    "her-ddpg": Entry(
        "jaxrl_hier.flat.td3",
        env="point-reach",
        summary="DDPG with hindsight experience replay (Andrychowicz et al., 2017)",
        run=REPLAY,
        config=DDPG | HER | HER_CONTINUOUS,
    ),
    "her-td3": Entry(
        "jaxrl_hier.flat.td3",
        env="point-reach",
        summary="TD3 with hindsight experience replay (after Andrychowicz et al., 2017)",
        run=REPLAY,
        config=HER | HER_CONTINUOUS,
    ),
    "her-sac": Entry(
        "jaxrl_hier.flat.sac",
        env="point-reach",
        summary="SAC with hindsight experience replay (after Andrychowicz et al., 2017)",
        run=REPLAY,
        config=HER | {"reward_range": None},  # values include the entropy's, which rewards do not bound
    ),
    "uvfa": Entry(
        "jaxrl_hier.goals.uvfa",
        env="four-rooms-goals",
        summary="one value function for all goals, also those never wanted before (Schaul et al., 2015)",
        run={"iterations": 4_000, "log_every": 100, "checkpoint_every": 1_000, "evaluate_every": 1_000},
    ),
    "few-shot-regression": Entry(
        "jaxrl_hier.meta.few_shot_regression",
        env="sinusoid",
        summary="MAML, FOMAML, ANIL, Meta-SGD, Reptile, pre-training by --method, where the loss is known (2017, 2018)",
        run={"iterations": 70_000, "log_every": 500, "checkpoint_every": 5_000, "evaluate_every": 10_000},
    ),
    "fun": Entry(
        "jaxrl_hier.hierarchical.fun",
        env="treasure",
        summary="a manager sets directions in a space that it learns, a worker follows (Vezhnevets et al., 2017)",
        run={"iterations": 2_000, "log_every": 20, "checkpoint_every": 200, "evaluate_every": 500},
    ),
    "hiro": Entry(
        "jaxrl_hier.hierarchical.hiro",
        env="point-maze",
        summary="a manager asks for changes of the state, a worker makes them, both off-policy (Nachum et al., 2018)",
        run={"iterations": 1_000, "log_every": 20, "checkpoint_every": 500, "evaluate_every": 500},
        config={
            "hidden": (64, 64),
            "batch_size": 64,
            "environments": 50,
            "capacity": 500_000,
            "warmup_steps": 5_000,
            "goal_range": 5.0,
            "random_goals": 0.1,
            "random_goals_at_start": 0.5,
            "worker_discount": 0.95,
            "manager_discount": 0.97,
            "actor_learning_rate": 1e-3,
            "target_rate": 0.02,
            "manager_updates": 25,
            "worker_update_ratio": 2,
        },
    ),
    "maml": _maml("an initialisation that adapts in a few gradient steps (Finn et al., 2017)", **FISHER),
    "fomaml": _maml("MAML without second derivatives (Finn et al., 2017)", first_order=True, **FISHER),
    "reptile": _maml(
        "moves towards the adapted parameters (Nichol et al., 2018)",
        reptile=True,
        outer="adam",
        outer_learning_rate=3e-3,
    ),
    "anil": _maml("MAML that adapts the last layer alone (Raghu et al., 2020)", head_only=True, **FISHER),
    "e-maml": _maml(
        "MAML that credits exploration before adaptation (Stadie et al., 2018)", credit_exploration=True, **FISHER
    ),
    "promp": _maml(
        "MAML with low variance curvature and proximal outer steps (Rothfuss et al., 2019)",
        estimator="lvc",
        outer="ppo",
        kl_weight=5e-4,
    ),
    "meta-sgd": _maml("MAML that learns its inner learning rates (Li et al., 2017)", learn_inner_rates=True, **FISHER),
    "rl2": Entry(
        "jaxrl_hier.meta.rl2",
        env="bandit-n10-k5",
        summary="a recurrent policy learns to learn, in its hidden state (Duan et al., 2016; Wang et al., 2016)",
        run={"iterations": 500, "log_every": 10, "checkpoint_every": 100, "evaluate_every": 100},
    ),
    "rl3": Entry(
        "jaxrl_hier.meta.rl2",
        env="tabular-mdp",
        summary="RL² that also sees estimates of the task's action values (Bhatia, Nashed & Zilberstein, 2023)",
        run=ROLLOUTS,
        config={
            "value_sweeps": 1,
            "episodes_per_trial": 10,
            "minibatch_size": 64,
            "epochs": 4,
            "value_scale": 10.0,
            "entropy_weight": 0.05,
            "entropy_decay_iterations": 200,
            "learning_rate": 3e-3,
            "learning_rate_schedule": "linear",
            "learning_rate_iterations": 200,
        },
    ),
    "recurrent-ppo": Entry(
        "jaxrl_hier.meta.rl2",
        env="t-maze-vector",
        summary="PPO with a recurrent policy, for tasks that need memory: RL² with one episode a trial",
        run=ROLLOUTS,
        config={
            "environments": 128,
            "minibatch_size": 32,
            "gae_lambda": 0.95,
            "clip": 0.2,
            "entropy_weight": 0.01,
            "max_grad_norm": 0.5,
            "eval_tasks": 100,
        },
    ),
    "rl2-options": Entry(
        "jaxrl_hier.combined.rl2_options",
        env="four-rooms-hidden-goal",
        summary="RL² whose actions are options (Duan et al., 2016; Sutton, Precup & Singh, 1999)",
        run={"iterations": 500, "log_every": 10, "checkpoint_every": 100, "evaluate_every": 100},
        config={
            "episodes_per_trial": 3,
            "environments": 128,
            "minibatch_size": 32,
            "gae_lambda": 0.95,
            "eval_tasks": 420,
        },
    ),
    "varibad": Entry(
        "jaxrl_hier.meta.varibad",
        env="grid-navigation",
        summary="acts by a belief about the task, inferred by a variational autoencoder (Zintgraf et al., 2020)",
        run={"iterations": 400, "log_every": 10, "checkpoint_every": 100, "evaluate_every": 100},
        config={
            "reward_model": "bernoulli",
            "kl_weight": 0.1,
            "elbo_terms": 10,
            "elbo_minibatch_size": 16,
            "hidden": (64, 64),
            "learning_rate": 4e-3,
            "learning_rate_schedule": "linear",
            "learning_rate_iterations": 400,
            "clip": 0.2,
            "entropy_weight": 0.1,
            "entropy_decay_iterations": 400,
            "eval_tasks": 210,
        },
    ),
    "mlsh": Entry(
        "jaxrl_hier.combined.mlsh",
        env="four-rooms-hidden-goal",
        summary="sub-policies shared by tasks, and a master that learns each task anew (Frans et al., 2018)",
        run={"iterations": 100, "checkpoint_every": 10, "evaluate_every": 25},
    ),
    "maml-options": Entry(
        "jaxrl_hier.combined.maml_options",
        env="four-rooms-hidden-goal",
        summary="MAML over options, all of whose parts adapt (Finn et al., 2017; Bacon, Harb & Precup, 2017)",
        run={"iterations": 100, "checkpoint_every": 10, "evaluate_every": 25},
    ),
    "pearl": Entry(
        "jaxrl_hier.meta.pearl",
        env="sparse-point-robot",
        summary="infers a latent variable of the task from off-policy experience (Rakelly et al., 2019)",
        run=ROLLOUTS,
    ),
}


GROUP = "jaxrl_hier.algorithms"  # entry points of other packages: name -> Entry


def register(
    name: str,
    module: Any,
    *,
    env: str,
    summary: str = "",
    run: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
) -> Entry:
    """Make an algorithm known by `name` to everything that takes names, in this process.

    Args:
        module: a module or the name of one, or any object that has `Config` and `make(config, env, tasks)`.
        env: the environment of its preset, by name.
        summary: a line for `jaxrl-hier list`.
        run, config: what the preset changes of RunConfig's defaults, and of the module's Config.

    Raises:
        UsageError: the name is taken or contains a colon, or the module has no `make` or no `Config` that derives from
            `settings.BaseConfig`.
    """
    new = Entry(module, env, summary, run or {}, config or {})
    if ":" in name or not name:
        raise UsageError(f"the name of an algorithm has no colon, got {name!r}")
    if name in ALGORITHMS and ALGORITHMS[name] != new:
        raise UsageError(f"there is an algorithm called {name} already; choose another name")
    _require_algorithm(name, new)
    ALGORITHMS[name] = new
    return new


def summaries() -> dict[str, str]:
    """One line for each algorithm that has a name, those of other packages last; imports nothing."""
    told = {name: entry.summary for name, entry in ALGORITHMS.items()}
    return told | {name: f"from {point.dist.name if point.dist else point.value}" for name, point in _others().items()}


def entry(name: str) -> Entry:
    """The Entry called `name`: in the table, registered, an entry point, or an import path.

    Raises:
        UsageError: there is none; the message has the closest names. Or `name` is no name.
    """
    if not isinstance(name, str):
        raise UsageError(
            "an algorithm is given by its name, or by the import path of its Entry, such as 'my_module:my_entry', got "
            f"a {type(name).__name__}; jaxrl_hier.register('mine', my_module, env='CartPole-v1') makes 'mine' a name"
        )
    if name in ALGORITHMS:
        return ALGORITHMS[name]
    if point := _others().get(name):
        return _require_algorithm(name, point.load())
    if ":" in name:
        from jaxrl_envs.registry import imported  # which imports jax

        try:
            return _require_algorithm(name, imported(name))
        except ValueError as error:
            raise UsageError(str(error)) from None
    raise unknown("algorithm", name, summaries())


def is_import_path(name: str) -> bool:
    """Whether the name of an algorithm makes Python import a module that it names, and so runs code:
    "my_module:my_entry"."""
    return ":" in name


def module(name: str) -> Any:
    """The module of an algorithm."""
    return _module(entry(name))


def _module(entry: Entry) -> Any:
    return import_module(entry.module) if isinstance(entry.module, str) else entry.module


def _others() -> dict[str, metadata.EntryPoint]:
    """Entry points of other packages, without those whose names are taken; imports nothing."""
    return {point.name: point for point in metadata.entry_points(group=GROUP) if point.name not in ALGORITHMS}


def _require_algorithm(name: str, found: Any) -> Entry:
    """`found`, if it is an algorithm. Raises UsageError otherwise."""
    if not isinstance(found, Entry):
        raise UsageError(f"{name} must be a jaxrl_hier.registry.Entry, got {type(found).__name__}")
    missing = [part for part in ("Config", "make") if not hasattr(_module(found), part)]
    if missing:
        raise UsageError(f"the module of {name} has no {' and no '.join(missing)}")
    from jaxrl_hier.settings import BaseConfig  # which imports jax

    config = _module(found).Config
    own = isinstance(config, type) and issubclass(config, BaseConfig)
    if not (own and "__dataclass_fields__" in vars(config)):
        lacks = "is no dataclass of its own" if own else "does not derive from jaxrl_hier.settings.BaseConfig"
        raise UsageError(
            f"the Config of {name} {lacks}: write @dataclass(frozen=True) and class Config(BaseConfig), with a type "
            "and a default for each setting"
        )
    return found
