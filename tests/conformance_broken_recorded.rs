//! The rules of recorded answers catch stores that break them.
#![cfg(feature = "conformance")]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

#[path = "common/faults.rs"]
#[allow(dead_code, unused_imports, reason = "made for other tests besides")]
mod faults;
#[path = "common/overriding.rs"]
mod overriding;

use std::sync::Mutex;

use async_trait::async_trait;
use distkit::{
    backend::{
        Applied, Backend, BackendError, Capabilities, Member, Ordered, RecordedAnswers,
        RecordedSliceAnswers, ReplayGuard, SliceWrite, Space, Standing, Write,
        memory::MemoryBackend,
    },
    conformance::{self as rules, Fixture},
};
use overriding::{Override, Overriding};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    AnswersLateRequestsWithTheLatestAnswer,
    AnswersWithTheValuesAsTheyStand,
    AppliesAgain,
    LetsLateRequestsThrough,
    SharesRecordsWithWriters,
    UsesUpTheSequencesOfTheNotJoined,
    TiesAnswersToTheIncarnation,
}

/// A sound store around which the fault is.
#[derive(Debug)]
struct Broken {
    fault: Fault,
    store: MemoryBackend,
    /// The latest request of each lane, and what it was answered.
    latest: Mutex<Vec<(ReplayGuard, Applied)>>,
    refused: Mutex<Vec<ReplayGuard>>,
}

impl Broken {
    fn recorded(&self) -> &dyn RecordedAnswers {
        self.store.capabilities().recorded.unwrap()
    }

    fn recorded_slices(&self) -> &dyn RecordedSliceAnswers {
        self.store.capabilities().recorded_slices.unwrap()
    }

    /// The lane under which the sound store sees the request.
    fn lane(&self, lane: &ReplayGuard) -> ReplayGuard {
        match self.fault {
            Fault::AppliesAgain => ReplayGuard { writer: self.store.fresh_id(), ..lane.clone() },
            _ => lane.clone(),
        }
    }
}

#[async_trait]
impl RecordedAnswers for Broken {
    async fn apply_recorded(
        &self,
        space: &Space,
        writes: &[Write],
        lane: &ReplayGuard,
    ) -> Result<Applied, BackendError> {
        match self.fault {
            Fault::AnswersWithTheValuesAsTheyStand | Fault::SharesRecordsWithWriters => {
                let first = self.recorded().apply_recorded(space, writes, lane).await?;
                let stands = self.store.apply(space, writes, Some(lane)).await?;
                return Ok(match self.fault {
                    Fault::AnswersWithTheValuesAsTheyStand => stands,
                    _ => first,
                });
            }
            _ => {}
        }
        let late = {
            let mut latest = self.latest.lock().unwrap();
            let found = latest.iter_mut().find(|(known, _)| known.writer == lane.writer);
            found.filter(|(known, _)| known.sequence > lane.sequence).cloned()
        };
        if let Some((_, answer)) = late {
            match self.fault {
                Fault::AnswersLateRequestsWithTheLatestAnswer => return Ok(answer),
                Fault::LetsLateRequestsThrough => {
                    return self.store.apply(space, writes, None).await;
                }
                _ => {}
            }
        }
        let answer = self.recorded().apply_recorded(space, writes, &self.lane(lane)).await?;
        let mut latest = self.latest.lock().unwrap();
        latest.retain(|(known, _)| known.writer != lane.writer);
        latest.push((lane.clone(), answer.clone()));
        Ok(answer)
    }

    async fn clear_recorded(&self, space: &Space, lane: &ReplayGuard) -> Result<(), BackendError> {
        self.recorded().clear_recorded(space, &self.lane(lane)).await
    }
}

#[async_trait]
impl RecordedSliceAnswers for Broken {
    async fn apply_on_recorded(
        &self,
        space: &Space,
        member: &Member,
        writes: &[SliceWrite],
        lane: &ReplayGuard,
    ) -> Result<Ordered<Applied<Standing>>, BackendError> {
        let mut lane = self.lane(lane);
        if self.fault == Fault::TiesAnswersToTheIncarnation {
            lane.writer = format!("{}{}", lane.writer, member.incarnation).into();
        }
        let same = |known: &ReplayGuard| {
            (known.writer == lane.writer) && (known.sequence == lane.sequence)
        };
        if self.refused.lock().unwrap().iter().any(same) {
            return Err(BackendError::NotJoined);
        }
        let answer = self.recorded_slices().apply_on_recorded(space, member, writes, &lane).await;
        if self.fault == Fault::UsesUpTheSequencesOfTheNotJoined && answer.is_err() {
            self.refused.lock().unwrap().push(lane);
        }
        answer
    }

    async fn clear_on_recorded(
        &self,
        space: &Space,
        member: &Member,
        lane: &ReplayGuard,
    ) -> Result<(), BackendError> {
        self.recorded_slices().clear_on_recorded(space, member, &self.lane(lane)).await
    }
}

#[async_trait]
impl Override for Broken {
    fn sound(&self) -> &MemoryBackend {
        &self.store
    }

    fn capabilities(&self) -> Capabilities<'_> {
        Capabilities::none().with_recorded(self).with_recorded_slices(self)
    }
}

fn fixture(fault: Fault) -> Fixture {
    let (latest, refused) = (Mutex::default(), Mutex::default());
    let broken = Broken { fault, store: MemoryBackend::new(), latest, refused };
    Fixture::new(Overriding(broken)).without_a_clock()
}

async fn sound() -> Fixture {
    fixture(Fault::None)
}

// Without a fault this store passes, so what fails below fails because of the fault.
distkit::recorded_conformance_suite!(plain, sound);
distkit::recorded_slices_conformance_suite!(slices, sound);

faults::caught! {
    in "recorded.rs";
    AnswersLateRequestsWithTheLatestAnswer by a_late_recorded_request_changes_nothing,
    AnswersWithTheValuesAsTheyStand by a_recorded_request_gets_its_original_answer,
    AppliesAgain by
        a_recorded_clear_happens_once
        a_recorded_clear_of_slices_happens_once
        a_recorded_request_gets_its_original_answer
        a_recorded_slice_request_gets_its_original_answer
        concurrent_copies_of_a_recorded_request_get_one_answer,
    LetsLateRequestsThrough by a_late_recorded_request_changes_nothing,
    SharesRecordsWithWriters by concurrent_copies_of_a_recorded_request_get_one_answer,
    TiesAnswersToTheIncarnation by a_recorded_slice_request_gets_its_original_answer,
    UsesUpTheSequencesOfTheNotJoined by
        a_recorded_slice_request_may_be_sent_again_after_a_rejoin,
}
