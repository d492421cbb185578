use std::time::Duration;

use tokio::time::Instant;

use crate::outage::{Outage, Standing, Told};

#[tokio::test(start_paused = true)]
async fn ten_minutes_of_failures_give_a_few_lines_and_one_at_the_end() {
    let mut outage = Outage::default();
    assert_eq!(outage.ended(), None);
    let mut lines = Vec::new();
    for second in 0..600 {
        if outage.failed(Instant::now()).is_some() {
            lines.push(second);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(lines, [0, 5, 15, 35, 75, 155, 315]);
    let end = outage.ended().unwrap();
    assert_eq!(end, Standing { attempts: 600, lasted: Duration::from_secs(600) });
    assert_eq!(outage.ended(), None);
}

#[tokio::test(start_paused = true)]
async fn an_outage_begins_with_the_first_request_that_fails_not_with_its_time_out() {
    let mut outage = Outage::default();
    let sent = Instant::now();
    tokio::time::sleep(Duration::from_secs(5)).await;
    let line = outage.failed(sent).unwrap();
    assert_eq!(line, Standing { attempts: 1, lasted: Duration::from_secs(5) });
}

#[tokio::test(start_paused = true)]
async fn a_long_outage_soon_after_a_short_one_is_told_of_later() {
    let mut told = Told::default();
    assert!(told.failed(Instant::now()).is_some());
    assert!(told.ended().is_some());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let begun = Instant::now();
    let mut lines = Vec::new();
    for second in 0..20 {
        lines.extend(told.failed(begun).map(|_| second));
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(lines, [5, 15]);
    assert_eq!(told.ended().unwrap().lasted, Duration::from_secs(20));
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_was_not_told_of_ends_untold() {
    let mut told = Told::default();
    told.failed(Instant::now());
    told.ended();
    assert_eq!(told.failed(Instant::now()), None);
    assert_eq!(told.ended(), None);
}
