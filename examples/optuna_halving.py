"""Optuna proposes settings, and successive halving over sweeps measures them.

Optuna (`pip install "jaxrl-hier[optuna]"`) proposes a group of settings, which is one compiled program. The better half
of the group is trained again for twice as long, and so on until none is left. Optuna learns from the last return of
each.

    python -m examples.optuna_halving
"""

from typing import Any

import optuna

import jaxrl_hier


def main(groups: int = 4, members: int = 8, iterations: int = 1_000, seeds: int = 3, **settings: Any) -> dict[str, Any]:
    """The best settings of DQN on CartPole after `groups` groups.

    Args:
        members: of a group, a power of two. iterations: of its first round; each round has half the members of the
            one before, and twice the iterations.
        settings: further ones, as for `jaxrl_hier.train`.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    for number in range(groups):
        left = [study.ask() for _ in range(members)]
        proposed = {trial.number: proposal(trial) for trial in left}
        length = iterations
        while left:
            ranked = trained([proposed[trial.number] for trial in left], length, seeds, **settings)
            better = len(left) // 2
            for i, value in ranked[better:]:
                diverged = optuna.trial.TrialState.FAIL if value is None else None
                study.tell(left[i], value, state=diverged)
            left, length = [left[i] for i, _ in ranked[:better]], 2 * length
        print(f"group {number + 1}: the best return is {study.best_value:.1f} with {study.best_params}")
    return study.best_params


def proposal(trial: optuna.Trial) -> dict[str, Any]:
    """Settings that share a program: learning rates and the like."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
        "target_rate": trial.suggest_float("target_rate", 2e-3, 5e-2, log=True),
        "epsilon": trial.suggest_float("epsilon", 0.02, 0.3),
    }


def trained(members: list[dict[str, Any]], iterations: int, seeds: int, **settings: Any) -> list[tuple[int, Any]]:
    """Members of one program by their return, the best first; None where one diverged."""
    run = {"iterations": iterations, "checkpoint_every": iterations, "evaluate_every": 0, "quiet": True}
    run |= {"log_every": iterations // 2}
    found = jaxrl_hier.sweep("dqn", over=members, seeds=seeds, **run | settings)
    return [(line["member"], line["return"]) for line in found.table()]


if __name__ == "__main__":
    main()
