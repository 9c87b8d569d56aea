"""Which tests a plain `pytest` leaves to `pytest -m thorough`.

A plain run holds every algorithm to its ground truth within minutes. What is left out takes long and repeats for other
algorithms, settings or devices what a test that stays has shown for one of its kind, or runs whole programs.
"""

import re

# file in this folder -> regular expressions for the names of its tests, from the beginning of `test_name[parameters]`
THOROUGH: dict[str, tuple[str, ...]] = {
    # the engine's invariants: one algorithm of each kind stays
    "engine/test_train.py": (
        r"test_invariants\[(?!q-learning-|sac-)",
        r"test_seed_i_of_a_vmapped_run_equals_the_single_run\[(?!q-learning\])",
        r"test_eight_devices_agree_with_one\[(?!dqn\])",
        r"test_no_key_is_used_twice\[(?!(sac|hiro|pearl|rl2|maxq)-)",
        r"test_presets_keep_their_types\[(?!fomaml)",
    ),
    "engine/test_evaluation.py": (
        r"test_of_draws_from_the_test_tasks\[(?!sac\])",
        r"test_of_the_test_tasks\[(?!rl2\])",
    ),
    "engine/test_broken_environments.py": (r"test_one_line_from_every_learner\[(?!sac|maml)",),
    "engine/test_killed_runs.py": (r"test_",),
    "engine/test_replay.py": (r"test_ring_is_a_deque_that_knows_its_episodes\[pictures, eight always",),
    "engine/test_room.py": (r"test_an_(iteration|evaluation)_beyond_the_machine",),
    "engine/test_processes.py": (r"test_",),
    "engine/test_folder.py": (
        r"test_a_second_",
        r"test_a_file_that_can_grow_no_more",
        r"test_a_damaged_checkpoint_is_left_out_for_the_one_before\[(?!d-flipped)",
    ),
    "test_faults.py": (r"test_a_short_campaign",),
    "test_determinism.py": (r"test_two_runs",),
    "test_devices.py": (r"test_of_an_algorithm\[(?!dqn)",),
    "test_jax_switches.py": (r"test_every_algorithm_trains_the_same_under_all_switches_at_once\[(?!option-critic\])",),
    "test_traced_settings.py": (
        r"test_every_number_of_every_algorithm_may_be_traced\[(?!(q-learning|maml|td3|hiro|pearl|rl2)\])",
        r"test_a_traced_member_is_the_run_with_its_numbers\[(hiro|her-dqn)\]",
    ),
    "test_initial.py": (r"test_every_algorithm_\w+\[(?!(q-learning|td3|rl2)\])",),
    "test_sweeps.py": (r"test_structural_", r"test_members_that_multiply_matrices_are_close"),
    "test_random_settings.py": (r"test_valid_", r"test_invalid_settings_\w+\[(?!(q-learning|dqn|maml)\])"),
    "test_policy.py": (
        r"test_acting_step_by_step_is_the_rollout\[(?!(option-critic|sac|maml|pearl)\])",
        r"test_a_recurrent_policy_makes_the_observations_of_its_trials_itself\[varibad",
    ),
    "test_actions_inside.py": (r"test_environments_get_actions_inside_their_space\[(?!sac\])",),
    "envs/test_adapters.py": (r"test_(?!without_the_package|ids_of)",),
    "envs/test_ant_maze.py": (r"test_",),
    "envs/test_mjx.py": (r"test_",),
    "envs/test_mujoco.py": (r"test_",),
    "envs/test_xland.py": (r"test_",),
    "test_host_programs.py": (
        r"test_training_is_that_on_the_twin\[(?!rl2\])",
        r"test_every_learner_of_vectors_learns_from_it\[(?!hiro\])",
        r"test_devices_share",
        r"test_hindsight_learns",
    ),
    "test_mlsh.py": (
        r"test_one_sub_policy_chosen_at_every_step_learns_as_ppo\[discrete\]",
        r"test_pictures_go_through_convolutions",
    ),
    "test_gymnax.py": (r"test_every_algorithm_meets_an_environment_of_gymnax",),
    "test_spaces.py": (r"test_spaces_are_taken_or_named\[(?!(sac|rl2|maxq|dqn|option-critic)\])",),
    # the same mathematics in pieces, in sweeps and for other parameters, and what is learned in the end
    "meta/test_maml.py": (
        r"test_chunks_of_tasks_change_nothing",
        r"test_numbers_that_are_only_multiplied_can_be_swept_by_vmap",
        r"test_variants_run",
        r"test_discrete_actions_and_gymnax_environments",
        r"test_fisher_product_is_the_hessian",
        r"test_meta_gradient_against_finite_differences\[True",
    ),
    "meta/test_switches.py": (
        r"test_proximal_epochs",
        r"test_memory_does_not_grow",
        r"test_microbatches_change_nothing",
        r"test_learned_rates_start_at_alpha",
        r"test_a_switch_of_the_outer_gradient_changes_that_alone\[(?!first)",
    ),
    "meta/test_pearl.py": (r"test_context_tells_the_task",),
    "meta/test_rl2.py": (
        r"test_only_with_memory_is_the_bit_recalled\[(?!gru-ppo)",
        r"test_acting_equals_the_unroll_across_rollouts_and_trials\[(?!True-gru|False-linear)",
    ),
    "meta/test_few_shot_regression.py": (r"test_methods_learn\[(?!maml)",),
    "goals/test_uvfa.py": (
        r"test_held_out_goals",
        r"test_bootstrapping_reaches_the_exact_values\[concatenated",
    ),
    "hierarchical/test_maxq.py": (
        r"test_learned_values_of_taxi_are_the_exact_ones",
        r"test_greedy_evaluation_of_a_learned_taxi",
    ),
    "hierarchical/test_learners.py": (
        r"test_models_approach_the_exact_ones\[smdp",
        r"test_converges_to_the_optimal_option_values\[smdp",
        r"test_first_episode_is_random_over_the_options",
        r"test_subgoals_find_the_hallway_options",
        r"test_settings_can_be_swept",
        r"test_evaluation_of_the_optimal_tables",
    ),
    "hierarchical/test_hiro.py": (r"test_\w+\[limit",),
    "hierarchical/test_fun.py": (r"test_remembers_the_sign_of_a_t_maze",),
    "hierarchical/test_option_critic.py": (r"test_it_learns_the_way_through_four_rooms",),
    "learning/test_recurrent.py": (
        r"test_unroll_equals_the_steps\[(?!4-)",
        r"test_gradients_through_chunks_equal_the_plain_ones\[(3-(?!gru|attention)|1-|12-)",
    ),
    "learning/test_hindsight.py": (r"test_against_a_slow_version\[(?!future)",),
    "learning/test_optimization.py": (r"test_rates_reach_zero_after_so_many_iterations_and_no_sooner\[(?!dqn\])",),
    "exact/test_hierarchy.py": (r"test_taxi_loses_nothing_by_its_hierarchy\[(?!rules0)",),
    "classical/test_opponents.py": (r"test_published_numbers_of_processes",),
    # the checker on each environment
    "envs/test_atari.py": (r"test_fun_trains",),
    "envs/test_bit_flipping.py": (r"test_conforms",),
    "envs/test_check.py": (r"test_environments_without_a_test_of_their_own_pass",),
    "envs/test_maze.py": (r"test_conforms",),
    "envs/test_memory_tasks.py": (r"test_conforms",),
    "envs/test_treasure.py": (r"test_conforms",),
    "envs/test_point_goals.py": (r"test_conforms\[(?!four-rooms-goals)",),
    "envs/test_point_tasks.py": (r"test_conforms\[(?!point-maze\])",),
    "envs/test_trial.py": (r"test_conforms\[(?!False-bandit)",),
    "envs/test_taxi.py": (r"test_play_with_gymnasiums_fickle_passenger",),
    "envs/test_gymnasium_env.py": (r"test_gymnasium_finds_nothing_wrong\[(?!taxi|point)",),
    # whole programs: examples, pages, processes, pictures
    "test_examples.py": (r"test_",),
    "test_smoke.py": (r"test_figures_run", r"test_measurements_of_speed_run", r"test_steps_for_a_gpu"),
    "test_readme.py": (r"test_snippets_run",),
    "test_board.py": (r"test_",),
    "test_notebooks.py": (r"test_it_runs",),
    "test_host.py": (r"test_hindsight_learns_on_the_host", r"test_by_name_with_discrete_actions"),
    "test_gymnasium_boundary.py": (
        r"test_a_learner_on_shifted_spaces",
        r"test_killed_between_a_checkpoint_and_its_evaluation",
    ),
    "test_old_runs.py": (
        r"test_a_policy_acts_the_same_in_another_process",
        r"test_a_run_of_an_earlier_version_goes_on",
        r"test_a_run_of_an_earlier_version_is_loaded\[(?!maml|dqn|rl2)",
    ),
    "test_cli.py": (
        r"test_train_writes_everything",
        r"test_evaluate_prints_ours_beside_the_published",
        r"test_plot_draws_again",
        r"test_a_policy_is_exported",
        r"test_a_tabular_run",
        r"test_a_folder_in_the_users_home",
        r"test_resume_of_a_finished_run_only_evaluates",
    ),
    "learning/test_cnn.py": (r"test_minatar_is_no_vector",),
    "reports/test_pictures.py": (r"test_",),
}


def is_thorough(node: str) -> bool:
    """Whether the test of this node id, such as tests/test_cli.py::test_help, is left out of a plain `pytest`."""
    file, _, name = node.removeprefix("tests/").partition("::")
    return any(re.match(pattern, name) for pattern in THOROUGH.get(file, ()))
