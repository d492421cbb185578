use super::fixture::{Fixture, key};
use crate::{
    CounterComparator::Eq,
    backend::{Outcome, Refusal, Write},
};

/// Text that is not a decimal `i64`, as `i64::to_string` writes it.
const TEXTS: [&str; 12] = [
    "hello",
    "1.5",
    "1e3",
    "9223372036854775808",
    "-9223372036854775809",
    "12 apples",
    "+5",
    "007",
    "-0",
    " 1",
    "",
    "kr\u{e4}he \u{1f980}",
];

#[track_caller]
fn check_named<T: std::fmt::Debug>(what: &str, text: &str, outcome: &Outcome<T>) {
    match outcome {
        Err(Refusal::NotANumber { found }) => {
            assert_eq!(found, text, "{what}: the refusal names something else");
        }
        other => panic!("{what} of {text:?}: expected a refusal that names it, got {other:?}"),
    }
}

/// Rule 6: a value that is not a number is named where it is read or added to, and stays; an
/// unconditional assignment replaces it; a removal deletes it and is refused.
///
/// Checks nothing when the fixture cannot plant such a value: see [`Fixture::plant_with`].
pub async fn foreign_data_is_named_and_kept(fixture: &Fixture) {
    if !fixture.can_plant() {
        eprintln!("not checked: the fixture cannot plant foreign data");
        return;
    }
    let probe = fixture.fresh();
    let (foreign, good) = (key("foreign"), key("good"));
    for (round, text) in (1_i64..).zip(TEXTS) {
        fixture.plant(&probe.space, &foreign, text).await;
        let both = [foreign.clone(), good.clone()];

        let outcomes = probe.read_outcomes(&both).await;
        check_named("read", text, &outcomes[0]);
        assert_eq!(outcomes[1], Ok((round - 1) * 2), "the neighbour of {text:?}, read");

        let outcomes = probe
            .apply(&[
                Write::add(foreign.clone(), 1),
                Write::add(good.clone(), 1),
                Write::add(foreign.clone(), 1).only_if(Eq(0)),
                Write::set(foreign.clone(), 1).only_if(Eq(0)),
            ])
            .await;
        check_named("addition", text, &outcomes[0]);
        assert!(outcomes[1].is_ok(), "the neighbour of {text:?}: {:?}", outcomes[1]);
        check_named("conditional addition", text, &outcomes[2]);
        check_named("conditional assignment", text, &outcomes[3]);
        let alone = probe.apply(&[Write::add(foreign.clone(), 1)]).await;
        check_named("addition alone", text, &alone[0]);

        let guard = probe.guard(1);
        let writes = [Write::add(foreign.clone(), 1), Write::add(good.clone(), 1)];
        for replayed in [false, true] {
            let applied = probe.send(&writes, Some(&guard)).await;
            assert_eq!(applied.replayed, replayed, "a guarded batch with foreign data");
            check_named("guarded addition", text, &applied.outcomes[0]);
            assert!(applied.outcomes[1].is_ok(), "the guarded neighbour of {text:?}");
        }
        check_named("read after all that", text, &probe.read_outcomes(&both).await[0]);

        let written = probe.write(Write::set(foreign.clone(), 5)).await;
        assert!(
            written.condition_met && written.new == 5,
            "an assignment over {text:?} answered {written:?}"
        );
        assert_eq!(probe.total(&foreign).await, 5, "after an assignment over {text:?}");

        fixture.plant(&probe.space, &foreign, text).await;
        let outcomes = probe.remove_outcomes(&[foreign.clone(), key("absent")]).await;
        check_named("removal", text, &outcomes[0]);
        assert_eq!(outcomes[1], Ok(0), "the neighbour of a removal of {text:?}");
        assert_eq!(probe.total(&foreign).await, 0, "a removal leaves {text:?}");
    }
    fixture.plant(&probe.space, &foreign, "hello").await;
    probe.clear().await;
    assert_eq!(probe.total(&foreign).await, 0, "clear leaves foreign data");
}
