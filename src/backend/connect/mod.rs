//! Stores by URL.

#[cfg(feature = "fred")]
mod fred;
#[cfg(feature = "redis-rs")]
mod redis_rs;
mod target;
#[cfg(any(feature = "redis-rs-tls", feature = "fred-tls"))]
mod tls;

use std::sync::Arc;

use super::{BackendError, Store, memory::MemoryBackend};
use target::{Target, check_parameters};

#[cfg(any(feature = "redis-rs-cluster", feature = "fred"))]
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// Connects to the store that `url` names.
///
/// | URL | store |
/// | --- | --- |
/// | `memory://` | a [`MemoryBackend`] of its own, empty and not shared |
/// | `memory://name` | this process's [`MemoryBackend::named`] of that name |
/// | `redis://[[user]:password@]host[:port][/db]` | Redis or Valkey, over redis-rs if compiled in, else over fred |
/// | `redis+fred://...` | the same, over fred |
/// | `redis+unix:///path/to/socket[?db=1&user=name&pass=word]` | a unix socket, over redis-rs; also `unix:///...` |
/// | `redis-cluster://[[user]:password@]host[:port][?node=host:port&node=...]` | a cluster, by one or more of its nodes |
/// | `redis-cluster+fred://...` | the same, over fred |
/// | `redis-sentinel://[[user]:password@]host[:port][/db]?sentinelServiceName=name[&node=host:port&node=...]` | the primary that Sentinel names; `host` and `node` are sentinels |
/// | `redis-sentinel+fred://...` | the same, over fred |
///
/// `valkey` may stand for `redis`, and `rediss` or `valkeys` asks for TLS. Answers are waited for at most
/// 5 s, and a lost connection is made again by itself.
///
/// The user and password of a sentinel URL are those of the server. `sentinelUsername` and `sentinelPassword` are for
/// the sentinels themselves. A failover is followed within seconds; acknowledged writes that were not replicated are
/// lost by it.
///
/// # Parameters
///
/// Besides those in the table, percent-encoded where they need it:
///
/// | parameter | for | says |
/// | --- | --- | --- |
/// | `protocol` | all but memory | `resp2` or `resp3`. Default: RESP3 where the server has it, over redis-rs on a server or Sentinel; else RESP2 |
/// | `cacert` | TLS | a PEM file with the authorities to trust, in place of the system's |
/// | `cert`, `key` | TLS | PEM files with a client certificate (its chain included) and its key |
///
/// The files are read for each connection that is made, so that rotated certificates are used from the next connection
/// on. Only a cluster's connection over redis-rs keeps those of its beginning.
///
/// TLS trusts the certificates of the system, unless told otherwise. The process's default `CryptoProvider` of rustls
/// does the cryptography; where none was installed, this installs aws-lc-rs.
///
/// One connection and a round trip over a network, no I/O of the memory store. Cancel-safe.
///
/// # Errors
///
/// [`BackendError::NotApplied`] when nothing usable answers at the address, the password is missing or
/// wrong, a certificate is refused or a file cannot be read, the URL is not one of these or has another parameter, or it
/// needs a feature of this crate that is off, which the text names.
///
/// ```
/// use distkit::{RedisKey, backend::{Space, Write, connect}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = connect("memory://orders").await?;
/// let space = Space::new(RedisKey::try_from("shop")?);
/// let hits = RedisKey::try_from("hits")?;
/// store.apply(&space, &[Write::add(hits.clone(), 1)], None).await?;
///
/// let same = connect("memory://orders").await?;
/// assert_eq!(same.read(&space, &[hits.clone()]).await?, [Ok(1)]);
/// let empty = connect("memory://").await?;
/// assert_eq!(empty.read(&space, &[hits]).await?, [Ok(0)]);
/// # Ok(()) }
/// ```
pub async fn connect(url: &str) -> Result<Arc<dyn Store>, BackendError> {
    match url.strip_prefix("memory://") {
        Some("") => return Ok(Arc::new(MemoryBackend::new())),
        Some(name) => return Ok(Arc::new(MemoryBackend::named(name))),
        None => {}
    }
    if let Some((scheme @ ("unix" | "redis+unix" | "valkey+unix"), address)) = url.split_once("://")
    {
        let (_, query) = address.split_once('?').unwrap_or_default();
        check_parameters(scheme, query, &["db", "user", "pass", "protocol"])?;
        return unix_socket(scheme, address).await;
    }
    let target = Target::parse(url)?;
    #[cfg(any(feature = "redis-rs-tls", feature = "fred-tls"))]
    if target.tls {
        crypto();
    }
    match target.client {
        #[cfg(feature = "redis-rs")]
        target::Client::RedisRs => redis_rs::connect(&target).await,
        #[cfg(feature = "fred")]
        target::Client::Fred => fred::connect(&target).await,
        // Not reached: a target names the feature that it lacks.
        #[cfg(not(all(feature = "redis-rs", feature = "fred")))]
        _ => Err(target::unusable("the client of this URL is not compiled in")),
    }
}

/// The process's cryptography, chosen now where it was not: both clients panic without.
#[cfg(any(feature = "redis-rs-tls", feature = "fred-tls"))]
fn crypto() -> Arc<rustls::crypto::CryptoProvider> {
    use rustls::crypto::{CryptoProvider, aws_lc_rs::default_provider};

    if CryptoProvider::get_default().is_none() {
        // Fails only where another thread has just installed one.
        let _ = default_provider().install_default();
    }
    CryptoProvider::get_default().cloned().unwrap_or_else(|| Arc::new(default_provider()))
}

#[cfg(any(feature = "redis-rs", feature = "fred"))]
fn unreachable(error: impl std::fmt::Display) -> BackendError {
    BackendError::not_applied(Unreachable(error.to_string()))
}

/// Why no connection was made, as text: a client's error may not live as long.
#[cfg(any(feature = "redis-rs", feature = "fred"))]
#[derive(Debug, thiserror::Error)]
#[error("cannot connect to the server: {0}")]
struct Unreachable(String);

/// Returns whether [`connect`] failed at the server, and not at its URL.
#[cfg(any(feature = "redis-rs", feature = "fred"))]
pub fn is_unreachable(error: &BackendError) -> bool {
    matches!(error, BackendError::NotApplied(cause) if cause.is::<Unreachable>())
}

#[cfg(feature = "redis-rs")]
use redis_rs::unix_socket;

#[cfg(not(feature = "redis-rs"))]
async fn unix_socket(scheme: &str, _: &str) -> Result<Arc<dyn Store>, BackendError> {
    let text = format!("{scheme}:// needs the feature redis-rs of distkit, which is off");
    Err(target::unusable(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(error: BackendError) -> String {
        std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default()
    }

    #[tokio::test]
    async fn memory_with_a_name_is_shared_and_without_one_is_new() {
        use crate::{
            RedisKey,
            backend::{Space, Write},
        };

        let space = Space::new(RedisKey::default_prefix());
        let mut totals = Vec::new();
        for url in ["memory://", "memory://", "memory://connect a", "memory://connect b"] {
            for _ in 0..2 {
                let store = connect(url).await.unwrap();
                let write = Write::add(RedisKey::default_prefix(), 1);
                let applied = store.apply(&space, &[write], None).await.unwrap();
                totals.push(applied.outcomes[0].as_ref().unwrap().new);
            }
        }
        assert_eq!(totals, [1, 1, 1, 1, 1, 2, 1, 2]);
    }

    #[tokio::test]
    async fn a_unix_socket_has_no_other_parameters() {
        let text = cause(connect("redis+unix:///no/such?db=1&timeout=3").await.err().unwrap());
        assert!(
            text.contains("no parameter `timeout`; it may have db, user, pass, protocol"),
            "{text}"
        );
    }
}
