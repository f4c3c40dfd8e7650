"""Break schedules, samplers, scores and objectives on purpose and see that named tests notice.

    python scripts/break_diffusion.py

As `break_physics.py`, whose machinery it uses. Takes about four minutes.
"""

from __future__ import annotations

from break_physics import Break, run_breaks

SAMPLERS, SCHEDULES, SCORES = "test_samplers.py", "test_schedules.py", "test_scores.py"

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
        "diffusion/ideal.py",
        (
            (
                "* math.sqrt(start_variance)",
                "* math.sqrt(0.8 * start_variance)",
            ),
        ),
        (
            f"{SAMPLERS}::test_with_many_steps_every_sampler_gives_the_true_variance",
            f"{SAMPLERS}::test_the_shipped_way_to_draw_gives_the_right_variance_where_it_is_said_to",
            f"{SAMPLERS}::test_what_a_start_leaves_is_the_closed_form",
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
            f"{SAMPLERS}::test_the_shipped_way_to_draw_gives_the_right_variance_where_it_is_said_to",
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
)


if __name__ == "__main__":
    run_breaks(BREAKS)
