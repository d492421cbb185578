use std::time::Duration;

use tokio::time::Instant;

use crate::outage::{Outage, Standing};

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
