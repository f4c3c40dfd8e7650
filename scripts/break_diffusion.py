"""Break targets, schedules, samplers, scores, networks, training and search on purpose.

    python scripts/break_diffusion.py

As `break_physics.py`, whose machinery it uses: every break must be noticed by the tests named
beside it. Takes about five minutes.
"""

from __future__ import annotations

from break_physics import Break, run_breaks

SAMPLERS, SCHEDULES, SCORES = "test_samplers.py", "test_schedules.py", "test_scores.py"
NETWORKS = "test_networks.py"
KDE, SEARCH, TRAINING, UNET = "test_kde.py", "test_search.py", "test_training.py", "test_unet.py"

BREAKS = (
    Break(
        "add too little noise on the way",
        "diffusion/samplers.py",
        (("y = mean + math.sqrt(added) * white", "y = mean + 0.8 * math.sqrt(added) * white"),),
        (
            f"{SAMPLERS}::test_with_many_steps_every_sampler_gives_the_true_variance",
            f"{SAMPLERS}::test_ancestral_variances_are_right_for_the_data_that_they_are_meant_for",
            f"{SAMPLERS}::test_images_are_drawn_as_often_as_they_occur",
        ),
    ),
    Break(
        "start from the wrong law",
        "networks/posterior.py",
        (
            (
                "start = white_noise(seen.estimate",
                "start = 0.8 * white_noise(seen.estimate",
            ),
        ),
        (
            f"{SEARCH}::test_a_schedule_from_the_wrong_level_loses",
            f"{SAMPLERS}::test_a_start_at_the_estimate_of_phi_mends_the_mean_and_leaves_the_closed_form",
        ),
    ),
    Break(
        "start at the estimate with too much noise",
        "networks/posterior.py",
        (
            (
                "start = gamma**0.5 * shift + (1.0 - gamma) ** 0.5 * start",
                "start = gamma**0.5 * shift + start",
            ),
        ),
        (
            f"{SAMPLERS}::test_a_start_at_the_estimate_of_phi_mends_the_mean_and_leaves_the_closed_form",
        ),
    ),
    Break(
        "extrapolate 2M the wrong way",
        "diffusion/samplers.py",
        (
            (
                "ahead = clean + width / (2.0 * width_before) * (clean - before)\n"
                "        y = _exponential_step(y, ahead, now, after)\n"
                "        before",
                "ahead = clean - width / (2.0 * width_before) * (clean - before)\n"
                "        y = _exponential_step(y, ahead, now, after)\n"
                "        before",
            ),
        ),
        (
            f"{SAMPLERS}::test_deterministic_samplers_converge_with_their_order",
            f"{SAMPLERS}::test_dpm_solver_follows_the_trajectory_of_diffusers",
            f"{SAMPLERS}::test_the_shipped_way_to_draw_gives_the_right_variance",
        ),
    ),
    Break(
        "forget Heun's second slope",
        "diffusion/samplers.py",
        (("0.5 * (slope + slope_after)", "0.5 * (slope + slope)"),),
        (f"{SAMPLERS}::test_deterministic_samplers_converge_with_their_order",),
    ),
    Break(
        "mistake gamma for its root",
        "diffusion/samplers.py",
        (
            (
                "return shrink * y + (math.sqrt(after) - shrink * math.sqrt(now)) * clean",
                "return shrink * y + (after - shrink * now) * clean",
            ),
        ),
        (
            f"{SAMPLERS}::test_ddim_follows_the_trajectory_of_diffusers",
            f"{SAMPLERS}::test_deterministic_samplers_converge_with_their_order",
        ),
    ),
    Break(
        "score with M^2 instead of M (M - 1)",
        "scoring/proper.py",
        (
            ("pairs / (2 * count * (count - 1))", "pairs / (2 * count * count)"),
            ("spread / (count * (count - 1))", "spread / (count * count)"),
        ),
        (
            f"{SCORES}::test_the_crps_is_that_of_infinitely_many_draws_for_any_number",
            f"{SCORES}::test_scores_agree_with_scoringrules",
            f"{SCORES}::test_the_energy_loss_teaches_a_generator_the_spread",
        ),
    ),
    Break(
        "forget (M + 1) / M",
        "scoring/calibration.py",
        (("(m + 1) / m * variance", "variance"),),
        (f"{SCORES}::test_spread_skill_is_one_where_draws_are_like_the_truth",),
    ),
    Break(
        "train on another image's noise",
        "diffusion/objectives.py",
        (
            (
                "raw - regression_target(target, clean, noise, gamma)",
                "raw - regression_target(target, clean, noise.flip(0), gamma)",
            ),
        ),
        (f"{SCORES}::test_the_squared_error_is_least_for_the_ideal_denoiser",),
    ),
    Break(
        "count sums at every noise level",
        "diffusion/objectives.py",
        (("1.0 / (1.0 + sums.above_sigma**2)", "1.0"),),
        (
            f"{TRAINING}::test_sums_enter_the_loss_of_the_noise_levels_above_the_one_that_the_recipe_names",
        ),
    ),
    Break(
        "leave sums over windows as small as means",
        "networks/psi.py",
        (("1, side // 2) * side for side", "1, side // 2) for side"),),
        (f"{NETWORKS}::test_sums_over_windows_keep_white_noise_white_and_lift_what_is_alike",),
    ),
    Break(
        "reach less far than windows do",
        "networks/psi.py",
        (("stem = 1 + max(windows, default=1) // 2", "stem = 1"),),
        (f"{NETWORKS}::test_psi_with_windows_reaches_as_far_as_its_largest_one_lets_it",),
    ),
    Break(
        "run the network for weak noise where noise is strong",
        "networks/psi.py",
        (
            (
                "return self._part(log_snr <= self._strong, condition)",
                "return self._part(log_snr > self._strong, condition)",
            ),
        ),
        (
            f"{NETWORKS}::test_each_noise_level_is_run_by_its_own_network",
            f"{NETWORKS}::test_draws_run_the_network_of_each_level",
        ),
    ),
    Break(
        "train the networks on one another's noise",
        "networks/psi.py",
        (("(levels <= self._strong) == strong", "(levels > self._strong) == strong"),),
        (
            f"{NETWORKS}::test_each_noise_level_is_run_by_its_own_network",
            f"{NETWORKS}::test_draws_run_the_network_of_each_level",
        ),
    ),
    Break(
        "shift kernel density images by half a fine pixel",
        "physics/kde.py",
        (
            (
                "return UPSAMPLING * camera_px + (UPSAMPLING - 1) / 2",
                "return UPSAMPLING * camera_px + UPSAMPLING / 2",
            ),
        ),
        (
            f"{KDE}::test_the_fine_grid_covers_the_camera_pixel",
            f"{KDE}::test_an_emitter_sums_to_its_mass_and_its_centroid_is_its_position",
            f"{KDE}::test_isolated_emitters_are_read_back",
        ),
    ),
    Break(
        "look for emitters one by one, never together",
        "physics/kde.py",
        (("while len(found) < most and", "while len(found) < 1 and"),),
        (f"{KDE}::test_pairs_two_kernel_widths_apart_are_read_back",),
    ),
    Break(
        "show images between 0 and 1",
        "physics/kde.py",
        (
            (
                "return (2.0 * kde / peak_of_one(sigma_fine_px) - 1.0).clamp(-1.0, 1.0)",
                "return (kde / peak_of_one(sigma_fine_px)).clamp(0.0, 1.0)",
            ),
        ),
        (f"{KDE}::test_display_range_is_the_papers_and_can_be_undone",),
    ),
    Break(
        "add noise of the wrong variance at once",
        "diffusion/schedules.py",
        (("(1.0 - level).sqrt().to(clean) * noise", "(1.0 - level.sqrt()).to(clean) * noise"),),
        (
            f"{SCHEDULES}::test_the_forward_process_by_steps_and_in_closed_form_agree",
            f"{SCHEDULES}::test_the_right_output_gives_the_clean_image_back",
        ),
    ),
    Break(
        "add noise step by step and keep the signal",
        "diffusion/schedules.py",
        (("y = math.sqrt(1 - beta) * y + math.sqrt(beta)", "y = y + math.sqrt(beta)"),),
        (f"{SCHEDULES}::test_the_forward_process_by_steps_and_in_closed_form_agree",),
    ),
    Break(
        "train at the steps and not between them",
        "diffusion/schedules.py",
        (
            (
                "return torch.lerp(edges[piece], edges[piece + 1], share)",
                "return edges[piece] + 0 * share",
            ),
        ),
        (
            f"{SCHEDULES}::test_piecewise_uniform_levels_fill_each_piece_alike_and_evenly",
            f"{TRAINING}::test_psi_is_trained_at_the_levels_of_the_recipe",
        ),
    ),
    Break(
        "mistake sigma for its square in training",
        "diffusion/schedules.py",
        (("torch.sigmoid(-2.0 * (log_mean", "torch.sigmoid(-1.0 * (log_mean"),),
        (
            f"{SCHEDULES}::test_log_normal_levels_have_their_moments_and_meet_each_part_once",
            f"{TRAINING}::test_psi_is_trained_at_the_levels_of_the_recipe",
        ),
    ),
    Break(
        "forget how often each image occurs",
        "diffusion/ideal.py",
        (("torch.softmax(weights.log() - away", "torch.softmax(0.0 * weights - away"),),
        (
            f"{SAMPLERS}::test_images_are_drawn_as_often_as_they_occur",
            f"{SAMPLERS}::test_the_shipped_way_to_draw_draws_images_as_often_as_they_occur",
        ),
    ),
    Break(
        "attend to nothing but oneself",
        "networks/unet.py",
        (
            (
                "said = functional.scaled_dot_product_attention(query, key, value)",
                "said = value + 0 * (query + key)",
            ),
        ),
        (f"{UNET}::test_attention_carries_what_convolutions_do_not_reach",),
    ),
    Break(
        "attend one halving too late",
        "networks/unet.py",
        (
            (
                "embedding, halvings in attention_halvings)",
                "embedding, halvings - 1 in attention_halvings)",
            ),
        ),
        (f"{UNET}::test_attention_runs_at_20_by_20_of_80_by_80_and_in_the_middle",),
    ),
    Break(
        "end a schedule one step early",
        "diffusion/schedules.py",
        (
            (
                "ramp = torch.linspace(0, 1, steps, dtype=torch.float64)",
                "ramp = torch.arange(steps, dtype=torch.float64) / steps",
            ),
        ),
        (f"{SCHEDULES}::test_karras_levels_end_at_their_sigmas_and_are_even_in_the_root",),
    ),
    Break(
        "believe that a schedule ends in noise",
        "diffusion/schedules.py",
        (("(mean_square - 1.0) - math.log1p(-gamma))", "(mean_square - 1.0) + gamma)"),),
        (
            f"{SCHEDULES}::test_the_printed_schedule_does_not_end_in_noise",
            f"{SCHEDULES}::test_the_divergence_is_that_of_the_normal_distributions",
        ),
    ),
    Break(
        "interpolate a list of levels in gamma",
        "diffusion/schedules.py",
        (
            ("known = log_snr_of_gamma(levels)", "known = levels"),
            (
                "torch.sigmoid(torch.lerp(known[left], known[left + 1], place - left))",
                "torch.lerp(known[left], known[left + 1], place - left)",
            ),
        ),
        (f"{SCHEDULES}::test_a_card_can_name_any_list_of_levels",),
    ),
    Break(
        "place levels by least squares alone",
        "diffusion/level_search.py",
        (("np.exp(np.clip(best.x[:-1], low, high))", "np.exp(np.clip(begin, low, high))"),),
        (
            f"{SAMPLERS}::test_levels_that_are_searched_for_keep_to_their_ends_and_are_the_same_again",
        ),
    ),
    Break(
        "train in another norm than the recipe's",
        "train/psi.py",
        (("                objective.norm,\n", "                'L2',\n"),),
        (
            f"{TRAINING}::test_the_loss_of_psi_is_in_the_norm_of_the_recipe",
            f"{TRAINING}::test_a_short_training_of_psi_keeps_to_norm_and_average_of_its_recipe",
        ),
    ),
    Break(
        "average no weights",
        "train/engine.py",
        (
            (
                "self.average, self.network, self.recipe.optimizer.averaging,",
                "self.average, self.network, 0.0,",
            ),
        ),
        (f"{TRAINING}::test_a_short_training_of_psi_keeps_to_norm_and_average_of_its_recipe",),
    ),
    Break(
        "begin anew instead of resuming",
        "train/engine.py",
        (("ckpt_path=checkpoint,", "ckpt_path=None,"),),
        (f"{TRAINING}::test_a_resumed_run_takes_only_the_steps_that_are_left",),
    ),
    Break(
        "resume with other tiles",
        "train/engine.py",
        (
            (
                "self.generator(*stream(self.global_step,",
                "self.generator(*stream(len(self._losses) + id(self),",
            ),
        ),
        (f"{TRAINING}::test_a_run_killed_and_resumed_equals_the_unbroken_one",),
    ),
    Break(
        "resume another recipe",
        "train/engine.py",
        (("if found.fingerprint != own:", "if fingerprint == own[:1]:"),),
        (f"{TRAINING}::test_another_recipes_checkpoint_is_refused",),
    ),
    Break(
        "choose a schedule whatever its spread",
        "train/search.py",
        (("[one for one in scored if is_calibrated(one)]", "list(scored)"),),
        (f"{SEARCH}::test_the_choices_differ_where_a_small_distance_hides_a_wrong_spread",),
    ),
    Break(
        "measure distances of means alone",
        "scoring/frechet.py",
        (("square().sum() + spread), 0.0)", "square().sum() + 0 * spread), 0.0)"),),
        (f"{SEARCH}::test_the_distance_of_gaussians_is_the_closed_form",),
    ),
    Break(
        "show networks images as they are",
        "io/feature_network.py",
        (("display_range(peak_of_one() * ", "(1.0 * "),),
        (f"{SEARCH}::test_a_network_in_onnx_sees_images_as_the_paper_scales_them",),
    ),
    Break(
        "let networks name other files",
        "io/feature_network.py",
        (("and part.external_data:", "and not part:"),),
        (f"{SEARCH}::test_a_network_reaches_no_other_file",),
    ),
    Break(
        "draw every schedule with other noise",
        "train/search.py",
        (
            (
                'torch_generator(seed, "draw", i, k)',
                'torch_generator(seed, "draw", i, k, id(sampling))',
            ),
        ),
        (f"{SEARCH}::test_schedules_meet_the_same_noise_and_tiles_alone_or_among_others",),
    ),
)


if __name__ == "__main__":
    run_breaks(BREAKS)
