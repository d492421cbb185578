//! Simulated connections that come and go, so that the chart has something to show.

use std::{convert::Infallible, sync::Arc, time::Duration};

use crate::connections::{Connections, Refused};

/// Keeps roughly `about` connections open: each step opens or closes some, more often towards that
/// number.
pub(crate) async fn run(connections: Arc<Connections>, about: u32) -> Result<Infallible, Refused> {
    connections.simulate(about)?;
    let most = (about / 12).max(2);
    let mut ticks = tokio::time::interval(Duration::from_millis(400));
    loop {
        ticks.tick().await;
        let held = connections.held().simulated;
        // The more are open, the less likely is it that more are opened.
        let up = fastrand::u64(..2 * u64::from(about)) >= held;
        let n = fastrand::u32(..=most);
        if up {
            connections.simulate(n)?;
        } else {
            connections.close_simulated(n)?;
        }
    }
}
