//! Clients of fred.

use std::sync::Arc;

use fred::{
    interfaces::ClientLike,
    types::{
        Builder, RespVersion,
        config::{Config, ReconnectPolicy},
    },
};

use super::{
    PATIENCE,
    target::{Layout, Protocol, Target},
    unreachable,
};
use crate::backend::{self, BackendError, Store, lua::CallError};

pub(super) async fn connect(target: &Target<'_>) -> Result<Arc<dyn Store>, BackendError> {
    let layout = match target.layout {
        Layout::Server => "",
        Layout::Cluster => "-cluster",
        Layout::Sentinel => "-sentinel",
    };
    let query = target.fred_query();
    let url = format!("{}{layout}://{}?{query}", target.scheme(), target.address);
    let mut config = Config::from_url(url.trim_end_matches('?')).map_err(unreachable)?;
    if target.protocol == Some(Protocol::Resp3) {
        config.version = RespVersion::RESP3;
    }
    #[cfg(feature = "fred-tls")]
    if let Some(files) = super::tls::TlsFiles::of(target) {
        let connector = files.connector(super::crypto()).map_err(unreachable)?;
        config.tls = Some(connector.into());
    }
    let client = Builder::from_config(config)
        .with_performance_config(|config| config.default_command_timeout = PATIENCE)
        .with_connection_config(|config| {
            config.connection_timeout = PATIENCE;
            config.internal_command_timeout = PATIENCE;
            config.tcp.nodelay = Some(true);
            // A connection that has gone silent is replaced.
            config.unresponsive.max_timeout = Some(PATIENCE);
        })
        .set_policy(ReconnectPolicy::new_exponential(0, 20, 2000, 2))
        .build()
        .map_err(unreachable)?;
    if target.layout == Layout::Cluster {
        return backend::fred::cluster(client).await.map_err(why);
    }
    let task = client.init().await.map_err(unreachable)?;
    Ok(backend::fred::owning(client, task))
}

/// Why no node of a cluster was reached.
fn why(error: CallError) -> BackendError {
    match error {
        CallError::Server(error) => unreachable(error),
        CallError::NotSent(cause) | CallError::Lost(cause) => unreachable(cause),
    }
}
