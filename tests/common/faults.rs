//! Runs rules of the conformance suite over stores with one fault each.

use std::{future::Future, pin::Pin};

use distkit::{CounterComparator, conformance::Fixture};

pub(crate) type Run = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs a rule on one thread, where the faults that leave a gap between two steps let the others in
/// at each run, and gives the panic's message. Waiting for something that never comes takes no time.
pub(crate) fn complaint(fixture: Fixture, rule: fn(Fixture) -> Run) -> Option<String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let error = runtime.block_on(async { tokio::spawn(rule(fixture)).await }).err()?;
    let panic = error.into_panic();
    Some(match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => (*panic.downcast::<&str>().unwrap()).to_owned(),
    })
}

/// A comparison of which Lua's numbers are capable, and no better.
pub(crate) fn matches_through_doubles(condition: CounterComparator, value: i64) -> bool {
    let value = value as f64;
    match condition {
        CounterComparator::Eq(n) => value == n as f64,
        CounterComparator::Ne(n) => value != n as f64,
        CounterComparator::Lt(n) => value < n as f64,
        CounterComparator::Gt(n) => value > n as f64,
        CounterComparator::Le(n) => value <= n as f64,
        CounterComparator::Ge(n) => value >= n as f64,
        CounterComparator::Nil => true,
        other => panic!("{other:?} is new"),
    }
}

/// A test that each `Fault` is caught by its rules, and another that there is a fault for each rule in
/// these sources. Uses `fixture(Fault)`.
macro_rules! caught {
    (in $($source:literal)+; $($fault:ident by $($rule:ident)+,)+) => {
        #[test]
        fn each_fault_is_caught_by_its_rule() {
            let mut missed = Vec::new();
            $($(
                let run = |fixture: Fixture| -> faults::Run {
                    Box::pin(async move { rules::$rule(&fixture).await })
                };
                match faults::complaint(fixture(Fault::$fault), run) {
                    Some(complaint) => println!("{:?}: {complaint}", Fault::$fault),
                    None => missed.push(concat!(stringify!($fault), " by ", stringify!($rule))),
                }
            )+)+
            assert!(missed.is_empty(), "not caught: {missed:#?}");
        }

        #[test]
        fn each_rule_catches_a_fault() {
            let used = [$($(stringify!($rule)),+),+];
            let lines = [$(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/conformance/", $source))),+];
            let rules = lines.iter().flat_map(|source| source.lines()).filter_map(|line| {
                line.strip_prefix("pub async fn ")?.split('(').next()
            });
            let idle: Vec<_> = rules.filter(|rule| !used.contains(rule)).collect();
            assert!(idle.is_empty(), "nothing shows that these rules can fail: {idle:#?}");
        }
    };
}
pub(crate) use caught;
