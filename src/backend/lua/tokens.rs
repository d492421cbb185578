//! Additions that happen once for each token.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use foldhash::fast::RandomState;
use parking_lot::RwLock;

use super::{
    Arg, Command, LuaStore, Reply, Script, ScriptRunner, layout, plain::partly, reply, unexpected,
};
use crate::{
    RedisKey, Token,
    backend::{
        AddedOnce, BackendError, Outcome, Refusal, Resolved, Space, TokenAdd, Tokens,
        tokens::{half_of, takes_tokens},
    },
};

static TOKENS: Script =
    Script::new(concat!(include_str!("records.lua"), include_str!("tokens.lua")));

/// How many tokens one script has: about 5 ms of the server's time.
const CHUNK: usize = 500;

/// How often a request is made anew because other buckets are live by the time that it arrives.
const ATTEMPTS: usize = 16;

/// What this process knows of the tokens of spaces.
#[derive(Default)]
pub(super) struct Known {
    buckets: RwLock<HashMap<Space, Arc<Buckets>, RandomState>>,
    /// Prefixes of several shards, and the half of their `keep`, in seconds.
    kept: RwLock<HashSet<(RedisKey, u64), RandomState>>,
}

/// The buckets of a space, as the server last told them: see `tokens.lua`.
#[derive(Debug, Default, Clone, PartialEq)]
struct Buckets {
    text: String,
    live: Vec<Bucket>,
    dead: Option<Dead>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Bucket {
    number: u64,
    parts: u32,
}

/// The bucket that is being removed, and its next part.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Dead {
    number: u64,
    parts: u32,
    next: u32,
}

impl Buckets {
    fn read(live: &str, dead: &str) -> Option<Self> {
        let buckets = live.split(';').filter(|text| !text.is_empty()).map(|text| {
            let mut words = text.split(' ');
            let number = words.next()?.parse().ok()?;
            let parts = words.nth(1)?.parse().ok().filter(|parts| *parts > 0)?;
            Some(Bucket { number, parts })
        });
        let buckets = buckets.collect::<Option<_>>()?;
        Some(Self { text: live.to_owned(), live: buckets, dead: Dead::read(dead) })
    }
}

impl Dead {
    /// The first of them.
    fn read(text: &str) -> Option<Self> {
        let mut words = text.split(';').next()?.split(' ');
        let number = words.next()?.parse().ok()?;
        let mut count = || words.next()?.parse().ok();
        Some(Self { number, parts: count()?, next: count()? })
    }

    /// The names of its next parts, and of its bits after the last one.
    fn names(self, space: &Space, count: u32) -> impl Iterator<Item = String> {
        let end = self.next.saturating_add(count).min(self.parts.saturating_add(1));
        (self.next..end).map(move |part| match part {
            part if part < self.parts => layout::token_part(space, self.number, part),
            _ => layout::token_bits(space, self.number),
        })
    }
}

/// What a script of tokens is to do.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Add,
    Resolve,
    Forbid,
}

struct Item<'i> {
    key: &'i RedisKey,
    token: &'i Token,
    count: i64,
}

/// Under which a token of a counter is recorded. No counter's name has a colon, so none is another one's.
///
/// Tokens may be chosen by strangers. One that had the digest of another's would have to be found for it.
fn digest(key: &RedisKey, token: &Token) -> [u8; 16] {
    let mut hash = sha1_smol::Sha1::new();
    hash.update(key.as_bytes());
    hash.update(b":");
    hash.update(token.as_bytes());
    let [short @ .., _, _, _, _] = hash.digest().bytes();
    short
}

fn part_of(digest: &[u8; 16], parts: u32) -> u32 {
    let [a, b, c, d, ..] = *digest;
    u32::from_be_bytes([a, b, c, d]) % parts
}

impl<R: ScriptRunner> LuaStore<R> {
    async fn ask_all<T>(
        &self,
        space: &Space,
        kind: Kind,
        items: &[Item<'_>],
        keep: Duration,
        answer: impl Fn(&Reply) -> Result<T, BackendError>,
    ) -> Result<Vec<T>, BackendError> {
        takes_tokens(space)?;
        let mut answers = Vec::with_capacity(items.len());
        for chunk in items.chunks(CHUNK) {
            let some = self
                .ask(space, kind, chunk, keep)
                .await
                .and_then(|replies| replies.iter().map(&answer).collect::<Result<Vec<_>, _>>());
            match some {
                Ok(some) => answers.extend(some),
                Err(error) if kind == Kind::Resolve => return Err(error.with_nothing_applied()),
                Err(error) if answers.is_empty() => return Err(error),
                Err(error) => return Err(partly(error)),
            }
        }
        Ok(answers)
    }

    /// Sends one script, for the buckets that are live.
    async fn ask(
        &self,
        space: &Space,
        kind: Kind,
        items: &[Item<'_>],
        keep: Duration,
    ) -> Result<Vec<Reply>, BackendError> {
        let half = half_of(keep);
        match kind {
            Kind::Resolve => {
                self.check(space).await?;
                self.agree(space, half, false).await?;
            }
            Kind::Add | Kind::Forbid => {
                self.open(space).await?;
                self.agree(space, half, true).await?;
            }
        }
        let digests: Vec<_> = items.iter().map(|item| digest(item.key, item.token)).collect();
        for _ in 0..ATTEMPTS {
            let buckets = self.buckets(space);
            let request = Request::of(space, kind, items, &digests, &buckets, half);
            let reply = request.send(self, space, kind).await?;
            let Reply::Array(mut parts) = reply else { return Err(unexpected(&reply)) };
            let text = |at: usize| match parts.get(at) {
                Some(Reply::Bytes(text)) => std::str::from_utf8(text).ok(),
                _ => None,
            };
            match (parts.first(), text(1), text(2)) {
                (Some(Reply::Int(1)), Some(live), Some(dead)) => {
                    let Some(now) = Buckets::read(live, dead) else {
                        return Err(unexpected(&parts));
                    };
                    self.tokens.buckets.write().insert(space.clone(), Arc::new(now));
                }
                (Some(Reply::Int(0)), Some(dead), _) if parts.len() == items.len() + 2 => {
                    let dead = Dead::read(dead);
                    if dead != buckets.dead {
                        let now = Buckets { dead, ..Buckets::clone(&buckets) };
                        self.tokens.buckets.write().insert(space.clone(), Arc::new(now));
                    }
                    return Ok(parts.split_off(2));
                }
                _ => return Err(unexpected(&parts)),
            }
        }
        Err(BackendError::not_applied("the buckets of tokens changed before each attempt"))
    }

    fn buckets(&self, space: &Space) -> Arc<Buckets> {
        self.tokens.buckets.read().get(space).cloned().unwrap_or_default()
    }

    /// Checks `keep` under the tag of a prefix of several shards, so that none of them is used with
    /// another; makes it where there is none if it is told to.
    async fn agree(&self, space: &Space, half: u64, make: bool) -> Result<(), BackendError> {
        let prefix = (space.prefix().clone(), half);
        if space.shards() == 1 || self.tokens.kept.read().contains(&prefix) {
            return Ok(());
        }
        let shape = layout::shape(&Space::new(space.prefix().clone()));
        let ours = (2 * half).to_string();
        let (name, field) = (Arg::Text(&shape), Arg::Text("keep"));
        let failed = |error| self.failed_to_read(error, &[&shape]);
        if make {
            let args = [name, field, Arg::Text(&ours)];
            self.runner.run(Command::keyed("HSETNX", &args)).await.map_err(failed)?;
        }
        let answer = self.runner.run(Command::keyed("HGET", &[name, field])).await;
        match answer.map_err(failed)? {
            Reply::Bytes(held) if held == ours.as_bytes() => {
                self.tokens.kept.write().insert(prefix);
                Ok(())
            }
            Reply::Bytes(held) => {
                let held = String::from_utf8_lossy(&held);
                Err(reply::another_keep(&format!("{held} {ours}")))
            }
            Reply::Nil if !make => Ok(()),
            other => Err(unexpected(&other).with_nothing_applied()),
        }
    }
}

/// A script's keys and arguments.
struct Request<'i> {
    keys: Vec<String>,
    args: Vec<Arg<'i>>,
    half: i64,
    shards: String,
    swept: String,
    buckets: &'i Buckets,
    items: &'i [Item<'i>],
}

impl<'i> Request<'i> {
    fn of(
        space: &Space,
        kind: Kind,
        items: &'i [Item<'i>],
        digests: &'i [[u8; 16]],
        buckets: &'i Buckets,
        half: u64,
    ) -> Self {
        let mut keys = Vec::with_capacity(3 + buckets.live.len() * (1 + items.len()));
        keys.extend([layout::totals(space), layout::tokens(space), layout::shape(space)]);
        keys.extend(buckets.live.iter().map(|bucket| layout::token_bits(space, bucket.number)));
        for digest in digests {
            keys.extend(buckets.live.iter().map(|bucket| {
                layout::token_part(space, bucket.number, part_of(digest, bucket.parts))
            }));
        }
        let mut swept = String::new();
        if let Some(dead) = buckets.dead.filter(|_| kind != Kind::Resolve) {
            let some = 8 + u32::try_from(items.len() / 8).unwrap_or_default();
            keys.extend(dead.names(space, some));
            swept = format!("{} {}", dead.number, dead.next);
        }
        let mut args = Vec::with_capacity(3 * items.len());
        for (item, digest) in items.iter().zip(digests) {
            args.extend([Arg::Text(item.key), Arg::Bytes(digest)]);
            if kind == Kind::Add {
                args.push(Arg::Int(item.count));
            }
        }
        let (half, shards) = (i64::try_from(half).unwrap_or(i64::MAX), space.shards().to_string());
        Self { keys, args, half, shards, swept, buckets, items }
    }

    async fn send<R: ScriptRunner>(
        &self,
        store: &LuaStore<R>,
        space: &Space,
        kind: Kind,
    ) -> Result<Reply, BackendError> {
        let mut args = Vec::with_capacity(6 + self.args.len());
        args.extend([
            Arg::Int(self.half),
            Arg::Text(&self.shards),
            Arg::Text(&self.buckets.text),
            Arg::Int(i64::try_from(self.items.len()).unwrap_or_default()),
            Arg::Text(match kind {
                Kind::Add => "a",
                Kind::Resolve => "r",
                Kind::Forbid => "f",
            }),
            Arg::Text(&self.swept),
        ]);
        args.extend_from_slice(&self.args);
        let keys: Vec<_> = self.keys.iter().map(String::as_str).collect();
        if kind == Kind::Resolve {
            let names: Vec<_> = keys.iter().copied().map(Arg::Text).collect();
            let request = || store.runner.script(&TOKENS, &names, &args);
            let answer = store.read_fresh(keys[0], request).await;
            return answer.map_err(|error| store.failed_to_read(error, &keys));
        }
        let failed = |error| store.failed(error, &keys);
        store.run_in(space, &TOKENS, &keys, &args, failed).await
    }
}

fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// What became of an addition.
fn added(reply: &Reply) -> Result<Outcome<AddedOnce>, BackendError> {
    let text = match reply {
        Reply::Int(total) => return Ok(Ok(AddedOnce { total: *total, replayed: false })),
        Reply::Bytes(text) => text,
        other => return Err(unexpected(other)),
    };
    Ok(match &**text {
        b"o" => Err(Refusal::Overflow),
        b"f" => Err(Refusal::TokenForbidden),
        b"l" => Err(Refusal::TokenForgotten),
        [b'n', found @ ..] => Err(reply::refused_number(found)),
        [kind @ (b't' | b'r' | b'x'), text @ ..] => match (kind, number(text)) {
            (_, None) => return Err(unexpected(reply)),
            (b'x', Some(amount)) => Err(Refusal::TokenUsed { amount }),
            (kind, Some(total)) => Ok(AddedOnce { total, replayed: *kind == b'r' }),
        },
        _ => return Err(unexpected(reply)),
    })
}

/// What is known of a token.
fn resolved(reply: &Reply) -> Result<Outcome<Resolved>, BackendError> {
    let Reply::Bytes(text) = reply else { return Err(unexpected(reply)) };
    Ok(match &**text {
        b"u" => Ok(Resolved::Unseen),
        b"f" => Ok(Resolved::Forbidden),
        b"l" => Err(Refusal::TokenForgotten),
        [b'd', both @ ..] => {
            let mut numbers = both.split(|byte| *byte == b' ').map(number);
            match (numbers.next().flatten(), numbers.next().flatten()) {
                (Some(amount), Some(answer)) => Ok(Resolved::Done { amount, answer }),
                _ => return Err(unexpected(reply)),
            }
        }
        _ => return Err(unexpected(reply)),
    })
}

fn questions(tokens: &[(RedisKey, Token)]) -> Vec<Item<'_>> {
    tokens.iter().map(|(key, token)| Item { key, token, count: 0 }).collect()
}

#[async_trait]
impl<R: ScriptRunner> Tokens for LuaStore<R> {
    async fn add_once(
        &self,
        space: &Space,
        items: &[TokenAdd],
        keep: Duration,
    ) -> Result<Vec<Outcome<AddedOnce>>, BackendError> {
        let items: Vec<_> = items
            .iter()
            .map(|item| Item { key: &item.key, token: &item.token, count: item.count })
            .collect();
        self.ask_all(space, Kind::Add, &items, keep, added).await
    }

    async fn resolve(
        &self,
        space: &Space,
        tokens: &[(RedisKey, Token)],
        keep: Duration,
    ) -> Result<Vec<Outcome<Resolved>>, BackendError> {
        self.ask_all(space, Kind::Resolve, &questions(tokens), keep, resolved).await
    }

    async fn forbid(
        &self,
        space: &Space,
        tokens: &[(RedisKey, Token)],
        keep: Duration,
    ) -> Result<Vec<Outcome<Resolved>>, BackendError> {
        self.ask_all(space, Kind::Forbid, &questions(tokens), keep, resolved).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_of_the_counter_and_the_token() {
        let of = |key: &str, token: &str| {
            digest(&RedisKey::new(key).unwrap(), &Token::new(token).unwrap())
        };
        assert_ne!(of("a", "bc"), of("ab", "c"));
        assert_eq!(of("shop", "1")[..4], [0x8c, 0x78, 0xa4, 0xfe], "as redis-cli users compute it");
        assert!((0..16).contains(&part_of(&of("a", "b"), 16)));
    }

    #[test]
    fn buckets_are_read_as_the_script_writes_them() {
        let read = Buckets::read("7 3 16 0;8 3 128 2048", "5 16 9;6 16 0").unwrap();
        let bucket = |number, parts| Bucket { number, parts };
        assert_eq!(read.live, [bucket(7, 16), bucket(8, 128)]);
        assert_eq!(read.dead, Some(Dead { number: 5, parts: 16, next: 9 }));
        assert_eq!(Buckets::read("", ""), Some(Buckets::default()));
        assert_eq!(Buckets::read("7 3 0 0", ""), None, "no part");
    }

    #[test]
    fn the_bits_of_an_expired_bucket_go_after_its_parts() {
        let space = Space::new(RedisKey::new("shop").unwrap());
        let names = |next, count| -> Vec<_> {
            Dead { number: 5, parts: 16, next }.names(&space, count).collect()
        };
        assert_eq!(names(3, 2), ["distkit:{shop}:tok:5:3", "distkit:{shop}:tok:5:4"]);
        assert_eq!(names(15, 9), ["distkit:{shop}:tok:5:15", "distkit:{shop}:tok:5"]);
        assert_eq!(names(16, 9), ["distkit:{shop}:tok:5"]);
    }
}
