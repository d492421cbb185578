//! Sums at the ends of i64 and beyond 2^53.

use distkit::{DistkitError, backend::Refusal, counter::CounterTrait};

use crate::support::{Bench, Client, NEVER, key, over_both_clients};

over_both_clients!(
    an_overflow_holds_up_no_neighbour,
    sums_beyond_doubles_are_exact,
    foreign_data_holds_up_no_neighbour,
);

async fn an_overflow_holds_up_no_neighbour(client: Client) {
    let bench = Bench::new(client).await;
    let (counter, strict) = (bench.lax(NEVER).await, bench.strict().await);
    let (top, bottom) = (key("top"), key("bottom"));
    let neighbours = [key("a"), key("m"), key("z")];
    for known in [&top, &bottom].into_iter().chain(&neighbours) {
        counter.inc(known, 0).await.unwrap();
    }
    // What this process does not know when it adds.
    strict.set(&top, i64::MAX).await.unwrap();
    strict.set(&bottom, i64::MIN).await.unwrap();
    counter.inc(&neighbours[0], 1).await.unwrap();
    counter.inc(&top, 1).await.unwrap();
    counter.inc(&neighbours[1], 2).await.unwrap();
    counter.dec(&bottom, 1).await.unwrap();
    counter.inc(&neighbours[2], 3).await.unwrap();

    let refused = counter.flush().await.unwrap_err();
    assert!(
        matches!(&refused, DistkitError::CounterError { key, refusal: Refusal::Overflow }
            if *key == top || *key == bottom),
        "{refused}"
    );
    for (n, neighbour) in (1..).zip(&neighbours) {
        assert_eq!(bench.held(neighbour).await, n, "{neighbour}");
    }
    assert_eq!((bench.held(&top).await, bench.held(&bottom).await), (i64::MAX, i64::MIN));

    // What was refused is gone, and the keys work.
    counter.flush().await.unwrap();
    assert!(counter.inc(&top, 1).await.is_err(), "now the process knows the total");
    assert_eq!(counter.dec(&top, 1).await.unwrap(), i64::MAX - 1);
    assert_eq!(counter.inc(&bottom, 1).await.unwrap(), i64::MIN + 1);
    counter.flush().await.unwrap();
    assert_eq!((bench.held(&top).await, bench.held(&bottom).await), (i64::MAX - 1, i64::MIN + 1));
}

async fn sums_beyond_doubles_are_exact(client: Client) {
    let bench = Bench::new(client).await;
    let (lax, strict) = (bench.lax(NEVER).await, bench.strict().await);
    let edges = [1 << 53, -(1 << 53), i64::MAX - 100, i64::MIN + 100, (1 << 62) - 5, 5 - (1 << 62)];
    for edge in edges {
        let hits = key(&format!("from {edge}"));
        assert_eq!(strict.set(&hits, edge).await.unwrap(), edge);
        let mut expected = edge;
        for step in [1, 1, 1, -1, 7, -9] {
            expected += step;
            assert_eq!(lax.inc(&hits, step).await.unwrap(), expected);
            lax.flush().await.unwrap();
            assert_eq!(bench.held(&hits).await, expected);
            expected += step;
            assert_eq!(strict.inc(&hits, step).await.unwrap(), expected);
            expected += step;
            lax.inc(&hits, step).await.unwrap();
            lax.flush().await.unwrap();
            assert_eq!(lax.get(&hits).await.unwrap(), expected);
            assert_eq!(strict.get(&hits).await.unwrap(), expected);
        }
        assert_eq!(lax.del(&hits).await.unwrap(), expected);
    }
    // The whole range in one step, up and down.
    let swing = key("swing");
    lax.set(&swing, i64::MIN).await.unwrap();
    lax.inc(&swing, i64::MAX).await.unwrap();
    lax.flush().await.unwrap();
    assert_eq!(bench.held(&swing).await, -1);
    assert_eq!(strict.inc(&swing, i64::MIN + 1).await.unwrap(), i64::MIN);
}

async fn foreign_data_holds_up_no_neighbour(client: Client) {
    let bench = Bench::new(client).await;
    let counter = bench.lax(NEVER).await;
    let (spoilt, neighbour) = (key("spoilt"), key("neighbour"));
    counter.inc(&spoilt, 2).await.unwrap();
    counter.inc(&neighbour, 1).await.unwrap();
    bench.cli(&["HSET", "distkit:{bench}:totals", &spoilt, "many"]).await;

    let refused = counter.flush().await.unwrap_err();
    assert!(
        matches!(&refused, DistkitError::CounterError { key, refusal: Refusal::NotANumber { .. } }
            if *key == spoilt),
        "{refused}"
    );
    assert_eq!(bench.held(&neighbour).await, 1);
    assert_eq!(bench.cli(&["HGET", "distkit:{bench}:totals", &spoilt]).await, "many");

    // The write has waited for the place to be a number again.
    bench.cli(&["HSET", "distkit:{bench}:totals", &spoilt, "40"]).await;
    counter.flush().await.unwrap();
    assert_eq!(bench.held(&spoilt).await, 42);
}
