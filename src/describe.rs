//! Tells a recorder of the `metrics` facade what the metrics are.

use metrics::{Unit, describe_histogram};
#[cfg(any(feature = "counter", feature = "instance-aware-counter"))]
use metrics::{describe_counter, describe_gauge};

use crate::backend::measured;
#[cfg(any(feature = "counter", feature = "instance-aware-counter"))]
use crate::stats::{Count, gauge};

/// Describes the metrics of this crate to the recorder that is installed, for its help texts. Call it once, after the
/// recorder is installed. Without it the metrics are recorded all the same.
pub fn describe_metrics() {
    #[cfg(any(feature = "counter", feature = "instance-aware-counter"))]
    {
        for (_, name, help) in Count::LIST {
            describe_counter!(name, help.trim());
        }
        for (_, name, help) in gauge::LIST {
            describe_gauge!(name, unit(name), help);
        }
    }
    for (name, help) in measured::LIST {
        describe_histogram!(name, unit(name), help);
    }
}

fn unit(name: &str) -> Unit {
    if name.ends_with("_seconds") { Unit::Seconds } else { Unit::Count }
}
