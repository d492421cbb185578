//! The contract of [`Backend`] as tests: one function for each rule, for any store.
//!
//! Behind the feature `conformance`. A crate that brings its own store turns the feature on for its
//! tests, says how to get a store, and has the whole suite with one line. It needs tokio with the
//! features `macros` and `rt-multi-thread`:
//!
//! ```toml
//! [dev-dependencies]
//! async-trait = "0.1"
//! distkit = { version = "0.8", features = ["conformance"] }
//! tokio = { version = "1", features = ["macros", "rt-multi-thread"] }
//! ```
//!
//! ```
//! // tests/conformance.rs
//! use std::sync::Arc;
//!
//! use distkit::{RedisKey, backend::*, conformance::Fixture};
//!
//! #[derive(Debug)]
//! struct MyStore {/* a connection */}
//!
//! #[async_trait::async_trait]
//! impl Backend for MyStore {
//!     // apply, read, clear, capabilities
//! #   async fn apply(
//! #       &self,
//! #       _: &Space,
//! #       _: &[Write],
//! #       _: Option<&ReplayGuard>,
//! #   ) -> Result<Applied, BackendError> {
//! #       unreachable!()
//! #   }
//! #   async fn read(&self, _: &Space, _: &[RedisKey]) -> Result<Vec<Outcome<i64>>, BackendError> {
//! #       unreachable!()
//! #   }
//! #   fn capabilities(&self) -> Capabilities<'_> {
//! #       Capabilities::none()
//! #   }
//! #   async fn clear(&self, _: &Space) -> Result<(), BackendError> {
//! #       unreachable!()
//! #   }
//! }
//! # impl MyStore {
//! #     async fn connect(_: &str) -> Self {
//! #         Self {}
//! #     }
//! #     async fn write_raw(&self, _: &str, _: &str, _: &str) {}
//! # }
//!
//! async fn my_store() -> Fixture {
//!     let store = Arc::new(MyStore::connect("my://localhost").await);
//!     Fixture::plain(store.clone()).plant_with(move |space: Space, key: RedisKey, text: String| {
//!         let store = store.clone();
//!         async move { store.write_raw(space.prefix(), &key, &text).await }
//!     })
//!     // What this test cannot do: without saying so, the rules that need it fail.
//!     .without_a_clock()
//!     .without_losing_records()
//! }
//!
//! distkit::plain_conformance_suite!(my_store);
//! # fn main() {}
//! ```
//!
//! A store that implements [`InstanceBackend`](crate::backend::InstanceBackend) as well gives a
//! [`Fixture::new`] to [`conformance_suite!`](crate::conformance_suite).
//!
//! Every rule works under prefixes of its own, all of which contain an id from [`Backend::fresh_id`],
//! so that the tests can share one server and run at the same time. What they wrote stays there.
//!
//! What takes the store's time to pass, leases and the day after which a writer is forgotten, is checked
//! with [`Fixture::advance_with`]. A store whose time one test moves cannot be shared with others. A rule that
//! needs what the fixture does not have fails, unless the fixture says so
//! ([`Fixture::without_a_clock`] and the like).
//!
//! One rule of the contract cannot be checked through [`Backend`] alone, and is left to the store's own
//! tests: what errors tell.
//!
//! [`Backend`]: crate::backend::Backend
//! [`Backend::fresh_id`]: crate::backend::Backend::fresh_id

mod atomic;
mod batches;
mod bounds;
mod exact;
mod fixture;
mod foreign;
mod guest;
mod handles;
mod instance_absence;
mod instance_bounds;
mod instance_epochs;
mod instance_guard;
mod instance_life;
mod instance_sum;
mod listing;
mod model;
mod recorded;
mod removal;
mod replay;
mod shards;
mod slice_listing;
mod spaces;
mod tokens;
mod windows;

pub use atomic::{
    a_compare_and_set_loop_loses_no_update, concurrent_adds_sum_exactly,
    of_concurrent_conditional_sets_one_wins, readers_see_whole_values_only,
};
pub use batches::{
    a_key_named_twice_is_written_twice_in_order, a_missing_key_reads_zero,
    answers_come_in_the_order_of_the_input, big_batches_are_one_call, empty_batches_do_nothing,
    refused_items_stop_no_neighbour,
};
pub use bounds::additions_within_bounds_are_exact;
pub use exact::{
    additions_are_exact_on_the_whole_range, assignments_are_exact_on_the_whole_range,
    conditions_compare_exactly, long_mixed_runs_agree_with_a_reference,
    overflow_is_refused_in_both_directions,
};
pub use fixture::Fixture;
pub use foreign::foreign_data_is_named_and_kept;
pub use handles::{
    cancelled_calls_break_nothing_else, cancelled_guarded_batches_happen_once, fresh_ids_are_unique,
};
pub use instance_absence::{
    a_clock_step_is_not_an_absence, a_forgotten_change_invalidates_older_claims,
    claims_are_refused_after_max_absence,
};
pub use instance_bounds::slices_within_bounds_are_exact;
pub use instance_epochs::{
    a_big_clear_is_one_call, a_claim_is_put_back_once, a_clear_after_a_loss_is_final,
    a_late_claim_takes_away_what_it_outdates, a_late_claim_takes_nothing_away_twice,
    a_set_takes_all_slices, clearing_slices_leaves_the_others, counts_made_since_a_loss_stay,
    invented_epochs_are_dropped, losses_in_a_row_heal, lost_data_heals,
    lost_data_heals_under_the_latest_epoch, nothing_comes_back_after_a_clear,
    slices_change_without_an_epoch, stale_slices_do_not_come_back,
};
pub use instance_guard::{
    a_removal_of_slices_is_a_write_like_any_other, a_replayed_slice_batch_changes_nothing,
    concurrent_copies_of_a_slice_batch_happen_once, guards_end_with_the_incarnation,
    refused_slices_are_refused_again,
};
pub use instance_life::{
    a_lease_whose_end_went_undetected_is_renewed, a_name_has_one_holder, an_id_has_one_incarnation,
    any_id_and_name_work, big_joins_put_everything_back, every_operation_detects_expired_instances,
    expired_instances_release_their_names, expired_instances_take_their_own_slices_only,
    leases_run_exactly, leaving_takes_the_slices_along,
    looking_on_needs_no_membership_and_changes_nothing,
    many_expired_instances_are_collected_exactly, those_not_joined_touch_nothing,
};
pub use instance_sum::{
    a_missing_key_has_no_slices, concurrent_slices_sum_exactly, slice_batches_keep_their_order,
    slice_conditions_compare_exactly, slices_are_exact_on_the_whole_range,
    slices_of_any_key_stay_apart, totals_are_the_sums_of_the_slices,
    totals_out_of_range_are_clamped, versions_grow,
};
pub use listing::{
    a_filter_hides_no_match, a_listing_is_complete, a_listing_of_another_shape_is_refused,
    a_page_is_bounded, counters_are_counted,
    counters_that_stay_are_listed_while_others_come_and_go, foreign_values_are_listed_as_such,
    listings_stay_in_their_space,
};
pub use recorded::{
    a_late_recorded_request_changes_nothing, a_recorded_clear_happens_once,
    a_recorded_clear_of_slices_happens_once, a_recorded_request_gets_its_original_answer,
    a_recorded_slice_request_gets_its_original_answer,
    a_recorded_slice_request_may_be_sent_again_after_a_rejoin,
    concurrent_copies_of_a_recorded_request_get_one_answer,
};
pub use removal::{
    a_removal_is_a_write_like_any_other, big_removals_and_clears_are_one_call,
    clear_removes_its_own_space_only, guards_survive_removal_and_clear,
    removal_answers_what_was_held,
};
pub use replay::{
    a_batch_whose_record_is_lost_is_not_applied, a_lower_sequence_changes_nothing,
    a_replayed_batch_changes_nothing, an_empty_batch_uses_up_its_sequence,
    big_guarded_batches_are_one_call, concurrent_copies_of_a_guarded_batch_happen_once,
    guarded_sets_and_conditions_happen_once, guards_last_a_day_after_the_last_batch,
    refused_items_are_refused_again, sequences_are_exact_to_two_to_the_53, writers_are_independent,
};
pub use shards::{another_number_of_shards_is_refused, shards_are_apart};
pub use slice_listing::{
    a_filter_hides_no_slice, a_page_of_slices_is_bounded, a_slice_listing_changes_nothing,
    a_slice_listing_is_complete, a_slice_listing_of_another_shape_is_refused,
    counters_with_slices_are_counted, slices_that_stay_are_listed_while_others_come_and_go,
};
pub use spaces::{any_key_works, any_prefix_works_and_none_reaches_into_another};
pub use tokens::{
    a_refused_addition_leaves_its_token_unused, a_token_is_used_once, another_amount_is_refused,
    another_keep_is_refused, any_token_works, concurrent_copies_of_an_addition_happen_once,
    forbidden_tokens_are_refused, lost_tokens_are_not_used_again, many_tokens_are_told_apart,
    resolving_changes_nothing, tokens_are_exact_on_the_whole_range, tokens_are_remembered_for_keep,
    tokens_stay_in_their_space, tokens_survive_removal_and_clear,
};
pub use windows::{
    a_lost_window_is_named, a_step_of_the_clock_opens_no_window,
    a_window_closes_when_it_is_no_longer_kept, a_window_does_what_a_space_does,
    an_idle_space_expires_whole, another_idle_time_is_refused, answers_outlive_their_window,
    concurrent_writes_open_a_window_once, late_batches_take_effect_in_their_window,
    only_the_current_window_takes_writes, only_what_is_idle_expires_when_asked_to,
    the_longest_keep_before_the_closing_holds, the_time_is_that_of_the_windows, windows_are_apart,
    windows_of_shards_are_apart,
};

/// Expands to a module with one test for each rule of the [`Backend`](crate::backend::Backend)
/// contract.
///
/// Takes the path of an `async fn` without parameters that gives a
/// [`Fixture`](crate::conformance::Fixture), or a `Backend`; it is called once for each test. Write a
/// name in front to have several suites in one file, or a name other than `conformance`:
/// `conformance_suite!(cluster, connect_to_the_cluster)`. Use it outside of functions. See the
/// [module](crate::conformance) for an example.
#[macro_export]
macro_rules! conformance_suite {
    ($fixture:path) => {
        $crate::conformance_suite!(conformance, $fixture);
    };
    ($module:ident, $fixture:path) => {
        $crate::conformance_rules! { [$crate::conformance_suite] @tests $module $fixture: }
    };
    (@tests $module:ident $fixture:path: $($rule:ident)+) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;

            $(
                #[::tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $rule() {
                    let fixture: $crate::conformance::Fixture = $fixture().await.into();
                    $crate::conformance::$rule(&fixture).await;
                }
            )+
        }
    };
}

/// The same for a store of the plain half, which takes no [`InstanceBackend`](crate::backend::InstanceBackend): the
/// path gives a [`Fixture::plain`](crate::conformance::Fixture::plain).
#[macro_export]
macro_rules! plain_conformance_suite {
    ($fixture:path) => {
        $crate::plain_conformance_suite!(conformance, $fixture);
    };
    ($module:ident, $fixture:path) => {
        $crate::plain_conformance_rules! {
            [$crate::conformance_suite] @tests $module $fixture:
        }
    };
}

/// Hands the names of all rules to another macro: `conformance_rules! { [path::of::macro] before }` becomes
/// `path::of::macro! { before first_rule second_rule ... }`.
#[macro_export]
macro_rules! conformance_rules {
    ([$($callback:tt)+] $($before:tt)*) => {
        $crate::plain_conformance_rules! { [$($callback)+] $($before)*
            a_big_clear_is_one_call
            a_claim_is_put_back_once
            a_clear_after_a_loss_is_final
            a_clock_step_is_not_an_absence
            a_forgotten_change_invalidates_older_claims
            a_late_claim_takes_away_what_it_outdates
            a_late_claim_takes_nothing_away_twice
            a_lease_whose_end_went_undetected_is_renewed
            a_missing_key_has_no_slices
            a_name_has_one_holder
            a_removal_of_slices_is_a_write_like_any_other
            a_replayed_slice_batch_changes_nothing
            a_set_takes_all_slices
            an_id_has_one_incarnation
            any_id_and_name_work
            big_joins_put_everything_back
            claims_are_refused_after_max_absence
            clearing_slices_leaves_the_others
            concurrent_copies_of_a_slice_batch_happen_once
            concurrent_slices_sum_exactly
            counts_made_since_a_loss_stay
            every_operation_detects_expired_instances
            guards_end_with_the_incarnation
            invented_epochs_are_dropped
            leases_run_exactly
            leaving_takes_the_slices_along
            looking_on_needs_no_membership_and_changes_nothing
            losses_in_a_row_heal
            lost_data_heals
            lost_data_heals_under_the_latest_epoch
            many_expired_instances_are_collected_exactly
            nothing_comes_back_after_a_clear
            refused_slices_are_refused_again
            slice_batches_keep_their_order
            slice_conditions_compare_exactly
            slices_are_exact_on_the_whole_range
            slices_change_without_an_epoch
            slices_of_any_key_stay_apart
            slices_within_bounds_are_exact
            stale_slices_do_not_come_back
            expired_instances_release_their_names
            expired_instances_take_their_own_slices_only
            those_not_joined_touch_nothing
            totals_are_the_sums_of_the_slices
            totals_out_of_range_are_clamped
            versions_grow
        }
    };
}

/// The same with the names of the rules of the plain half.
#[macro_export]
macro_rules! plain_conformance_rules {
    ([$($callback:tt)+] $($before:tt)*) => {
        $($callback)+! { $($before)*
            a_batch_whose_record_is_lost_is_not_applied
            a_compare_and_set_loop_loses_no_update
            a_key_named_twice_is_written_twice_in_order
            a_lower_sequence_changes_nothing
            a_missing_key_reads_zero
            a_removal_is_a_write_like_any_other
            a_replayed_batch_changes_nothing
            additions_are_exact_on_the_whole_range
            additions_within_bounds_are_exact
            an_empty_batch_uses_up_its_sequence
            answers_come_in_the_order_of_the_input
            any_key_works
            any_prefix_works_and_none_reaches_into_another
            shards_are_apart
            another_number_of_shards_is_refused
            assignments_are_exact_on_the_whole_range
            big_batches_are_one_call
            big_guarded_batches_are_one_call
            big_removals_and_clears_are_one_call
            cancelled_calls_break_nothing_else
            cancelled_guarded_batches_happen_once
            clear_removes_its_own_space_only
            concurrent_adds_sum_exactly
            concurrent_copies_of_a_guarded_batch_happen_once
            conditions_compare_exactly
            empty_batches_do_nothing
            foreign_data_is_named_and_kept
            fresh_ids_are_unique
            guarded_sets_and_conditions_happen_once
            guards_last_a_day_after_the_last_batch
            guards_survive_removal_and_clear
            long_mixed_runs_agree_with_a_reference
            of_concurrent_conditional_sets_one_wins
            overflow_is_refused_in_both_directions
            readers_see_whole_values_only
            refused_items_are_refused_again
            refused_items_stop_no_neighbour
            removal_answers_what_was_held
            sequences_are_exact_to_two_to_the_53
            writers_are_independent
        }
    };
}

/// The suite of the capability [`RecordedAnswers`](crate::backend::RecordedAnswers), besides that of the store.
#[macro_export]
macro_rules! recorded_conformance_suite {
    ($module:ident, $fixture:path) => {
        $crate::recorded_conformance_rules! { [$crate::conformance_suite] @tests $module $fixture: }
    };
}

/// The suite of the capability [`RecordedSliceAnswers`](crate::backend::RecordedSliceAnswers).
#[macro_export]
macro_rules! recorded_slices_conformance_suite {
    ($module:ident, $fixture:path) => {
        $crate::recorded_slices_conformance_rules! {
            [$crate::conformance_suite] @tests $module $fixture:
        }
    };
}

/// The names of the rules of recorded answers, as [`conformance_rules!`](crate::conformance_rules).
#[macro_export]
macro_rules! recorded_conformance_rules {
    ([$($callback:tt)+] $($before:tt)*) => {
        $($callback)+! { $($before)*
            a_late_recorded_request_changes_nothing
            a_recorded_clear_happens_once
            a_recorded_request_gets_its_original_answer
            concurrent_copies_of_a_recorded_request_get_one_answer
        }
    };
}

/// The same for instance-aware counters.
#[macro_export]
macro_rules! recorded_slices_conformance_rules {
    ([$($callback:tt)+] $($before:tt)*) => {
        $($callback)+! { $($before)*
            a_recorded_clear_of_slices_happens_once
            a_recorded_slice_request_gets_its_original_answer
            a_recorded_slice_request_may_be_sent_again_after_a_rejoin
        }
    };
}

/// The suite of the capability [`Enumeration`](crate::backend::Enumeration), besides that of the store.
#[macro_export]
macro_rules! enumeration_conformance_suite {
    ($module:ident, $fixture:path) => {
        $crate::enumeration_conformance_rules! { [$crate::conformance_suite] @tests $module $fixture: }
    };
}

/// The suite of the capability [`SliceEnumeration`](crate::backend::SliceEnumeration).
#[macro_export]
macro_rules! slice_enumeration_conformance_suite {
    ($module:ident, $fixture:path) => {
        $crate::slice_enumeration_conformance_rules! {
            [$crate::conformance_suite] @tests $module $fixture:
        }
    };
}

/// The names of the rules of listings, as [`conformance_rules!`](crate::conformance_rules).
#[macro_export]
macro_rules! enumeration_conformance_rules {
    ([$($callback:tt)+] $($before:tt)*) => {
        $($callback)+! { $($before)*
            a_filter_hides_no_match
            a_listing_is_complete
            a_listing_of_another_shape_is_refused
            a_page_is_bounded
            counters_are_counted
            counters_that_stay_are_listed_while_others_come_and_go
            foreign_values_are_listed_as_such
            listings_stay_in_their_space
        }
    };
}

/// The same for instance-aware counters.
#[macro_export]
macro_rules! slice_enumeration_conformance_rules {
    ([$($callback:tt)+] $($before:tt)*) => {
        $($callback)+! { $($before)*
            a_filter_hides_no_slice
            a_page_of_slices_is_bounded
            a_slice_listing_changes_nothing
            a_slice_listing_is_complete
            a_slice_listing_of_another_shape_is_refused
            counters_with_slices_are_counted
            slices_that_stay_are_listed_while_others_come_and_go
        }
    };
}

/// The suite of the capability [`Windowing`](crate::backend::Windowing), of a store that has
/// [`RecordedAnswers`](crate::backend::RecordedAnswers) and [`Enumeration`](crate::backend::Enumeration) as well.
#[macro_export]
macro_rules! windows_conformance_suite {
    ($module:ident, $fixture:path) => {
        $crate::windows_conformance_rules! { [$crate::conformance_suite] @tests $module $fixture: }
    };
}

/// The names of the rules of windows, as [`conformance_rules!`](crate::conformance_rules).
#[macro_export]
macro_rules! windows_conformance_rules {
    ([$($callback:tt)+] $($before:tt)*) => {
        $($callback)+! { $($before)*
            a_lost_window_is_named
            a_step_of_the_clock_opens_no_window
            a_window_closes_when_it_is_no_longer_kept
            a_window_does_what_a_space_does
            an_idle_space_expires_whole
            another_idle_time_is_refused
            answers_outlive_their_window
            concurrent_writes_open_a_window_once
            late_batches_take_effect_in_their_window
            only_the_current_window_takes_writes
            only_what_is_idle_expires_when_asked_to
            the_longest_keep_before_the_closing_holds
            the_time_is_that_of_the_windows
            windows_are_apart
            windows_of_shards_are_apart
        }
    };
}

/// The suite of the capability [`Tokens`](crate::backend::Tokens), besides that of the store.
#[macro_export]
macro_rules! tokens_conformance_suite {
    ($module:ident, $fixture:path) => {
        $crate::tokens_conformance_rules! { [$crate::conformance_suite] @tests $module $fixture: }
    };
}

/// The names of the rules of tokens, as [`conformance_rules!`](crate::conformance_rules).
#[macro_export]
macro_rules! tokens_conformance_rules {
    ([$($callback:tt)+] $($before:tt)*) => {
        $($callback)+! { $($before)*
            a_refused_addition_leaves_its_token_unused
            a_token_is_used_once
            another_amount_is_refused
            another_keep_is_refused
            any_token_works
            concurrent_copies_of_an_addition_happen_once
            forbidden_tokens_are_refused
            lost_tokens_are_not_used_again
            many_tokens_are_told_apart
            resolving_changes_nothing
            tokens_are_exact_on_the_whole_range
            tokens_are_remembered_for_keep
            tokens_stay_in_their_space
            tokens_survive_removal_and_clear
        }
    };
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_macro_lists_every_rule() {
        let sources = [
            include_str!("atomic.rs"),
            include_str!("batches.rs"),
            include_str!("bounds.rs"),
            include_str!("exact.rs"),
            include_str!("foreign.rs"),
            include_str!("handles.rs"),
            include_str!("instance_absence.rs"),
            include_str!("instance_bounds.rs"),
            include_str!("instance_epochs.rs"),
            include_str!("instance_guard.rs"),
            include_str!("instance_life.rs"),
            include_str!("instance_sum.rs"),
            include_str!("listing.rs"),
            include_str!("recorded.rs"),
            include_str!("removal.rs"),
            include_str!("replay.rs"),
            include_str!("slice_listing.rs"),
            include_str!("spaces.rs"),
            include_str!("windows.rs"),
            include_str!("tokens.rs"),
        ];
        let listed: Vec<_> = include_str!("mod.rs").lines().map(str::trim).collect();
        let mut rules = 0;
        for line in sources.iter().flat_map(|source| source.lines()) {
            if let Some(rest) = line.strip_prefix("pub async fn ") {
                let rule = rest.split('(').next().unwrap();
                assert!(listed.contains(&rule), "{rule} is missing from conformance_rules!");
                rules += 1;
            }
        }
        assert!(rules > 60, "found only {rules} rules");
    }
}
