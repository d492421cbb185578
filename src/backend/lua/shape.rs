//! What all processes of a prefix agree on: made or checked before anything is written.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;
use parking_lot::RwLock;

use super::{Arg, CallError, Command, LuaStore, Reply, Script, ScriptRunner, layout, reply};
use crate::{
    RedisKey,
    backend::{BackendError, Space},
};

static SHAPE: Script = Script::new(include_str!("shape.lua"));

/// What this process has found out about the shapes of spaces: they are ours.
#[derive(Default)]
pub(super) struct Shapes {
    spaces: RwLock<HashMap<Space, Opened, RandomState>>,
    /// Prefixes of several shards, and how many.
    prefixes: RwLock<HashSet<(RedisKey, u16), RandomState>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Opened {
    Read,
    Made,
}

impl<R: ScriptRunner> LuaStore<R> {
    /// Makes the shape of a space, or checks it, before the first write of this process.
    pub(crate) async fn open(&self, space: &Space) -> Result<(), BackendError> {
        if self.shapes.spaces.read().get(space) == Some(&Opened::Made) {
            return Ok(());
        }
        self.open_anew(space).await
    }

    #[cold]
    async fn open_anew(&self, space: &Space) -> Result<(), BackendError> {
        let shards = space.shards();
        if shards == 1 {
            self.open_prefix(space).await?;
        } else {
            let prefix = (space.prefix().clone(), shards);
            let (own, known) =
                (layout::shape(space), self.shapes.prefixes.read().contains(&prefix));
            // No copy is made without a look at the prefix's own shape: what this process has seen may be lost.
            if !known || !self.shape(&[&own], shards, false).await? {
                self.open_prefix(space).await?;
                self.shape(&[&own], shards, true).await?;
                self.shapes.prefixes.write().insert(prefix);
            }
        }
        self.shapes.spaces.write().insert(space.clone(), Opened::Made);
        self.check_policy().await;
        Ok(())
    }

    /// Makes or checks the shape under the prefix's own tag.
    async fn open_prefix(&self, space: &Space) -> Result<(), BackendError> {
        let whole = Space::new(space.prefix().clone());
        let (shape, totals) = (layout::shape(&whole), layout::totals(&whole));
        let instances = layout::instance_meta(&whole);
        let keys = [&*shape, &totals, &instances];
        let shards = space.shards();
        if self.shape(&keys, shards, false).await? {
            // What others would find without a shape may be lost.
            return if shards > 1 {
                self.shape(&keys, shards, true).await.map(drop)
            } else {
                Ok(())
            };
        }
        // A new prefix, or one whose node has lost its data. Then the first shard, on another node, tells.
        let first = layout::shape(&Space::first_of_several(space.prefix()));
        self.held(&first, shards).await?;
        self.shape(&keys, shards, true).await.map(drop)
    }

    /// Runs the script of shapes. False where there is none, which it makes if it is told to.
    async fn shape(&self, keys: &[&str], shards: u16, make: bool) -> Result<bool, BackendError> {
        let names: Vec<_> = keys.iter().copied().map(Arg::Text).collect();
        let make = Arg::Text(if make { "1" } else { "" });
        let args = [Arg::Int(layout::LAYOUT), Arg::Int(shards.into()), make];
        let answer = self.runner.script(&SHAPE, &names, &args).await;
        // Whatever became of it, nothing of what the caller wants has been sent.
        let reply = answer.map_err(|error| self.failed_to_read(error, keys))?;
        reply::shape(reply, shards)
    }

    /// Reads a shape. False where there is none.
    async fn held(&self, shape: &str, shards: u16) -> Result<bool, BackendError> {
        let args = [Arg::Text(shape), Arg::Text("layout"), Arg::Text("shards")];
        let answer = self.runner.run(Command::keyed("HMGET", &args)).await;
        let reply = answer.map_err(|error| self.failed_to_read(error, &[shape]))?;
        reply::shape(reply, shards)
    }

    /// Checks the shape of a prefix, if it has one, before the first read of this process.
    pub(crate) async fn check(&self, space: &Space) -> Result<(), BackendError> {
        if self.shapes.spaces.read().contains_key(space) {
            return Ok(());
        }
        let prefix = (space.prefix().clone(), space.shards());
        if !self.shapes.prefixes.read().contains(&prefix) {
            let whole = Space::new(space.prefix().clone());
            if !self.held(&layout::shape(&whole), space.shards()).await? {
                return Ok(());
            }
        }
        self.shapes.spaces.write().entry(space.clone()).or_insert(Opened::Read);
        Ok(())
    }

    /// Runs a script that turns down a space of several shards whose copy of the shape is lost: then others may have
    /// made another one meanwhile, so it is made or checked anew, and the script is run again.
    pub(super) async fn run_in(
        &self,
        space: &Space,
        script: &'static Script,
        keys: &[&str],
        args: &[Arg<'_>],
        failed: impl Fn(CallError) -> BackendError,
    ) -> Result<Reply, BackendError> {
        let names: Vec<_> = keys.iter().copied().map(Arg::Text).collect();
        let mut reopened = false;
        loop {
            match self.runner.script(script, &names, args).await {
                Ok(reply) => return Ok(reply),
                Err(CallError::Server(error)) if &*error.code == "UNSHAPED" && !reopened => {
                    reopened = true;
                    let prefix = (space.prefix().clone(), space.shards());
                    self.shapes.prefixes.write().remove(&prefix);
                    self.shapes.spaces.write().remove(space);
                    self.open_anew(space).await?;
                }
                Err(error) => return Err(failed(error)),
            }
        }
    }
}
