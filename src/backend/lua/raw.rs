//! Commands as they are, over the store's client.

use async_trait::async_trait;

use super::{Arg, CallError, Command, LuaStore, Reply, ScriptRunner};
use crate::backend::{
    BackendError,
    raw::{RawCommands, RawReply},
};

#[async_trait]
impl<R: ScriptRunner> RawCommands for LuaStore<R> {
    async fn command(
        &self,
        name: &'static str,
        args: &[&str],
        key_at: u8,
    ) -> Result<RawReply, BackendError> {
        let args: Vec<Arg<'_>> = args.iter().map(|arg| Arg::Text(arg)).collect();
        match self.runner.run(Command { name, args: &args, key_at }).await {
            Ok(reply) => Ok(raw(reply)),
            Err(CallError::Server(error)) => {
                Ok(RawReply::Error { code: error.code, detail: error.detail })
            }
            Err(error) => Err(self.failed(error, &[])),
        }
    }
}

fn raw(reply: Reply) -> RawReply {
    match reply {
        Reply::Nil => RawReply::Nil,
        Reply::Int(number) => RawReply::Int(number),
        Reply::Bytes(text) => RawReply::Bytes(text),
        Reply::Array(items) => RawReply::Array(items.into_iter().map(raw).collect()),
        Reply::Other(text) => RawReply::Other(text),
    }
}
