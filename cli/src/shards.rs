//! A prefix and its shards, as the server has them.

use std::{future::Future, time::Duration};

use distkit::{
    RedisKey,
    backend::{
        Space,
        operator::{self, RawReply},
    },
};
use futures_util::{StreamExt, stream};

use crate::{
    error::{Error, Result},
    server::{Server, text},
};

/// How many shards are asked at once.
const SHARDS_AT_ONCE: usize = 16;

/// A prefix whose number of shards is known.
#[derive(Debug)]
pub(crate) struct Prefix {
    /// In order.
    shards: Vec<Space>,
    /// The place under the prefix's own tag. It is the only shard, or has the shape of all.
    own: Space,
}

impl Prefix {
    /// How many shards a prefix has; `None` if it has no shape.
    pub(crate) async fn shape_of(server: &Server, prefix: RedisKey) -> Result<Option<u16>> {
        let own = Space::new(prefix.clone());
        if found(server, &own).await?.is_none() {
            return Ok(None);
        }
        Ok(Some(Self::of(server, prefix).await?.count()))
    }

    /// Reads the shape. A prefix that has none has one shard.
    pub(crate) async fn of(server: &Server, prefix: RedisKey) -> Result<Self> {
        let own = Space::new(prefix.clone());
        let shape = found(server, &own).await?;
        let idle = shape.as_ref().and_then(Shape::idle);
        let shards = match shape {
            None => 1,
            Some(shape) => shape.shards().ok_or_else(|| {
                Error::failed(format!(
                    "the prefix {prefix} has layout {} and {} shards; this tool knows layout {} and up to {} shards",
                    shape.layout,
                    shape.shards,
                    operator::LAYOUT,
                    Space::MAX_SHARDS
                ))
            })?,
        };
        let mut shards = Space::shards_of(prefix, shards);
        if let Some(idle) = idle {
            shards.iter_mut().for_each(|shard| *shard = shard.expiring_after(idle));
        }
        Ok(Self { shards, own })
    }

    pub(crate) fn name(&self) -> &RedisKey {
        self.own.prefix()
    }

    pub(crate) fn own(&self) -> &Space {
        &self.own
    }

    pub(crate) fn shards(&self) -> &[Space] {
        &self.shards
    }

    pub(crate) fn is_sharded(&self) -> bool {
        self.shards.len() > 1
    }

    /// How many shards there are.
    pub(crate) fn count(&self) -> u16 {
        self.shards.first().map_or(1, Space::shards)
    }

    /// The number of a counter's shard.
    pub(crate) fn shard_of(&self, key: &RedisKey) -> usize {
        usize::from(Space::shard_of(key, self.count()))
    }

    /// Where a counter is.
    pub(crate) fn of_key(&self, key: &RedisKey) -> &Space {
        &self.shards[self.shard_of(key)]
    }
}

/// Asks several shards side by side. In order; a failure does not stop the others.
pub(crate) async fn side_by_side<I, T, F, A>(shards: I, ask: F) -> Vec<Result<T>>
where
    I: IntoIterator,
    F: FnMut(I::Item) -> A,
    A: Future<Output = Result<T>>,
{
    stream::iter(shards).map(ask).buffered(SHARDS_AT_ONCE).collect().await
}

/// What a shape says, as text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Shape {
    pub(crate) layout: String,
    pub(crate) shards: String,
}

impl Shape {
    pub(crate) fn new(layout: Option<&str>, shards: Option<&str>) -> Self {
        let text = |field: Option<&str>| field.unwrap_or("none").to_owned();
        Self { layout: text(layout), shards: text(shards) }
    }

    /// The number of shards, if this tool knows such a prefix.
    pub(crate) fn shards(&self) -> Option<u16> {
        let shards: u16 = self.shards.split('/').next()?.parse().ok()?;
        let known = self.layout == operator::LAYOUT.to_string()
            && (1..=Space::MAX_SHARDS).contains(&shards);
        known.then_some(shards)
    }

    /// How long counters stay when nobody writes, if they expire.
    fn idle(&self) -> Option<Duration> {
        let (_, idle) = self.shards.split_once('/')?;
        idle.parse().ok().map(Duration::from_millis)
    }

    /// What stands in the places of a prefix of one shard, if it has several.
    pub(crate) fn marker(&self) -> String {
        format!("layout {}, {} shards", self.layout, self.shards)
    }

    pub(crate) fn of_marker(marker: &str) -> Option<Self> {
        let (layout, shards) = marker.strip_prefix("layout ")?.split_once(", ")?;
        Some(Self::new(Some(layout), Some(shards.strip_suffix(" shards")?)))
    }
}

/// The shape of a prefix, or what still tells it.
async fn found(server: &Server, own: &Space) -> Result<Option<Shape>> {
    match held(server, own).await? {
        None => left(server, own, server).await,
        shape => Ok(shape),
    }
}

/// The shape that a hash holds.
async fn held(server: &Server, space: &Space) -> Result<Option<Shape>> {
    let args = [&*operator::shape(space), "layout", "shards"];
    Ok(of_fields(&server.command("HMGET", &args).await?))
}

fn of_fields(reply: &RawReply) -> Option<Shape> {
    let RawReply::Array(fields) = reply else { return None };
    let layout = fields.first().and_then(text)?;
    Some(Shape::new(Some(&layout), fields.get(1).and_then(text).as_deref()))
}

/// The places under a prefix's own tag where a prefix of several shards has a text.
pub(crate) fn markers(own: &Space) -> [String; 2] {
    [operator::totals(own), format!("{}meta", operator::instance_names(own))]
}

/// What still tells the shape of a prefix of several shards whose own shape is lost, in the order in which counters
/// look: its markers, and shard 0's copy, which is on the server `first`.
pub(crate) async fn left(server: &Server, own: &Space, first: &Server) -> Result<Option<Shape>> {
    for place in markers(own) {
        // Counters of one shard are no text. Who may not ask has a prefix of one shard, which needs no such right.
        let marker = text(&server.ask("GET", &[&place]).await?);
        if let Some(shape) = marker.as_deref().and_then(Shape::of_marker) {
            return Ok(Some(shape));
        }
    }
    // Its place is the same whatever the number of shards.
    let shards = Space::shards_of(own.prefix().clone(), 2);
    let Some(shard) = shards.first() else { return Ok(None) };
    let args = [&*operator::shape(shard), "layout", "shards"];
    Ok(of_fields(&first.ask("HMGET", &args).await?))
}
