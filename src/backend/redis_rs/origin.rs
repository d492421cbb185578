//! Where a connection leads.

use futures_util::future::BoxFuture;
use redis::{Client, ConnectionAddr, RedisResult};

/// Where the address of the server, and what it takes to get in, come from.
#[allow(clippy::large_enum_variant, reason = "there is one for each connection")]
pub(super) enum Origin {
    Fixed(Client),
    Asked(Box<dyn Fn() -> BoxFuture<'static, RedisResult<Client>> + Send + Sync>),
    #[cfg(feature = "redis-rs-sentinel")]
    Sentinel {
        // Held by one attempt at a time anyway.
        sentinels: tokio::sync::Mutex<redis::sentinel::SentinelClient>,
        /// What the sentinels are to be asked with, where certificates may have been rotated.
        renew: Option<MakeSentinels>,
    },
}

#[cfg(feature = "redis-rs-sentinel")]
pub(super) type MakeSentinels =
    Box<dyn Fn() -> RedisResult<redis::sentinel::SentinelClient> + Send + Sync>;

impl Origin {
    /// The client for an attempt to connect.
    pub(super) async fn client(&self) -> RedisResult<Client> {
        match self {
            Self::Fixed(client) => Ok(client.clone()),
            Self::Asked(make) => make().await,
            #[cfg(feature = "redis-rs-sentinel")]
            Self::Sentinel { sentinels, renew } => {
                let mut sentinels = sentinels.lock().await;
                if let Some(renew) = renew {
                    *sentinels = renew()?;
                }
                sentinels.async_get_client().await
            }
        }
    }

    /// Whether another server may take the place of the one that it names.
    pub(super) fn may_move(&self) -> bool {
        !matches!(self, Self::Fixed(_) | Self::Asked(_))
    }

    /// Whether another server has taken the place of the one at `address`, as far as is known.
    pub(super) async fn has_moved_from(&self, address: &ConnectionAddr) -> bool {
        match self {
            Self::Fixed(_) | Self::Asked(_) => {
                let _ = address;
                false
            }
            #[cfg(feature = "redis-rs-sentinel")]
            Self::Sentinel { sentinels, .. } => {
                let primary = sentinels.lock().await.async_get_client().await;
                primary.is_ok_and(|primary| primary.get_connection_info().addr() != address)
            }
        }
    }
}
