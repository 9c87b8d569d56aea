"""What makes each registered algorithm small enough for a test."""

from typing import Any

Settings = dict[str, Any]  # of an algorithm: keyword arguments of its Config

TINY_MAML: Settings = {
    "meta_batch_size": 8,
    "episodes_per_task": 4,
    "horizon": 20,
    "hidden": (16,),
    "eval_tasks": 4,
    "eval_episodes": 4,
    "eval_inner_steps": 2,
    # beyond about six iterations on so few samples, float32 conjugate gradients amplify rounding by 1e4: vmapped,
    # sharded and plain programs, which round differently, could not be compared
    "cg_iterations": 4,
}
TABULAR: Settings = {"recorded_episodes": 2, "environments": 8}
REPLAY: Settings = {
    "environments": 8,
    "batch_size": 32,
    "updates": 2,
    "capacity": 4096,
    "warmup_steps": 64,
    "hidden": (16,),
}
POLICY_GRADIENT: Settings = {
    "environments": 8,
    "rollout_length": 8,
    "epochs": 2,
    "minibatch_size": 32,
    "cg_iterations": 4,
    "hidden": (16,),
    "eval_episodes": 4,
}
RECURRENT: Settings = {"environments": 16, "minibatch_size": 8, "memory_size": 8, "eval_tasks": 4}
SIZES: dict[str, Settings] = {
    **dict.fromkeys(("dqn", "ddpg", "td3", "sac", "her-dqn", "her-ddpg", "her-td3", "her-sac"), REPLAY),
    **dict.fromkeys(("maml", "fomaml", "reptile", "anil", "e-maml", "promp", "meta-sgd"), TINY_MAML),
    "few-shot-regression": {"meta_batch_size": 8, "hidden": (8,), "eval_tasks": 4},
    **dict.fromkeys(("reinforce", "a2c", "trpo", "ppo"), POLICY_GRADIENT),
    "q-learning": TABULAR,
    "sarsa": TABULAR,
    "smdp-q": TABULAR,
    "intra-option-q": TABULAR,
    "option-critic": {"environments": 8, "rollout_length": 4, "hidden": (16,), "eval_episodes": 4},
    "option-critic-tabular": TABULAR,
    "option-ppo": {
        "num_options": 3,
        "environments": 8,
        "rollout_length": 8,
        "epochs": 2,
        "minibatch_size": 32,
        "hidden": (16,),
        "eval_episodes": 4,
    },
    "uvfa": {
        "environments": 8,
        "rollout_length": 4,
        "goals_per_update": 4,
        "hidden": (16,),
        "eval_goals": 2,
        "eval_episodes": 2,
    },
    "fun": {
        "environments": 8,
        "rollout_length": 4,
        "goal_horizon": 3,
        "dilation": 2,
        "channels": (4,),
        "hidden": (8,),
        "goal_size": 8,
        "worker_size": 8,
        "eval_episodes": 4,
    },
    "hiro": {
        "environments": 8,
        "batch_size": 16,
        "manager_updates": 2,
        "capacity": 4096,
        "warmup_steps": 160,
        "hidden": (16,),
        "eval_episodes": 2,
    },
    "maxq": {"environments": 8, "rollout_length": 20, "eval_episodes": 2, "eval_horizon": 20},
    "rl2": RECURRENT,
    "recurrent-ppo": RECURRENT | {"rollout_length": 8},
    "rl3": RECURRENT | {"episodes_per_trial": 2, "entropy_decay_iterations": 2, "learning_rate_iterations": 2},
    "rl2-options": RECURRENT | {"environments": 8, "eval_tasks": 2},
    "varibad": RECURRENT
    | {
        "episodes_per_trial": 2,
        "elbo_minibatch_size": 8,
        "elbo_terms": 4,
        "hidden": (8,),
        "decoder_hidden": (8,),
        "epochs": 2,
    },
    "maml-options": TINY_MAML | {"num_options": 3},
    "mlsh": {
        "num_sub_policies": 2,
        "steps_per_choice": 3,
        "meta_batch_size": 8,
        "episodes_per_task": 4,
        "horizon": 16,
        "warmup_updates": 2,
        "joint_updates": 2,
        "epochs": 2,
        "minibatch_size": 32,
        "hidden": (16,),
        "eval_tasks": 2,
        "eval_updates": 2,
    },
    "pearl": {
        "train_tasks": 8,
        "tasks_per_iteration": 2,
        "initial_steps": 20,
        "prior_steps": 20,
        "posterior_steps": 20,
        "updates": 2,
        "meta_batch_size": 4,
        "batch_size": 8,
        "context_size": 8,
        "hidden": (16,),
        "encoder_hidden": (16,),
        "capacity": 8 * 100,
        "eval_tasks": 2,
        "eval_episodes": 2,
    },
}

# presets that are switches of an algorithm with the loop, and the way to act, of another preset, which stands for them
# where programs are compared that take long to compile: fomaml, anil, e-maml and meta-sgd are those of maml, reptile
# and promp; ddpg is td3's; her-td3 and her-sac are those of her-ddpg, td3 and sac;
# reinforce is a2c's, recurrent-ppo, rl3 and rl2-options are rl2's
ALIKE = {
    "fomaml",
    "anil",
    "e-maml",
    "meta-sgd",
    "ddpg",
    "her-td3",
    "her-sac",
    "reinforce",
    "recurrent-ppo",
    "rl3",
    "rl2-options",
}
