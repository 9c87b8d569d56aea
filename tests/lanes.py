"""Which tests a plain `pytest` leaves to `pytest -m thorough`.

A plain run holds every algorithm to its ground truth within minutes. What is left out takes long and repeats for other
algorithms, settings or devices what a test that stays has shown for one of its kind, or runs whole programs.
"""

import re

FOLDER = "tests/"

# regular expressions for what follows `tests/` in a node id, from its beginning
THOROUGH = (
    # the engine's invariants: one algorithm for each loop stays
    r"engine/test_train\.py::test_invariants\[(?!q-learning-|sac-)",
    r"engine/test_train\.py::test_seed_i_of_a_vmapped_run_equals_the_single_run\[(?!q-learning\])",
    r"engine/test_train\.py::test_eight_devices_agree_with_one\[(?!dqn\])",
    r"engine/test_train\.py::test_no_key_is_used_twice\[(?!\w+-(?:sac|hiro|pearl|rl2|maxq)\]|(?:sac|hiro|pearl|rl2|maxq)-)",
    r"engine/test_train\.py::test_presets_keep_their_types\[(?!fomaml)",
    r"engine/test_evaluation\.py::test_of_(tasks_that_are_drawn|the_test_tasks)\[(?!sac\]|rl2\])",
    r"engine/test_broken_environments\.py::test_one_line_from_every_learner\[(?!sac|maml)",
    r"engine/test_train\.py::test_killed_and_resumed_in_new_processes_is_bit_equal",
    r"engine/test_killed_runs\.py",
    r"test_jax_switches\.py::test_every_algorithm_trains_the_same_under_all_switches_at_once\[(?!option-critic\])",
    r"test_policy\.py::test_acting_step_by_step_is_the_rollout\[(?!option-critic\]|sac\]|maml\]|pearl\])",
    r"test_actions_inside\.py::test_environments_get_actions_inside_their_space\[(?!sac\])",
    r"test_gymnax\.py::test_an_algorithm_meets_every_kind_of_gymnax_environment",
    # the same mathematics in pieces, in sweeps, elsewhere; and what is learned in the end
    r"meta/test_maml\.py::test_(chunks_of_tasks_change_nothing|numbers_that_are_only_multiplied|variants_run|discrete_actions)",
    r"meta/test_pearl\.py::test_context_tells_the_task",
    r"meta/test_maml\.py::test_(fisher_product|meta_gradient_against_finite_differences\[True)",
    r"meta/test_rl2\.py::test_only_with_memory_is_the_bit_recalled\[(?!gru-ppo)",
    r"meta/test_rl2\.py::test_acting_equals_the_unroll_across_rollouts_and_trials\[(?!True-gru|False-linear)",
    r"meta/test_few_shot_regression\.py::test_methods_learn\[(?!maml)",
    r"goals/test_uvfa\.py::test_(held_out_goals|bootstrapping_reaches_the_exact_values\[concatenated)",
    r"hierarchical/test_maxq\.py::test_(learned_values_of_taxi|greedy_evaluation_of_a_learned_taxi)",
    r"hierarchical/test_learners\.py::test_(models_approach_the_exact_ones|converges_to_the_optimal_option_values)\[smdp",
    # what the checker says of each environment, the same in one line each
    r"envs/test_\w+\.py::test_conforms\[(?!False-bandit|four-rooms-goals|point-maze\]|bit-flipping-5)",
    r"envs/test_gymnasium_env\.py::test_gymnasium_finds_nothing_wrong\[(?!taxi|point)",
    r"test_spaces\.py::test_spaces_are_taken_or_named\[(?!sac|rl2|maxq|dqn|option-critic\])",
    r"test_old_runs\.py::test_a_run_of_an_earlier_version_is_loaded\[(?!maml|dqn|rl2|pearl)",
    r"test_host\.py::test_hindsight_learns_on_the_host",
    r"learning/test_hindsight\.py::test_against_a_slow_version\[(?!future)",
    r"exact/test_hierarchy\.py::test_taxi_loses_nothing_by_its_hierarchy\[(?!rules0)",
    r"hierarchical/test_hiro\.py::.*\[limit",
    r"hierarchical/test_learners\.py::test_(first_episode_is_random|subgoals_find|settings_can_be_swept|evaluation_of_the_opt)",
    r"learning/test_optimization\.py::test_rates_reach_zero_after_so_many_iterations_and_no_sooner\[(?!dqn\])",
    r"meta/test_switches\.py::test_(proximal_epochs|memory_does_not|microbatches|learned_rates_start|a_switch_of.*\[(?!first))",
    r"hierarchical/test_fun\.py::test_remembers_the_sign",
    r"hierarchical/test_option_critic\.py::test_it_learns_the_way",
    r"envs/test_taxi\.py::test_play_with_gymnasiums_fickle",
    r"classical/test_opponents\.py::test_published_numbers_of_processes",
    # whole programs: examples, pages, processes, pictures
    r"test_examples\.py",
    r"test_readme\.py::test_snippet_runs",
    r"test_old_runs\.py::test_a_policy_acts_the_same_in_another_process",
    r"test_cli\.py::test_(train_writes_everything|a_policy_is_exported|a_tabular_run|a_folder_in_the_users_home|resume_of_a_finished)",
    r"learning/test_cnn\.py::test_minatar_is_no_vector",
    r"test_gymnasium_boundary\.py::test_(a_learner_on_shifted|killed_between)",
    r"reports/test_pictures\.py",
)

_PATTERN = re.compile("|".join(f"(?:{pattern})" for pattern in THOROUGH))


def is_thorough(node: str) -> bool:
    """Whether the test of this node id, such as tests/test_cli.py::test_help, is left out of a plain `pytest`."""
    return bool(_PATTERN.match(node.removeprefix(FOLDER)))
