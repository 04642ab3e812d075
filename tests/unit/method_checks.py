"""Which test pins what is a method's own, by what kind of evidence; docs/methods.md shows it.

The promises, micro-batches and updates that are tested of every method say nothing of one, and finite differences only
that a gradient fits its loss: they are not named here. Of a method that shares its credit or its clip with GRPO the
test of what differs is named.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["published numbers", "hand-worked", "identity", "invariant"]
"""Numbers of a paper or of its public code; an example worked by hand; equality with something else that is known; a
property of random inputs that defines the part."""


@dataclass(frozen=True, slots=True)
class Check:
    kind: Kind
    file: str
    "A module of tests/unit, without its ending."
    test: str
    "A function of it."


def published(file: str, test: str) -> Check:
    return Check("published numbers", file, test)


def by_hand(file: str, test: str) -> Check:
    return Check("hand-worked", file, test)


def identity(file: str, test: str) -> Check:
    return Check("identity", file, test)


def invariant(file: str, test: str) -> Check:
    return Check("invariant", file, test)


CLIP = published("test_losses", "test_clipped_loss_reproduces_the_reference")
CORRECTION = published("test_losses_corrections", "test_correction_reproduces_the_reference")
FORKED_TOKENS = by_hand("test_credit_forks", "test_what_a_fork_begins_with_is_left_out_once_or_everywhere")
GRPO = published("test_credit", "test_grpo_reproduces_the_reference")
LOOP_AND_DAPO = by_hand("test_credit_anchors", "test_loop_and_dapo_give_the_credit_they_name")
RATES = by_hand("test_credit_methods", "test_maxrl_gpg_and_bnpo_by_hand")
RATIO = by_hand("test_losses_ratios", "test_value_is_the_aggregate_and_gradient_is_the_tokens_own")
STEP_RETURN = by_hand("test_credit", "test_step_returns_are_compared_over_all_steps_of_a_group")

CHECKS: Mapping[str, tuple[Check, ...]] = {
    # Groups
    "grpo": (GRPO, CLIP),
    "rloo": (
        published("test_credit", "test_leave_one_out_reproduces_the_reference"),
        identity("test_credit", "test_leave_one_out_is_a_multiple_of_the_plain_difference"),
    ),
    "dr_grpo": (GRPO, CLIP),
    "lite_ppo": (by_hand("test_credit", "test_lite_ppo_divides_by_the_deviation_of_the_batch"),),
    "reinforce_plus_plus": (
        published("test_credit_methods", "test_reinforce_plus_plus_gives_the_references_numbers_per_token"),
    ),
    "reinforce_plus_plus_baseline": (
        published("test_credit_methods", "test_reinforce_plus_plus_baseline_reproduces_the_reference"),
    ),
    "opo": (published("test_credit_methods", "test_opo_reproduces_the_reference"),),
    "maxrl": (RATES,),
    "gpg": (RATES,),
    "bnpo": (RATES,),
    "loop": (LOOP_AND_DAPO,),
    # Steps
    "gigpo": (
        published("test_credit", "test_gigpo_mean_normalisation_reproduces_the_reference"),
        published("test_credit", "test_gigpo_deviation_normalisation_reproduces_the_reference"),
    ),
    "gigpo_similar": (
        by_hand("test_credit_anchors", "test_alike_observations_share_a_place_and_the_first_fit_wins"),
        identity("test_credit_anchors", "test_gigpo_similar_equals_gigpo_where_texts_are_states"),
    ),
    "hgpo": (
        by_hand("test_credit_anchors", "test_hgpo_by_hand"),
        identity("test_credit_anchors", "test_hgpo_of_one_depth_is_the_anchor_term_with_a_biased_deviation"),
    ),
    "dart": (by_hand("test_credit_anchors", "test_dart_weighs_an_episode_by_its_steps"),),
    "step_return": (STEP_RETURN,),
    "eapo": (STEP_RETURN,),
    "steppo": (published("test_credit_methods", "test_step_gae_reproduces_steppo"),),
    "igpo": (by_hand("test_credit_methods", "test_igpo_normalises_all_turns_of_a_group_and_sums_ahead"),),
    "normalised_terms": (by_hand("test_credit_methods", "test_terms_are_normalised_before_they_are_added"),),
    # Forks
    "arpo": (
        by_hand("test_credit_forks", "test_soft_and_hard_attribution_agree_in_the_sum_over_the_branches_of_a_step"),
    ),
    "branch": (by_hand("test_credit_methods", "test_branch_credit_by_hand_and_along_a_trajectory"),),
    "r3l": (by_hand("test_credit_forks", "test_positive_advantages_are_amplified"), FORKED_TOKENS),
    "fission": (
        by_hand("test_credit_forks", "test_forks_of_one_place_are_a_group_of_their_own"),
        by_hand("test_fission", "test_a_recovery_goes_on_from_the_error_and_only_its_own_tokens_are_trained_and_aged"),
        FORKED_TOKENS,
    ),
    # Choice of groups, shaped rewards, replay, parts by name
    "dapo": (LOOP_AND_DAPO, by_hand("test_method", "test_dapo_keeps_groups_whose_outcomes_differ")),
    "spo": (by_hand("test_credit_shaped", "test_spo_compares_with_the_past_and_learns_afterwards"),),
    "unlikeliness": (by_hand("test_credit_shaped", "test_rare_successes_keep_more_of_their_reward"),),
    "aspo": (by_hand("test_credit_shaped", "test_a_success_gains_by_calling_early"),),
    "arpo_replay": (
        by_hand("test_replay", "test_only_a_group_that_fails_wholly_gets_an_earlier_success_in_its_first_place"),
        by_hand("test_replay", "test_the_memory_goes_on_where_it_was_saved"),
    ),
    "bepa": (
        by_hand("test_assimilation", "test_an_experts_tokens_are_imitated_and_count_in_the_baseline_by_hand"),
        by_hand("test_assimilation", "test_the_policys_own_success_takes_the_experts_place_and_a_plan_gives_way_to_it"),
    ),
    "custom": (identity("test_method", "test_gigpo_can_be_put_together_in_a_recipe"),),
    # Objectives
    "gspo": (published("test_losses_surrogates", "test_gspo_reproduces_the_reference"),),
    "gspo_step": (RATIO,),
    "cispo": (published("test_losses_surrogates", "test_cispo_reproduces_the_reference"),),
    "sapo": (published("test_losses_surrogates", "test_sapo_reproduces_the_reference"),),
    "gmpo": (published("test_losses_surrogates", "test_gmpo_reproduces_the_reference"),),
    "dppo": (by_hand("test_losses_surrogates", "test_dppo_drops_by_probability_and_not_by_ratio"),),
    "ctpo": (
        RATIO,
        by_hand("test_losses_surrogates", "test_bounds_by_position_widen_and_start_again_in_each_trajectory"),
    ),
    "minpro": (RATIO,),
    "bapo": (
        by_hand("test_losses_surrogates", "test_adaptive_bounds_move_only_as_far_as_balance_needs"),
        identity("test_losses_surrogates", "test_adaptive_clip_is_ppos_clip_at_its_bounds"),
    ),
    "grpo_kl": (published("test_losses_regularisers", "test_kl_reproduces_the_reference"),),
    "grpo_unbiased_kl": (
        identity("test_losses_regularisers", "test_times_the_ratio_the_gradient_of_k3_is_that_of_the_kl"),
    ),
    "r2vpo": (
        by_hand("test_losses_regularisers", "test_the_multiplier_of_the_variance_climbs_while_it_is_above_its_limit"),
    ),
    # Entropy
    "clip_cov": (published("test_losses_weights", "test_clip_cov_reproduces_the_reference"),),
    "kl_cov": (published("test_losses_weights", "test_kl_cov_reproduces_the_reference"),),
    "epo": (by_hand("test_losses_regularisers", "test_smoothing_pulls_a_step_towards_its_own_past_with_a_gradient"),),
    "steer": (by_hand("test_losses_weights", "test_steer_weighs_down_what_changes_the_entropy_most"),),
    "lp_reg": (
        identity("test_losses_regularisers", "test_the_pull_towards_the_proxy_is_a_kl_in_value_and_gradient"),
        invariant("test_losses_weights", "test_the_protected_are_unlikely_and_bad"),
    ),
    "high_entropy": (invariant("test_losses_weights", "test_high_entropy_keeps_a_share_of_the_whole_update"),),
    "d3s": (
        by_hand("test_credit_methods", "test_curations_drop_what_they_say"),
        invariant("test_losses_weights", "test_advantage_times_entropy_relaxes_over_updates_and_remembers_where_it_is"),
    ),
    "entropy_steps": (by_hand("test_losses_weights", "test_entropy_steps_keep_whole_steps_of_each_task"),),
    "gtpo": (
        by_hand("test_losses_conflicts", "test_shared_beginnings_and_ends_are_in_conflict_and_no_further"),
        by_hand("test_losses_conflicts", "test_calm_trajectories_train_and_pay_for_their_entropy"),
    ),
    # Samples of other weights
    "decoupled_ppo": (
        CORRECTION,
        published("test_losses_corrections", "test_normalised_correction_reproduces_the_reference"),
    ),
    "icepop": (CORRECTION,),
    "mis": (CORRECTION,),
    "geo_rejection": (CORRECTION,),
    "m2po": (
        by_hand("test_losses_weights", "test_the_second_moment_is_brought_below_its_limit_by_dropping_the_fewest"),
    ),
    "opsm": (by_hand("test_losses_weights", "test_sequences_that_the_policy_has_left_drop_their_bad_tokens"),),
    "topr": (by_hand("test_losses_surrogates", "test_topr_keeps_the_good_whole_and_tapers_the_bad"),),
    "asymre": (by_hand("test_losses_presets", "test_shifted_credit_leans_towards_success"),),
    "opmd": (
        identity("test_losses_presets", "test_mirror_descent_is_reinforce_slowed_by_its_temperature"),
        by_hand("test_losses_presets", "test_the_soft_baseline_lies_between_mean_and_maximum"),
    ),
    "rec": (by_hand("test_losses_surrogates", "test_ring_counts_near_ratios_and_far_ones_that_lead_back"),),
    "nft": (
        by_hand("test_losses_surrogates", "test_nft_is_likelihood_for_successes_and_implied_likelihood_for_failures"),
    ),
    "vespo": (
        by_hand("test_losses_conflicts", "test_vespos_kernel_is_one_on_policy_and_falls_on_both_sides"),
        identity("test_losses_conflicts", "test_on_policy_vespo_is_reinforce"),
    ),
    "vcpo": (
        by_hand("test_losses_weights", "test_effective_sample_size_of_equal_and_of_lonely_weights"),
        invariant("test_losses_weights", "test_the_off_policy_baseline_has_the_least_variance"),
    ),
    # Teachers
    "opd": (
        identity("test_losses_weights", "test_distillation_is_the_negated_reverse_kl_sample"),
        identity("test_losses_weights", "test_extrapolation_is_reward_times_scale_less_the_kl_to_the_reference"),
    ),
    "self_distillation": (
        identity("test_self_distillation", "test_the_teacher_scores_each_sampled_token_at_its_place_behind_the_hint"),
    ),
    "dagger": (by_hand("test_takeover", "test_the_policys_turns_are_distilled_and_the_teachers_are_imitated"),),
}
