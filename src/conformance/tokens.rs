//! Rules 31 to 38: additions that happen once for each token.

use std::time::Duration;

use tokio::task::JoinSet;

use super::{
    fixture::{Fixture, Probe, key},
    guest::ok,
};
use crate::{
    RedisKey, Token,
    backend::{
        AddedOnce, BackendError, Outcome, Refusal, Resolved, Space, TokenAdd, Tokens, Write,
    },
};

const HOUR: Duration = Duration::from_secs(3600);

fn tokens(probe: &Probe) -> &dyn Tokens {
    let capability = probe.backend.capabilities().tokens;
    capability.expect("the store has the capability `tokens`")
}

fn token(name: &str) -> Token {
    match Token::new(name) {
        Ok(token) => token,
        Err(error) => panic!("the suite made a bad token: {error}"),
    }
}

fn item(name: &str, count: i64, under: &str) -> TokenAdd {
    TokenAdd { key: key(name), count, token: token(under) }
}

fn question(name: &str, under: &str) -> (RedisKey, Token) {
    (key(name), token(under))
}

async fn add_all(probe: &Probe, items: &[TokenAdd], keep: Duration) -> Vec<Outcome<AddedOnce>> {
    let outcomes = ok("add_once", tokens(probe).add_once(&probe.space, items, keep).await);
    assert_eq!(outcomes.len(), items.len(), "one outcome for each item");
    outcomes
}

async fn add(probe: &Probe, name: &str, count: i64, under: &str) -> Outcome<AddedOnce> {
    add_all(probe, &[item(name, count, under)], HOUR).await.remove(0)
}

async fn resolve(probe: &Probe, name: &str, under: &str) -> Outcome<Resolved> {
    let asked = [question(name, under)];
    let mut known = ok("resolve", tokens(probe).resolve(&probe.space, &asked, HOUR).await);
    assert_eq!(known.len(), 1, "one answer for each token");
    known.remove(0)
}

async fn forbid(probe: &Probe, name: &str, under: &str) -> Outcome<Resolved> {
    let asked = [question(name, under)];
    let mut known = ok("forbid", tokens(probe).forbid(&probe.space, &asked, HOUR).await);
    assert_eq!(known.len(), 1, "one answer for each token");
    known.remove(0)
}

fn applied(total: i64) -> Outcome<AddedOnce> {
    Ok(AddedOnce { total, replayed: false })
}

fn replayed(total: i64) -> Outcome<AddedOnce> {
    Ok(AddedOnce { total, replayed: true })
}

fn done(amount: i64, answer: i64) -> Outcome<Resolved> {
    Ok(Resolved::Done { amount, answer })
}

/// Rule 31: a token adds once to each key, and its replays get the first answer whatever happened since.
pub async fn a_token_is_used_once(fixture: &Fixture) {
    let probe = fixture.fresh();
    let hits = key("hits");
    assert_eq!(add(&probe, "hits", 5, "a").await, applied(5));
    probe.apply(&[Write::add(hits.clone(), 100)]).await;
    assert_eq!(add(&probe, "hits", 5, "a").await, replayed(5));
    assert_eq!(add(&probe, "hits", 5, "b").await, applied(110), "another token");
    assert_eq!(add(&probe, "hats", 5, "a").await, applied(5), "another key");
    assert_eq!(add(&probe, "hits", 0, "nothing").await, applied(110));
    assert_eq!(add(&probe, "hits", 0, "nothing").await, replayed(110));
    let batch = [
        item("hits", 1, "c"),
        item("hits", 1, "c"),
        item("hats", 2, "d"),
        item("hits", 5, "a"),
        item("hits", 3, "e"),
    ];
    let first = [applied(111), replayed(111), applied(7), replayed(5), applied(114)];
    assert_eq!(add_all(&probe, &batch, HOUR).await, first, "in the order of the batch");
    let again = [replayed(111), replayed(111), replayed(7), replayed(5), replayed(114)];
    assert_eq!(add_all(&probe, &batch, HOUR).await, again);
    assert_eq!(probe.read(&[hits, key("hats")]).await, [114, 7]);
    assert!(add_all(&probe, &[], HOUR).await.is_empty());
}

/// Rule 31: names and tokens of any kind are told apart.
pub async fn any_token_works(fixture: &Fixture) {
    let probe = fixture.fresh();
    let mut all: Vec<Token> = ["a", "A", " a", "a ", ":", "-", "a:b", "*", "ü", "0", "é€"]
        .into_iter()
        .map(token)
        .collect();
    let bytes = [&[0][..], &[0, 0], &[255; 255], &[10], b"\r\n", &[0xff, 0xfe]];
    all.extend(bytes.into_iter().filter_map(|bytes| Token::from_bytes(bytes).ok()));
    let names = ["k", "k b", "a", "ü"];
    for again in [false, true] {
        for name in names {
            for (at, token) in (1..).zip(&all) {
                let item = TokenAdd { key: key(name), count: 1, token: token.clone() };
                let outcome = add_all(&probe, &[item], HOUR).await.remove(0);
                let expected = AddedOnce { total: at, replayed: again };
                assert_eq!(outcome, Ok(expected), "{token:?} of {name:?}");
            }
        }
    }
}

/// Rule 31: of copies that arrive together one is applied, and all get its answer.
pub async fn concurrent_copies_of_an_addition_happen_once(fixture: &Fixture) {
    let probe = fixture.fresh();
    let mut copies = JoinSet::new();
    for n in 0..24 {
        let probe = probe.clone();
        let under = format!("t{}", n % 3);
        copies.spawn(async move { (n % 3, add(&probe, "hits", 7, &under).await) });
    }
    let mut answers = vec![Vec::new(); 3];
    while let Some(Ok((which, answer))) = copies.join_next().await {
        answers[which].extend(answer);
    }
    for answers in answers {
        assert_eq!(answers.len(), 8, "each was answered");
        assert!(answers.iter().all(|answer| answer.total == answers[0].total), "{answers:?}");
        assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1, "{answers:?}");
    }
    assert_eq!(probe.total(&key("hits")).await, 21);
}

/// Rule 31, of many tokens: more than a store keeps in one place.
pub async fn many_tokens_are_told_apart(fixture: &Fixture) {
    let probe = fixture.fresh();
    let all: Vec<_> =
        (0..6000).map(|n| item(&format!("k{}", n % 7), 1, &format!("order {n}"))).collect();
    for batch in all.chunks(500) {
        let outcomes = add_all(&probe, batch, HOUR).await;
        let fresh = outcomes.iter().filter(|one| one.as_ref().is_ok_and(|one| !one.replayed));
        assert_eq!(fresh.count(), batch.len());
    }
    for (n, item) in all.iter().enumerate().step_by(97) {
        let outcome = add_all(&probe, std::slice::from_ref(item), HOUR).await.remove(0);
        let total = i64::try_from(n / 7 + 1).unwrap_or_default();
        assert_eq!(outcome, replayed(total), "{item:?}");
    }
    let sum: i64 =
        probe.read(&(0..7).map(|n| key(&format!("k{n}"))).collect::<Vec<_>>()).await.iter().sum();
    assert_eq!(sum, 6000);
}

/// Rule 32: a token is for one amount.
pub async fn another_amount_is_refused(fixture: &Fixture) {
    let probe = fixture.fresh();
    assert_eq!(add(&probe, "hits", -5, "a").await, applied(-5));
    for amount in [5, 0, i64::MIN, i64::MAX] {
        let refused = Err(Refusal::TokenUsed { amount: -5 });
        assert_eq!(add(&probe, "hits", amount, "a").await, refused, "{amount} instead of -5");
    }
    assert_eq!(add(&probe, "hits", -5, "a").await, replayed(-5));
    assert_eq!(probe.total(&key("hits")).await, -5);
}

/// Rule 33, and rules 3 and 6: an addition that is refused leaves its token unused, and stops no neighbour.
pub async fn a_refused_addition_leaves_its_token_unused(fixture: &Fixture) {
    let probe = fixture.fresh();
    let top = key("top");
    probe.write(Write::set(top.clone(), i64::MAX)).await;
    let batch = [item("hits", 1, "a"), item("top", 1, "b"), item("hits", 2, "c")];
    let outcomes = add_all(&probe, &batch, HOUR).await;
    assert_eq!(outcomes, [applied(1), Err(Refusal::Overflow), applied(3)]);
    assert_eq!(resolve(&probe, "top", "b").await, Ok(Resolved::Unseen));
    assert_eq!(add(&probe, "top", -1, "b").await, applied(i64::MAX - 1), "it is free");
    assert_eq!(add(&probe, "top", -1, "b").await, replayed(i64::MAX - 1));
    if fixture.can_plant() {
        fixture.plant(&probe.space, &key("odd"), "12 apples").await;
        let found = "12 apples".to_owned();
        assert_eq!(add(&probe, "odd", 1, "d").await, Err(Refusal::NotANumber { found }));
        probe.apply(&[Write::set(key("odd"), 12)]).await;
        assert_eq!(add(&probe, "odd", 1, "d").await, applied(13));
    }
}

/// Rule 4: amounts and answers are exact on the whole range, also those of replays.
pub async fn tokens_are_exact_on_the_whole_range(fixture: &Fixture) {
    let probe = fixture.fresh();
    let limit = 1_i64 << 53;
    let starts = [0, limit - 1, limit, -limit, -limit - 1, i64::MAX - 1, i64::MIN + 1];
    let counts = [1, -1, 2, limit + 1, -limit - 1, i64::MAX, i64::MIN];
    for (at, start) in starts.into_iter().enumerate() {
        for (n, count) in counts.into_iter().enumerate() {
            let (name, under) = (format!("k{at} {n}"), format!("t{n}"));
            probe.write(Write::set(key(&name), start)).await;
            match start.checked_add(count) {
                None => {
                    let refused = Err(Refusal::Overflow);
                    assert_eq!(add(&probe, &name, count, &under).await, refused, "{start} {count}");
                }
                Some(sum) => {
                    assert_eq!(add(&probe, &name, count, &under).await, applied(sum));
                    probe.write(Write::set(key(&name), 7)).await;
                    assert_eq!(add(&probe, &name, count, &under).await, replayed(sum));
                    assert_eq!(resolve(&probe, &name, &under).await, done(count, sum));
                }
            }
        }
    }
}

/// Rule 34: a question tells what is remembered and changes nothing.
pub async fn resolving_changes_nothing(fixture: &Fixture) {
    let probe = fixture.fresh();
    assert_eq!(resolve(&probe, "hits", "a").await, Ok(Resolved::Unseen), "of an empty space");
    assert_eq!(add(&probe, "hits", 5, "a").await, applied(5), "it is not final");
    probe.apply(&[Write::add(key("hits"), 1)]).await;
    for _ in 0..2 {
        let asked = [question("hits", "b"), question("hits", "a"), question("hats", "a")];
        let known = ok("resolve", tokens(&probe).resolve(&probe.space, &asked, HOUR).await);
        assert_eq!(known, [Ok(Resolved::Unseen), done(5, 5), Ok(Resolved::Unseen)]);
    }
    assert_eq!(probe.total(&key("hits")).await, 6);
    let none = ok("resolve", tokens(&probe).resolve(&probe.space, &[], HOUR).await);
    assert!(none.is_empty());
}

/// Rule 34: a mark refuses later additions, and is not left where an addition was.
pub async fn forbidden_tokens_are_refused(fixture: &Fixture) {
    let probe = fixture.fresh();
    assert_eq!(forbid(&probe, "hits", "late").await, Ok(Resolved::Forbidden));
    for _ in 0..2 {
        assert_eq!(add(&probe, "hits", 5, "late").await, Err(Refusal::TokenForbidden));
        assert_eq!(resolve(&probe, "hits", "late").await, Ok(Resolved::Forbidden));
        assert_eq!(forbid(&probe, "hits", "late").await, Ok(Resolved::Forbidden));
    }
    assert_eq!(add(&probe, "hits", -3, "done").await, applied(-3));
    assert_eq!(forbid(&probe, "hits", "done").await, done(-3, -3));
    assert_eq!(add(&probe, "hits", -3, "done").await, replayed(-3));
    assert_eq!(add(&probe, "hats", 5, "late").await, applied(5), "of another key");
    assert_eq!(probe.total(&key("hits")).await, -3);
}

/// Rule 35: a token is remembered for `keep`, and not for ever; a clock that jumps forgets nothing.
pub async fn tokens_are_remembered_for_keep(fixture: &Fixture) {
    if !fixture.has_clock() {
        return;
    }
    let keep = Duration::from_secs(100);
    // At several times within a bucket.
    for wait in [0, 1, 13, 49] {
        let probe = fixture.fresh();
        let touch = async |n: u64| add_all(&probe, &[item("other", 1, &n.to_string())], keep).await;
        touch(1000).await;
        fixture.pass(Duration::from_secs(wait));
        let used = [item("hits", 5, "a")];
        assert_eq!(add_all(&probe, &used, keep).await, [applied(5)]);
        let asked = [question("hits", "no")];
        ok("forbid", tokens(&probe).forbid(&probe.space, &asked, keep).await);
        let marked = [item("hits", 5, "no")];
        // A clock that is set forward by a day adds a minute at most.
        fixture.pass(Duration::from_secs(86_400));
        assert_eq!(add_all(&probe, &used, keep).await, [replayed(5)], "after {wait} s");
        for step in 0..4 {
            fixture.pass(Duration::from_secs(10));
            touch(step).await;
        }
        assert_eq!(add_all(&probe, &used, keep).await, [replayed(5)], "after {wait} s");
        let refused = Err(Refusal::TokenForbidden);
        assert_eq!(add_all(&probe, &marked, keep).await, [refused], "after {wait} s");
        for step in 4..10 {
            fixture.pass(Duration::from_secs(9));
            touch(step).await;
        }
        assert_eq!(add_all(&probe, &used, keep).await, [applied(10)], "1.54 keep have passed");
        assert_eq!(add_all(&probe, &marked, keep).await, [applied(15)]);
    }
}

/// Rule 36: where records of tokens are lost, nothing is added that may have been added before.
pub async fn lost_tokens_are_not_used_again(fixture: &Fixture) {
    if !fixture.can_lose_tokens() {
        return;
    }
    let probe = fixture.fresh();
    assert_eq!(add(&probe, "hits", 5, "a").await, applied(5));
    fixture.lose_tokens(&probe.space).await;
    for name in ["a", "new"] {
        assert_eq!(resolve(&probe, "hits", name).await, Err(Refusal::TokenForgotten));
        assert_eq!(add(&probe, "hits", 5, name).await, Err(Refusal::TokenForgotten));
        assert_eq!(forbid(&probe, "hits", name).await, Err(Refusal::TokenForgotten));
    }
    assert_eq!(probe.total(&key("hits")).await, 5);
    if fixture.has_clock() {
        for _ in 0..91 {
            fixture.pass(Duration::from_secs(60));
            let refused = add(&probe, "hits", 5, "a").await;
            if refused != Err(Refusal::TokenForgotten) {
                break;
            }
        }
        assert_eq!(add(&probe, "hits", 5, "b").await, applied(15), "after 1.5 keep");
        assert_eq!(add(&probe, "hits", 5, "b").await, replayed(15));
    }
}

/// Rule 37: all processes keep tokens for the same time, and the prefix has one number of shards.
pub async fn another_keep_is_refused(fixture: &Fixture) {
    let probe = fixture.fresh();
    let (store, space) = (tokens(&probe), &probe.space);
    assert_eq!(add(&probe, "hits", 5, "a").await, applied(5));
    let (items, asked) = ([item("hits", 5, "b")], [question("hits", "a")]);
    let other = HOUR + Duration::from_secs(2);
    let refusals = [
        store.add_once(space, &items, other).await.map(drop),
        store.resolve(space, &asked, other).await.map(drop),
        store.forbid(space, &asked, other).await.map(drop),
    ];
    for refused in refusals {
        let Err(BackendError::ShapeMismatch { ours, stored }) = refused else {
            panic!("another keep was answered: {refused:?}");
        };
        assert!(ours.contains("3602 s") && stored.contains("3600 s"), "{ours} and {stored}");
    }
    let sharded = Space::shards_of(space.prefix().clone(), 2);
    let refused = store.add_once(&sharded[0], &items, HOUR).await;
    assert!(matches!(refused, Err(BackendError::ShapeMismatch { .. })), "{refused:?}");
    assert_eq!(probe.total(&key("hits")).await, 5);

    let prefix = fixture.fresh().space.prefix().clone();
    let shards = Space::shards_of(prefix, 2);
    ok("add_once", store.add_once(&shards[0], &items, HOUR).await);
    let refused = store.add_once(&shards[1], &items, other).await;
    assert!(matches!(refused, Err(BackendError::ShapeMismatch { .. })), "{refused:?}");
}

/// Rule 38: what is done to counters does nothing to tokens.
pub async fn tokens_survive_removal_and_clear(fixture: &Fixture) {
    let probe = fixture.fresh();
    assert_eq!(add(&probe, "hits", 5, "a").await, applied(5));
    probe.remove(&[key("hits")]).await;
    assert_eq!(add(&probe, "hits", 5, "a").await, replayed(5));
    probe.write(Write::set(key("hits"), 3)).await;
    assert_eq!(add(&probe, "hits", 5, "a").await, replayed(5));
    probe.clear().await;
    assert_eq!(add(&probe, "hits", 5, "a").await, replayed(5));
    assert_eq!(probe.total(&key("hits")).await, 0);
}

/// Rule 9: tokens of other spaces, the shards of a prefix among them, are others.
pub async fn tokens_stay_in_their_space(fixture: &Fixture) {
    let probe = fixture.fresh();
    let beside = fixture.fresh();
    assert_eq!(add(&probe, "hits", 5, "a").await, applied(5));
    assert_eq!(add(&beside, "hits", 6, "a").await, applied(6));
    let prefix = fixture.fresh().space.prefix().clone();
    for space in Space::shards_of(prefix, 3) {
        let shard = Probe { space, ..probe.clone() };
        assert_eq!(add(&shard, "hits", 7, "a").await, applied(7));
        assert_eq!(add(&shard, "hits", 7, "a").await, replayed(7));
    }
}
