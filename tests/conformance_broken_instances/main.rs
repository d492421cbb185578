//! The instance-aware half of the suite can fail, too: each fault is caught by the rule for it, and each
//! rule catches a fault.
#![cfg(feature = "conformance")]
#![allow(clippy::unwrap_used)]

#[path = "../common/faults.rs"]
mod faults;
mod store;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use distkit::{
    CounterComparator, RedisKey,
    backend::{
        Applied, Backend, BackendError, Capabilities, Instance, InstanceBackend, InstanceSlice,
        Joined, Member, Ordered, Outcome, ReplayGuard, Scope, Slice, SliceChange, SliceWrite,
        Space, Standing, Write,
        memory::{ManualClock, MemoryBackend},
    },
    conformance::{self as rules, Fixture},
};

use store::Instances;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    AcceptsClaimsAfterAnyAbsence,
    AddsInTwoSteps,
    AddsToStaleSlices,
    AnswersReadsOfTheNotJoined,
    AppliesLowerSequences,
    BelievesInventedEpochs,
    ChecksGuardsBeforehand,
    ClaimsDropCountsSinceALoss,
    ClearedSlicesAreEverybodys,
    ClearsEndGuards,
    ClearsForgetTheFloor,
    ClearsTakeAThousandKeys,
    CollectsFiftySlices,
    ComparesSlicesWithTotals,
    ComparesThroughDoubles,
    CountsClockStepsAsAbsence,
    DeadKeepTheirNames,
    DropsEpochsTooEarly,
    EmptyBatchesUseNothingUp,
    FindsItselfDead,
    FirstClaimAfterALossWins,
    ForgetsRefusals,
    GuardsOutliveIncarnations,
    HeartbeatsRenewNoLease,
    InstancesShareAGuard,
    JoinsFindNoDead,
    JoinsTakeAThousandClaims,
    BoundsSlices,
    KeepsEarlierIncarnations,
    LateClaimsTakeNothingAway,
    LeasesEndLate,
    LeavingKeepsTheSlices,
    ListsSlicesInReverse,
    ListsStaleSlices,
    ListsTheExpired,
    LookingOnCollects,
    NamesGoToTheLatestJoin,
    PutsClaimsBackTwice,
    PutsStaleClaimsBack,
    ReadsAreNotNumbered,
    ReadsFindNoDead,
    ReadsMakeSlices,
    ReadsRenewNoLease,
    RemovalsHeedNoCondition,
    RemovalsKeepTheEpoch,
    RemovedSlicesRenewTheEpoch,
    RenewsLeasesThatWereCollected,
    ReplacedSlicesAddUp,
    ReplacedSlicesKeepTheirClaims,
    ReplayedSetsRenewEpochs,
    ReplaysAnswerWithTheFirstAnswer,
    Saturates,
    SetsKeepTheEpoch,
    SharesNames,
    SpacesShareTheirKeys,
    StopsAtARefusal,
    SubtractsStaleSlices,
    TakesAClearForALoss,
    TakesALossForAClear,
    TakesBeginningsForChanges,
    TheDeadTakeWholeKeys,
    TotalsWrapAround,
    TrimsNames,
}

struct Broken {
    fault: Fault,
    /// The test moves it.
    clock: ManualClock,
    spaces: Mutex<BTreeMap<String, Instances>>,
    /// The plain half, which has no faults here.
    plain: MemoryBackend,
}

impl Broken {
    fn new(fault: Fault) -> Arc<Self> {
        let clock = ManualClock::new();
        clock.advance(Duration::from_millis(1));
        Arc::new(Self {
            fault,
            spaces: Mutex::default(),
            plain: MemoryBackend::with_clock(clock.clone()),
            clock,
        })
    }

    /// In milliseconds.
    fn now(&self) -> u64 {
        self.clock.now().as_millis() as u64
    }

    fn spaces(&self) -> MutexGuard<'_, BTreeMap<String, Instances>> {
        self.spaces.lock().unwrap()
    }

    fn on<T>(&self, space: &Space, work: impl FnOnce(&mut Instances) -> T) -> T {
        let shared = self.fault == Fault::SpacesShareTheirKeys;
        let name = if shared { String::new() } else { space.prefix().to_string() };
        work(self.spaces().entry(name).or_insert_with(|| Instances::new(self.fault)))
    }
}

impl std::fmt::Debug for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broken").finish_non_exhaustive()
    }
}

#[async_trait]
impl Backend for Broken {
    async fn apply(
        &self,
        space: &Space,
        writes: &[Write],
        guard: Option<&ReplayGuard>,
    ) -> Result<Applied, BackendError> {
        self.plain.apply(space, writes, guard).await
    }

    async fn read(
        &self,
        space: &Space,
        keys: &[RedisKey],
    ) -> Result<Vec<Outcome<i64>>, BackendError> {
        self.plain.read(space, keys).await
    }

    async fn clear(&self, space: &Space) -> Result<(), BackendError> {
        self.plain.clear(space).await
    }

    fn capabilities(&self) -> Capabilities<'_> {
        Capabilities::none()
    }

    fn fresh_id(&self) -> Arc<str> {
        self.plain.fresh_id()
    }
}

#[async_trait]
impl InstanceBackend for Broken {
    async fn join(
        &self,
        space: &Space,
        instance: &Instance,
        slices: &[Slice],
    ) -> Result<Joined, BackendError> {
        self.on(space, |all| all.join(self.now(), instance, slices))
    }

    async fn apply_on(
        &self,
        space: &Space,
        member: &Member,
        writes: &[SliceWrite],
        sequence: Option<u64>,
    ) -> Result<Ordered<Applied<Standing>>, BackendError> {
        let mut writes = writes.to_vec();
        if self.fault == Fault::AddsInTwoSteps
            && let [write] = &mut *writes
            && let SliceChange::Add(count) = write.change
            && write.condition == CounterComparator::Nil
        {
            let old = self.on(space, |all| all.standing(&write.key, member.incarnation.0));
            tokio::task::yield_now().await;
            write.change = SliceChange::SetSlice(old.slice.wrapping_add(count));
        }
        let replayed = self.on(space, |all| all.is_replayed(member, sequence));
        if self.fault == Fault::ChecksGuardsBeforehand {
            tokio::task::yield_now().await;
        }
        self.on(space, |all| all.apply(self.now(), member, &writes, sequence, replayed))
    }

    async fn read_on(
        &self,
        space: &Space,
        member: &Member,
        keys: &[RedisKey],
    ) -> Result<Ordered<Vec<Outcome<Standing>>>, BackendError> {
        self.on(space, |all| all.read(self.now(), member, keys))
    }

    async fn clear_on(
        &self,
        space: &Space,
        member: &Member,
        scope: Scope,
    ) -> Result<(), BackendError> {
        self.on(space, |all| all.clear(self.now(), member, scope))
    }

    async fn heartbeat(&self, space: &Space, member: &Member) -> Result<(), BackendError> {
        self.on(space, |all| all.heartbeat(self.now(), member))
    }

    async fn leave(&self, space: &Space, member: &Member) -> Result<(), BackendError> {
        self.on(space, |all| all.leave(member));
        Ok(())
    }

    async fn totals(
        &self,
        space: &Space,
        keys: &[RedisKey],
    ) -> Result<Vec<Outcome<i64>>, BackendError> {
        Ok(self.on(space, |all| keys.iter().map(|key| Ok(all.total(self.now(), key))).collect()))
    }

    async fn slices(
        &self,
        space: &Space,
        key: &RedisKey,
    ) -> Result<Vec<InstanceSlice>, BackendError> {
        Ok(self.on(space, |all| all.slices(self.now(), key)))
    }
}

fn fixture(fault: Fault) -> Fixture {
    let store = Broken::new(fault);
    let (clock, wiped) = (store.clock.clone(), store.clone());
    let fixture = Fixture::new(store).advance_with(move |step| clock.advance(step));
    fixture.without_planting().without_losing_records().wipe_with(move |space| {
        wiped.on(&space, Instances::wipe);
        async {}
    })
}

async fn sound() -> Fixture {
    fixture(Fault::None)
}

// Without a fault this store passes, so what fails below fails because of the fault.
distkit::conformance_suite!(sound);

faults::caught! {
    in "instance_absence.rs" "instance_bounds.rs" "instance_epochs.rs" "instance_guard.rs" "instance_life.rs" "instance_sum.rs";
    AddsInTwoSteps by concurrent_slices_sum_exactly,
    AddsToStaleSlices by a_set_takes_all_slices totals_are_the_sums_of_the_slices,
    AnswersReadsOfTheNotJoined by those_not_joined_touch_nothing,
    AppliesLowerSequences by a_replayed_slice_batch_changes_nothing,
    BelievesInventedEpochs by invented_epochs_are_dropped,
    ChecksGuardsBeforehand by concurrent_copies_of_a_slice_batch_happen_once,
    ClaimsDropCountsSinceALoss by counts_made_since_a_loss_stay,
    ClearedSlicesAreEverybodys by clearing_slices_leaves_the_others,
    ClearsEndGuards by nothing_comes_back_after_a_clear,
    ClearsForgetTheFloor by nothing_comes_back_after_a_clear,
    ClearsTakeAThousandKeys by a_big_clear_is_one_call,
    CollectsFiftySlices by many_expired_instances_are_collected_exactly leaving_takes_the_slices_along,
    ComparesSlicesWithTotals by slice_conditions_compare_exactly,
    ComparesThroughDoubles by slice_conditions_compare_exactly,
    DeadKeepTheirNames by expired_instances_release_their_names,
    EmptyBatchesUseNothingUp by a_replayed_slice_batch_changes_nothing,
    FindsItselfDead by a_lease_whose_end_went_undetected_is_renewed,
    FirstClaimAfterALossWins by lost_data_heals_under_the_latest_epoch,
    DropsEpochsTooEarly by a_forgotten_change_invalidates_older_claims,
    ForgetsRefusals by refused_slices_are_refused_again,
    GuardsOutliveIncarnations by guards_end_with_the_incarnation,
    HeartbeatsRenewNoLease by leases_run_exactly,
    InstancesShareAGuard by guards_end_with_the_incarnation,
    JoinsFindNoDead by every_operation_detects_expired_instances,
    JoinsTakeAThousandClaims by big_joins_put_everything_back,
    KeepsEarlierIncarnations by an_id_has_one_incarnation,
    LateClaimsTakeNothingAway by
        a_late_claim_takes_away_what_it_outdates
        lost_data_heals_under_the_latest_epoch,
    LeasesEndLate by leases_run_exactly,
    BoundsSlices by slices_within_bounds_are_exact,
    LeavingKeepsTheSlices by leaving_takes_the_slices_along,
    ListsSlicesInReverse by totals_are_the_sums_of_the_slices,
    ListsStaleSlices by a_set_takes_all_slices,
    ListsTheExpired by looking_on_needs_no_membership_and_changes_nothing,
    LookingOnCollects by looking_on_needs_no_membership_and_changes_nothing,
    RemovalsHeedNoCondition by a_removal_of_slices_is_a_write_like_any_other,
    NamesGoToTheLatestJoin by a_name_has_one_holder,
    AcceptsClaimsAfterAnyAbsence by claims_are_refused_after_max_absence,
    PutsClaimsBackTwice by a_claim_is_put_back_once,
    PutsStaleClaimsBack by
        stale_slices_do_not_come_back
        nothing_comes_back_after_a_clear
        a_clear_after_a_loss_is_final,
    ReadsAreNotNumbered by versions_grow,
    ReadsFindNoDead by every_operation_detects_expired_instances,
    ReadsMakeSlices by a_missing_key_has_no_slices,
    ReadsRenewNoLease by leases_run_exactly,
    RemovalsKeepTheEpoch by
        stale_slices_do_not_come_back
        a_set_takes_all_slices
        totals_are_the_sums_of_the_slices,
    RemovedSlicesRenewTheEpoch by slices_change_without_an_epoch,
    RenewsLeasesThatWereCollected by those_not_joined_touch_nothing leases_run_exactly,
    ReplacedSlicesAddUp by slices_change_without_an_epoch totals_are_the_sums_of_the_slices,
    ReplacedSlicesKeepTheirClaims by a_late_claim_takes_nothing_away_twice,
    ReplayedSetsRenewEpochs by a_replayed_slice_batch_changes_nothing,
    ReplaysAnswerWithTheFirstAnswer by a_replayed_slice_batch_changes_nothing,
    Saturates by slices_are_exact_on_the_whole_range slice_batches_keep_their_order,
    SetsKeepTheEpoch by
        stale_slices_do_not_come_back
        a_set_takes_all_slices
        totals_are_the_sums_of_the_slices,
    SharesNames by a_name_has_one_holder,
    SpacesShareTheirKeys by slices_of_any_key_stay_apart those_not_joined_touch_nothing,
    StopsAtARefusal by slice_batches_keep_their_order refused_slices_are_refused_again,
    SubtractsStaleSlices by a_set_takes_all_slices,
    TakesAClearForALoss by nothing_comes_back_after_a_clear a_clear_after_a_loss_is_final,
    TakesALossForAClear by
        lost_data_heals
        lost_data_heals_under_the_latest_epoch
        counts_made_since_a_loss_stay,
    CountsClockStepsAsAbsence by a_clock_step_is_not_an_absence,
    TakesBeginningsForChanges by losses_in_a_row_heal,
    TheDeadTakeWholeKeys by expired_instances_take_their_own_slices_only,
    TotalsWrapAround by totals_out_of_range_are_clamped,
    TrimsNames by any_id_and_name_work,
}
