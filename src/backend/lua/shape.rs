//! What all processes of a prefix agree on: made or checked before anything is written.

use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;
use parking_lot::RwLock;

use super::{Arg, CallError, Command, GUARD, LuaStore, Reply, Script, ScriptRunner, layout, reply};
use crate::{
    RedisKey,
    backend::{BackendError, Space},
};

static SHAPE: Script = Script::new(include_str!("shape.lua"));

/// What this process has found out about the shapes of spaces: they are ours.
#[derive(Default)]
pub(super) struct Shapes {
    spaces: RwLock<HashMap<Space, Opened, RandomState>>,
    /// Prefixes of several shards, and their extent.
    prefixes: RwLock<HashSet<(RedisKey, String), RandomState>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Opened {
    Read,
    Made,
}

impl<R: ScriptRunner> LuaStore<R> {
    /// Makes the shape of a space, or checks it, before the first write of this process.
    pub(crate) async fn open(&self, space: &Space) -> Result<(), BackendError> {
        let space = &*space.whole();
        if self.shapes.spaces.read().get(space) == Some(&Opened::Made) {
            return Ok(());
        }
        self.open_anew(space).await
    }

    #[cold]
    async fn open_anew(&self, space: &Space) -> Result<(), BackendError> {
        let extent = space.extent();
        if space.shards() == 1 {
            self.open_prefix(space).await?;
        } else {
            let prefix = (space.prefix().clone(), extent.clone());
            let (own, known) =
                (layout::shape(space), self.shapes.prefixes.read().contains(&prefix));
            // No copy is made without a look at the prefix's own shape: what this process has seen may be lost.
            if !known || !self.shape(&[&own], &extent, false).await? {
                self.open_prefix(space).await?;
                self.shape(&[&own], &extent, true).await?;
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
        let extent = space.extent();
        if self.shape(&keys, &extent, false).await? {
            // What others would find without a shape may be lost.
            return if space.shards() > 1 {
                self.shape(&keys, &extent, true).await.map(drop)
            } else {
                Ok(())
            };
        }
        // A new prefix, or one whose node has lost its data. Then the first shard, on another node, tells.
        let first = layout::shape(&Space::first_of_several(space.prefix()));
        self.held(&first, &extent).await?;
        self.shape(&keys, &extent, true).await.map(drop)
    }

    /// Runs the script of shapes. False where there is none, which it makes if it is told to.
    async fn shape(&self, keys: &[&str], extent: &str, make: bool) -> Result<bool, BackendError> {
        let names: Vec<_> = keys.iter().copied().map(Arg::Text).collect();
        let make = Arg::Text(if make { "1" } else { "" });
        let args = [Arg::Int(layout::LAYOUT), Arg::Text(extent), make];
        let answer = self.runner.script(&SHAPE, &names, &args).await;
        // Whatever became of it, nothing of what the caller wants has been sent.
        let reply = answer.map_err(|error| self.failed_to_read(error, keys))?;
        reply::shape(reply, extent)
    }

    /// Reads a shape. False where there is none.
    async fn held(&self, shape: &str, extent: &str) -> Result<bool, BackendError> {
        let args = [Arg::Text(shape), Arg::Text("layout"), Arg::Text("shards")];
        let answer = self.runner.run(Command::keyed("HMGET", &args)).await;
        let reply = answer.map_err(|error| self.failed_to_read(error, &[shape]))?;
        reply::shape(reply, extent)
    }

    /// Checks the shape of a prefix, if it has one, before the first read of this process.
    pub(crate) async fn check(&self, space: &Space) -> Result<(), BackendError> {
        let space = &*space.whole();
        if self.shapes.spaces.read().contains_key(space) {
            return Ok(());
        }
        let prefix = (space.prefix().clone(), space.extent());
        if !self.shapes.prefixes.read().contains(&prefix) {
            let whole = Space::new(space.prefix().clone());
            if !self.held(&layout::shape(&whole), &prefix.1).await? {
                return Ok(());
            }
        }
        self.shapes.spaces.write().entry(space.clone()).or_insert(Opened::Read);
        Ok(())
    }

    /// Runs a script that turns down a space of several shards whose copy of the shape is lost: then others may have
    /// made another one meanwhile, so it is made or checked anew, and the script is run again. So is one that turns
    /// down a window that is not open.
    pub(super) async fn run_in(
        &self,
        space: &Space,
        script: &'static Script,
        keys: &[&str],
        args: &[Arg<'_>],
        failed: impl Fn(CallError) -> BackendError,
    ) -> Result<Reply, BackendError> {
        let names: Vec<_> = keys.iter().copied().map(Arg::Text).collect();
        let (mut reopened, mut window_opened) = (false, false);
        loop {
            match self.runner.script(script, &names, args).await {
                Ok(reply) => return Ok(reply),
                Err(CallError::Server(error)) if &*error.code == "UNSHAPED" && !reopened => {
                    reopened = true;
                    let prefix = (space.prefix().clone(), space.extent());
                    self.shapes.prefixes.write().remove(&prefix);
                    self.shapes.spaces.write().remove(&*space.whole());
                    self.open_anew(&space.whole()).await?;
                }
                Err(CallError::Server(error)) if &*error.code == "UNOPENED" && !window_opened => {
                    window_opened = true;
                    let Some(Arg::Text(window)) = args.get(GUARD - 1) else {
                        return Err(failed(CallError::Server(error)));
                    };
                    self.open_window(space, window).await?;
                }
                Err(error) => return Err(failed(error)),
            }
        }
    }
}
