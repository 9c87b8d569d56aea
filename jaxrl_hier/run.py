"""A run as one object: what it is, what it has learned, and what can be done with it.

run = jaxrl_hier.load("runs/maml")                    or what `jaxrl_hier.train` returns
run.evaluate()                                        on the run's own tasks
run.evaluate(env="navigation2d-sparse")               on others
run.plot()                                            paths of the pictures
run.policy()                                          acting step by step, NumPy in and out
"""

import dataclasses
import json
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl_envs import registry as environments
from jaxrl_envs.contract import name_of, on_host
from jaxrl_hier import registry
from jaxrl_hier.building import (
    acts_on_host,
    broken_contracts_in_one_line,
    built,
    compiled_with,
    environment,
    fitted,
)
from jaxrl_hier.checks import UsageError, unknown, warn
from jaxrl_hier.engine import checkpoint
from jaxrl_hier.engine.chunk import Evaluation, evaluation_key, initial
from jaxrl_hier.engine.evaluation import of_seeds_left, without
from jaxrl_hier.engine.files import replacing
from jaxrl_hier.engine.folder import REPORT, best_checkpoint, load_evaluations, read_config, require_no_links
from jaxrl_hier.engine.identity import INSIDE, Identity, differences, identity_of, summary
from jaxrl_hier.engine.identity import load as load_identity
from jaxrl_hier.engine.logging import read_jsonl
from jaxrl_hier.engine.numerics import with_own_numerics
from jaxrl_hier.engine.run_config import RunConfig
from jaxrl_hier.engine.types import Agent, Algorithm, EnvParams, NamedArray, Tasks, iteration_of
from jaxrl_hier.reports import records
from jaxrl_hier.settings import current, shown

if TYPE_CHECKING:
    from jaxrl_hier.policy import Policy


@dataclass(repr=False)
class Run:
    """An algorithm that was trained in an environment. Arrays of `state` and `evaluation` have a leading axis [seeds].

    `jaxrl_hier.train` returns it and `jaxrl_hier.load` reads it from a folder.
    """

    name: str  # of the algorithm
    config: Any  # its settings
    settings: RunConfig  # how long and how often
    env: Any
    tasks: Tasks
    env_name: str | None  # by which the environment can be built again; None: it is the user's own object
    algorithm: Algorithm  # the pure functions
    state: Any  # TrainState; None where a run was killed before its first checkpoint
    evaluation: dict[str, NamedArray]  # the newest, by measurement; {} where none has been made
    rows: list[dict[str, Any]]  # as in metrics.jsonl: one per logged row and seed
    directory: Path | None = None
    seconds: float = 0.0  # of training alone, in this process: no compilation, no evaluation, no checkpoints
    compile_seconds: float = 0.0
    own_tasks: bool = False  # the tasks are the user's, not those that `env_name` builds
    changed: list[str] = field(default_factory=list)  # how `env` and `tasks` differ from those that it was trained on

    def __repr__(self) -> str:
        """In one line, without the arrays."""
        seeds = "1 seed" if self.settings.seeds == 1 else f"{self.settings.seeds} seeds"
        folder = f", in {self.directory}" if self.directory else ""
        return f"Run({self.title}, {seeds}, iteration {self.iteration} of {self.settings.iterations}{folder})"

    @property
    def iteration(self) -> int:
        """Iterations that `state` has been trained for."""
        return 0 if self.state is None else iteration_of(self.state)

    @property
    def title(self) -> str:
        """Algorithm and environment, for tables and pictures."""
        return f"{self.name} on {self.env_name or name_of(self.env)}"

    @property
    def published(self) -> Any:
        """Published values to compare this setting with, or None; none are of tasks of the user's own."""
        function = getattr(registry.module(self.name), "published", None)
        return function(self.config, self.env_name) if function and not (self.own_tasks or self.changed) else None

    @with_own_numerics
    def evaluate(
        self, env: Any = None, tasks: Tasks | None = None, *, key: Any = None, **settings: Any
    ) -> dict[str, NamedArray]:
        """Evaluate `state`: measurements with axes ("seed", …).

        Args:
            env: another environment, as `jaxrl_hier.make` takes it, whose observations and actions have the same form.
            tasks: other tasks. If there are fewer than the settings ask for, fewer are evaluated.
            key: for all random numbers; a number or a JAX key. Default: that of the run's own evaluation at this
                iteration, so that two calls measure the same.
            settings: of the evaluation in the place of the run's, such as `eval_episodes=500`.

        Raises:
            UsageError: the networks do not fit, the algorithm cannot learn there, or a setting cannot work.
        """
        self._require_state()
        algorithm, state, found = self.algorithm, self.state, self.env
        config = self._config_of_evaluation(settings)
        elsewhere = env is not None or tasks is not None
        if elsewhere:
            found, tasks = environment(self.env if env is None else env, tasks)
        tasks = self.tasks if tasks is None else tasks
        if elsewhere or settings:
            said = [name for name in vars(config) if name in settings or not name.startswith("eval")]
            config, _ = fitted(config, self.settings, found, tasks, [*said, *vars(self.settings)])
            algorithm = built(self.name, config, compiled_with(config, self.settings, found), tasks)
            self._require_same_networks(algorithm, found)
        if key is not None:
            from jaxrl_hier.policy import as_key

            state = dataclasses.replace(state, key=jax.random.split(as_key(key), self.settings.seeds))
        if acts_on_host(config, self.settings, found):
            from jaxrl_hier import host_training

            return host_training.evaluate(algorithm.agent, config, found, state)
        try:
            with broken_contracts_in_one_line(found, tasks):
                if elsewhere:
                    state = dataclasses.replace(state, world=worlds(algorithm, state))
                measured = Evaluation(algorithm)(state)
        finally:
            if on_host(found):
                found.episodes.close()
        return without(records.diverged(self.rows), self.settings.seed, measured)

    def _config_of_evaluation(self, settings: dict[str, Any]) -> Any:
        """The config with other settings of its evaluations; UsageError for settings of anything else."""
        known = [name for name in vars(self.config) if name.startswith("eval")]
        for name in settings:
            if name not in known:
                raise unknown(f"setting of an evaluation of {self.name}", name, known)
        return dataclasses.replace(self.config, **settings)

    def policy(self, seed: int = 0, *, greedy: bool = True, key: Any = 0) -> "Policy":
        """What was learned, acting step by step with NumPy in and out; on a new task it adapts as data arrives.

        Args:
            seed: which of the run's seeds, counted from 0.
            greedy: act without exploring, once adapted; see `Policy`.
            key: for all random numbers; a number or a JAX key.
        """
        from jaxrl_hier.policy import Policy

        return Policy(self.algorithm, self._params(seed), self.env, self.tasks, key=key, greedy=greedy)

    def adapt(self, task: EnvParams, key: Any = 0, seed: int = 0, steps: int | None = None) -> Agent:
        """An agent adapted to a task, for compiled code such as `engine.rollout`; its `init` returns what was learned,
        for any key.

        Args:
            task: params of the run's environment.
            key: for all random numbers; a number or a JAX key.
            steps: of adaptation; None: as many as in a meta-test.

        Raises:
            UsageError: the algorithm does not adapt, or a negative number of steps.
        """
        from jaxrl_hier.engine.adapting import as_agent
        from jaxrl_hier.policy import as_key

        if self.algorithm.adapt is None or self.algorithm.player is None:
            raise UsageError(f"{self.name} does not adapt to a task: it acts as it was trained")
        if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int | np.integer) or steps < 0):
            raise UsageError(f"steps must be a whole number of steps of adaptation, got {shown(steps)}")
        params, asked = self._params(seed), {} if steps is None else {"steps": steps}
        known = self.algorithm.adapt(params, task, as_key(key), **asked)
        return as_agent(self.algorithm.player, known)._replace(init=lambda key: params)

    def export(self, folder: str | Path, seed: int = 0, *, greedy: bool = True) -> list[Path]:
        """Write the policy to a folder that acts without this package: arrays, a description, and programs that need
        only jax; see `exported_policy`. Returns the paths.

        Args:
            seed, greedy: see `policy`.
        """
        from jaxrl_hier.export import export

        about = {
            "algorithm": self.name,
            "settings": dataclasses.asdict(self.config),
            "env": self.env_name or name_of(self.env),
            "iteration": self.iteration,
            "seed": self.settings.seed + seed,
        }
        params, where = self._params(seed), folder_of(folder)
        return export(where, self.algorithm, params, self.env, self.tasks, greedy=greedy, about=about)

    def metrics(self, *, frame: bool = False) -> Any:
        """What was logged: "seed" [seeds], "iteration" [rows], every other name [seeds, rows]; see `records`.

        Args:
            frame: as a pandas frame instead, a line for each row and seed.
        """
        return records.metrics_frame(self.rows) if frame else records.metrics(self.rows)

    def plot(self) -> list[Path]:
        """Draw all that the run's files and its newest checkpoint allow, into <run>/plots; returns the paths.

        Raises:
            UsageError: the run has no folder, or nothing to draw yet.
        """
        from jaxrl_hier import quantities
        from jaxrl_hier.pictures import adaptation
        from jaxrl_hier.reports import plotting

        own = quantities.of_algorithm(registry.module(self.name))
        drawn = plotting.plot_run(self._folder(), self.env, self.tasks, self.published, own)
        measured = {name: of_seeds_left(m) for name, m in self.evaluation.items()}
        drawn += adaptation.draw(measured, self.env, self.tasks, self._folder() / "plots", own)
        return drawn + self.pictures()

    def pictures(self) -> list[Path]:
        """Draw what the first seed that has not diverged has learned, where the algorithm has such pictures, and an
        episode of its policy, where the environment can be rendered, into <run>/plots. Returns the paths."""
        here = all(x.is_fully_addressable for x in jax.tree.leaves(self.state) if isinstance(x, jax.Array))
        if self.state is None or not here:  # a part of it may be at other processes
            return []
        from jaxrl_hier import pictures

        lost = records.diverged(self.rows)
        left = next(i for i in range(len(self.state.iteration)) if self.settings.seed + i not in lost)
        first = jax.tree.map(lambda x: x[left], self.state)
        trained = pictures.Trained(self.config, self.env, self.tasks, self.algorithm, first)
        return pictures.draw(registry.module(self.name), trained, self._folder() / "plots")

    def _folder(self) -> Path:
        if self.directory is None:
            raise UsageError("this run has no folder to draw into: train it with out=…")
        if not self.directory.is_dir():
            raise UsageError(f"{self.directory} is not there, seen from {Path.cwd()}: load the run again")
        require_no_links(self.directory)
        return self.directory

    def _params(self, seed: int) -> Any:
        """The parameters of one seed."""
        self._require_state()
        seeds = len(self.state.iteration)
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or not 0 <= seed < seeds:
            raise UsageError(f"seed must be a whole number from 0 to {seeds - 1}, of this run's, got {shown(seed)}")
        if self.settings.seed + int(seed) in records.diverged(self.rows):
            raise UsageError(f"seed {seed} diverged, and what it had learned is lost; the others are there")
        return jax.tree.map(lambda x: x[int(seed)], self.state.params)

    def _require_state(self) -> None:
        if self.state is None:
            raise UsageError(f"{self.directory} holds no checkpoint")

    def origin(self) -> dict[str, Any]:
        """What a run that begins with this one keeps of it in its identity, with the norm of all parameters."""
        self._require_state()
        squares = [jnp.sum(jnp.asarray(x, jnp.float32) ** 2) for x in jax.tree.leaves(self.state.params)]
        norm = float(jnp.sqrt(jnp.sum(jnp.stack(squares))))
        return {"run": self.title, "iteration": self.iteration, "norm": norm, "folder": str(self.directory or "")}

    def initial_params(self, algorithm: Algorithm, env: Any, seeds: int) -> Any:
        """What was learned, as the parameters that another run begins with, [seeds, ...]: those of as many seeds, or of
        the only one for all. On the host, since the other run may have other devices.

        Raises:
            UsageError: the networks differ, or the numbers of seeds.
        """
        self._require_state()
        if self.settings.seeds not in (1, seeds):
            raise UsageError(f"initial must be a run of one seed or of {seeds}, got one of {self.settings.seeds}")
        self._require_same_networks(algorithm, env, "the settings of the networks must be the same, too")
        each = [self._params(i if self.settings.seeds > 1 else 0) for i in range(seeds)]
        return jax.tree.map(lambda *xs: np.stack(xs), *jax.device_get(each))

    def _require_same_networks(
        self, algorithm: Algorithm, env: Any, advice: str = "observations and actions must have the same form"
    ) -> None:
        """Raises UsageError unless the parameters of `state` have the shapes of those of `algorithm`."""
        key = jax.eval_shape(lambda: jax.random.key(0))
        wanted = jax.eval_shape(algorithm.agent.init, key)
        leaves = lambda tree: {
            jax.tree_util.keystr(path, simple=True, separator=".") or "its table": tuple(x.shape)
            for path, x in jax.tree_util.tree_leaves_with_path(tree)
        }
        old, new = leaves(jax.tree.map(lambda x: x[0], self.state.params)), leaves(wanted)
        wrong = [name for name in [*old, *new] if old.get(name) != new.get(name)]
        if wrong:
            name, text = wrong[0], lambda shape: "not there" if shape is None else f"{list(shape)}"
            raise UsageError(
                f"what {self.title} has learned does not fit {name_of(env)}: {name} is {text(old.get(name))} and would "
                f"be {text(new.get(name))}; {advice}"
            )


def worlds(algorithm: Algorithm, state: Any) -> Any:
    """New worlds for a state [seeds, ...] that was trained in other environments: some evaluations use their tasks."""
    new = lambda state: algorithm.init(jax.random.fold_in(evaluation_key(state), 0)).world
    return jax.jit(jax.vmap(new))(state)


@with_own_numerics
def load(
    folder: str | Path,
    env: Any = None,
    tasks: Tasks | None = None,
    iteration: int | Literal["best"] | None = None,
    *,
    algorithm: str | None = None,
) -> Run:
    """The run in a folder, as it stood at a checkpoint. Nothing is trained, played or compiled.

    Args:
        env, tasks: needed if the run's own cannot be built by a name, or to replace them. A warning says how they
            differ from those that the run was trained on.
        iteration: of the checkpoint; default: the newest that can be read. "best": that of the best evaluation, which
            runs with `keep_best` keep.
        algorithm: its name again, needed if it is an import path: a folder may be a stranger's, and loading it imports
            no module that only the folder names. The same holds for `env`.

    Raises:
        UsageError: no run, no such checkpoint, a damaged one, an environment that must be given as `env`, or one that
            is no longer what the run was trained on.
    """
    directory = folder_of(folder)
    about = read_config(directory)
    kept = load_identity(directory, about["identity"])
    name, config = _algorithm_of(kept.facts, algorithm)
    asked = env is not None or tasks is not None
    try:
        env = _own_environment(directory, kept, tasks) if env is None else env
        found, found_tasks = environment(env, tasks)
    except UsageError as error:
        hint = "" if asked or env is None else "; if it is your own, give it as env"
        raise UsageError(f"{directory} was trained on {env}: {error}{hint}" if hint else str(error)) from None
    env_name = env if isinstance(env, str) else None
    now = identity_of(name, {}, env_name, found, found_tasks)
    parts = ("environment", INSIDE, "tasks") if "environment" in kept.facts else ("env",)
    changed = differences(kept, now, parts)
    if changed and not asked:
        raise UsageError(
            f"{directory} was trained on something else than {env} is now: {summary(changed)}; give env or tasks "
            "to load it on what you mean"
        )
    if changed and "environment" in kept.facts:
        # at the caller's line, beyond the wrapper of `with_own_numerics`
        warnings.warn(f"{directory} was trained on something else: {summary(changed)}", stacklevel=3)
    settings = _settings_of(about, kept.facts)
    made = built(name, config, compiled_with(config, settings, found), found_tasks)
    run = Run(
        name=name,
        config=config,
        settings=settings,
        env=found,
        tasks=found_tasks,
        env_name=env_name,
        algorithm=made,
        state=None,
        evaluation={},
        rows=read_jsonl(directory / "metrics.jsonl"),
        directory=directory,
        own_tasks=tasks is not None,
        changed=changed,
    )
    evaluations = load_evaluations(directory)
    if iteration == "best":
        iteration = _best(directory, settings)
    if checkpoint.iterations(directory) or iteration is not None:
        run.state = checkpoint.restore(directory, initial(made, settings)[0], iteration)
        run.rows = [row for row in run.rows if row["iteration"] <= run.iteration]
        evaluations = {i: measured for i, measured in evaluations.items() if i <= run.iteration}
    if evaluations:
        run.evaluation = evaluations[max(evaluations)]
    return run


def _best(directory: Path, settings: RunConfig) -> int:
    """The iteration of the best checkpoint."""
    if not settings.keep_best:
        raise UsageError(f"{directory} kept no best checkpoint: train with keep_best (and evaluate_every)")
    if (found := best_checkpoint(directory, settings.keep_best, settings.keep_lowest)) is None:
        raise UsageError(f"{directory} has no evaluation with a checkpoint yet")
    return found[1]


def folder_of(path: Any) -> Path:
    """A path as a user writes it, with `~` for the home directory."""
    try:
        return Path(path).expanduser()
    except TypeError:
        raise UsageError(f"a run folder is given by its path, got {shown(path)}") from None
    except RuntimeError:
        raise UsageError(f"the home directory that {path} begins with is unknown; write it out") from None


def import_path_again(folder: str | Path, env: Any) -> str | None:
    """`env`, if it is an import path and the one that a run's folder names; `load` then builds it."""
    again = isinstance(env, str) and environments.is_import_path(env)
    return env if again and env == read_config(folder_of(folder))["identity"].get("env") else None


def _algorithm_of(facts: dict[str, Any], again: str | None = None) -> tuple[str, Any]:
    """Name and settings of a run's algorithm. An import path must have been given `again`."""
    try:
        name, settings = facts["algorithm"], facts["config"]
    except KeyError as error:
        raise UsageError(f"the run does not say its {error.args[0]}: it was not made by jaxrl_hier.train") from None
    if again not in (None, name):
        raise UsageError(f"the run is one of {shown(name)}, not of {shown(again)}")
    if again is None and registry.is_import_path(name):
        raise UsageError(
            f"the run names its algorithm by an import path, {shown(name)}: if you trust its code, name it again "
            "(--algorithm, algorithm=)"
        )
    config_class = registry.module(name).Config
    known = {f.name for f in dataclasses.fields(config_class)}
    try:
        settings = current(config_class, settings)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise UsageError(f"the run's settings of {name} cannot be read: {error}") from error
    if missing := settings.keys() - known:
        raise UsageError(f"the run was made by another version: {name} has no setting {', '.join(sorted(missing))}")
    return name, config_class(**settings)


def current_facts(config_class: Any, facts: dict[str, Any]) -> dict[str, Any]:
    """The facts that a run of any version kept, with the settings of today: under their present names, and at their
    defaults if the run did not have them."""
    defaults = {f.name: f.default for f in dataclasses.fields(config_class)}
    settings = defaults | current(config_class, facts.get("config", {}))
    return facts | {"config": json.loads(json.dumps(settings))}


def _own_environment(directory: Path, kept: Identity, tasks: Tasks | None) -> str:
    """The name of the environment that a run was trained on. Raises UsageError if it had none."""
    name = kept.facts.get("env")
    if name is None:
        what = kept.facts.get("environment", {}).get("class", "an environment")
        raise UsageError(f"{directory} was trained on an object of {what}, which no name builds: give it as env")
    if kept.facts.get("own_tasks") and tasks is None:
        raise UsageError(f"{directory} was trained on tasks of your own, which no name builds: give them as tasks")
    if environments.is_import_path(name):
        raise UsageError(
            f"{directory} names its environment by an import path, {shown(name)}: if you trust its code, name it again "
            "(--env, env=)"
        )
    return name


def _settings_of(about: dict[str, Any], facts: dict[str, Any]) -> RunConfig:
    """The settings of the run that this version knows."""
    known = {f.name for f in dataclasses.fields(RunConfig)}
    kept = {name: value for name, value in about.get("run", {}).items() if name in known}
    return RunConfig(**kept | {"seed": facts["seed"], "seeds": facts["seeds"]})


def write_report(run: Run) -> None:
    """Write <run>/report.json: times, device and the last rows."""
    assert run.directory is not None
    last = [row for row in run.rows if row["iteration"] == run.rows[-1]["iteration"]] if run.rows else []
    report = {
        "train_seconds": round(run.seconds, 3),
        "compile_seconds": round(run.compile_seconds, 3),
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "last": last,
    }
    with replacing(run.directory / REPORT) as partial:
        partial.write_text(json.dumps(report, indent=2) + "\n")


def draw(run: Run) -> None:
    """`Run.plot`; a picture that cannot be drawn costs a warning, and not the run."""
    try:
        run.plot()
    except Exception as error:
        what = " ".join(f"{type(error).__name__}: {error}".split())
        warn(
            f"the pictures of {run.directory} are not complete ({what[:200]}); training is, and `jaxrl-hier plot` "
            "draws them"
        )
