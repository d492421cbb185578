//! Connections of redis-rs.

use std::sync::Arc;

use redis::{Client, ConnectionInfo, IntoConnectionInfo, ProtocolVersion, RedisResult};

#[cfg(any(feature = "redis-rs-cluster", feature = "redis-rs-sentinel"))]
use super::target::Layout;
use super::{
    target::{Protocol, Target},
    unreachable,
};
use crate::backend::{BackendError, IntoBackend, ReconnectingConnection, Store};

#[cfg(feature = "redis-rs-tls")]
use super::tls::TlsFiles;

pub(super) async fn connect(target: &Target<'_>) -> Result<Arc<dyn Store>, BackendError> {
    #[cfg(feature = "redis-rs-cluster")]
    if target.layout == Layout::Cluster {
        return cluster(target).await;
    }
    #[cfg(feature = "redis-rs-sentinel")]
    if target.layout == Layout::Sentinel {
        return sentinel(target).await;
    }
    server(target).await
}

pub(super) async fn unix_socket(scheme: &str, path: &str) -> Result<Arc<dyn Store>, BackendError> {
    let (_, query) = path.split_once('?').unwrap_or_default();
    let protocol = Protocol::of(query)?;
    let client = Client::open(format!("{scheme}://{path}")).map_err(unreachable)?;
    connected(ReconnectingConnection::new(client), protocol).await
}

async fn connected(
    connection: ReconnectingConnection,
    protocol: Option<Protocol>,
) -> Result<Arc<dyn Store>, BackendError> {
    let connection = match protocol {
        Some(Protocol::Resp2) => connection.without_resp3(),
        _ => connection,
    };
    Ok(connection.connected().await.map_err(unreachable)?.into_backend())
}

impl Protocol {
    fn version(self) -> ProtocolVersion {
        match self {
            Self::Resp2 => ProtocolVersion::RESP2,
            Self::Resp3 => ProtocolVersion::RESP3,
        }
    }
}

async fn server(target: &Target<'_>) -> Result<Arc<dyn Store>, BackendError> {
    let url = format!("{}://{}", target.scheme(), target.address);
    let mut info = url.into_connection_info().map_err(unreachable)?;
    if let Some(protocol) = target.protocol {
        let settings = info.redis_settings().clone().set_protocol(protocol.version());
        info = info.set_redis_settings(settings);
    }
    let connection = reconnecting(target, info).map_err(unreachable)?;
    connected(connection, target.protocol).await
}

fn reconnecting(target: &Target<'_>, info: ConnectionInfo) -> RedisResult<ReconnectingConnection> {
    #[cfg(feature = "redis-rs-tls")]
    if let Some(files) = TlsFiles::of(target) {
        return Ok(ReconnectingConnection::from_fn(move || {
            let client = match files.certificates() {
                Ok(certificates) => Client::build_with_tls(info.clone(), certificates),
                Err(error) => Err(error.into()),
            };
            std::future::ready(client)
        }));
    }
    let _ = target;
    Ok(ReconnectingConnection::new(Client::open(info)?))
}

#[cfg(feature = "redis-rs-cluster")]
async fn cluster(target: &Target<'_>) -> Result<Arc<dyn Store>, BackendError> {
    let mut builder = redis::cluster::ClusterClient::builder(target.nodes())
        .connection_timeout(super::PATIENCE)
        .response_timeout(super::PATIENCE)
        .tcp_settings(redis::io::tcp::TcpSettings::default().set_nodelay(true))
        // A slot that moves is asked for again soon; the default waits 1.28 s and doubles. A factor of
        // 1 keeps the pauses from overflowing.
        .retries(100)
        .min_retry_wait(5)
        .max_retry_wait(100)
        .retry_wait_formula(100, 1);
    if let Some(protocol) = target.protocol {
        builder = builder.use_protocol(protocol.version());
    }
    #[cfg(feature = "redis-rs-tls")]
    if let Some(files) = TlsFiles::of(target) {
        builder = builder.certs(files.certificates().map_err(unreachable)?);
    }
    let client = builder.build().map_err(unreachable)?;
    let connection = client.get_async_connection().await.map_err(unreachable)?;
    Ok(connection.into_backend())
}

#[cfg(feature = "redis-rs-sentinel")]
async fn sentinel(target: &Target<'_>) -> Result<Arc<dyn Store>, BackendError> {
    use redis::{
        TlsMode,
        sentinel::{SentinelClientBuilder, SentinelServerType},
    };

    use super::target::unusable;

    let name = target.parameter("sentinelServiceName").ok_or_else(|| {
        unusable("the URL of a sentinel names the service: ?sentinelServiceName=name")
    })?;
    let mut nodes = Vec::new();
    for node in target.nodes() {
        nodes.push(node.as_str().into_connection_info().map_err(unreachable)?);
    }
    let server = nodes[0].redis_settings().clone();
    let (user, password) =
        (target.parameter("sentinelUsername"), target.parameter("sentinelPassword"));
    let (tls, protocol) = (target.tls, target.protocol);
    #[cfg(feature = "redis-rs-tls")]
    let files = TlsFiles::of(target);
    #[cfg(feature = "redis-rs-tls")]
    let rotating = files.is_some();
    #[cfg(not(feature = "redis-rs-tls"))]
    let rotating = false;
    let sentinels = move || {
        let addresses = nodes.iter().map(|node| node.addr().clone());
        let mut builder =
            SentinelClientBuilder::new(addresses, name.clone(), SentinelServerType::Master)?
                .set_client_to_redis_db(server.db());
        if let Some(user) = server.username() {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = server.password() {
            builder = builder.set_client_to_redis_password(password);
        }
        if let Some(user) = &user {
            builder = builder.set_client_to_sentinel_username(user);
        }
        if let Some(password) = &password {
            builder = builder.set_client_to_sentinel_password(password);
        }
        if let Some(protocol) = protocol {
            builder = builder.set_client_to_redis_protocol(protocol.version());
        }
        if tls {
            builder = builder
                .set_client_to_redis_tls_mode(TlsMode::Secure)
                .set_client_to_sentinel_tls_mode(TlsMode::Secure);
        }
        #[cfg(feature = "redis-rs-tls")]
        if let Some(files) = &files {
            let certificates = files.certificates()?;
            builder = builder
                .set_client_to_redis_certificates(certificates.clone())
                .set_client_to_sentinel_certificates(certificates);
        }
        builder.build()
    };
    let connection = if rotating {
        ReconnectingConnection::of_sentinels(sentinels)
    } else {
        sentinels().map(ReconnectingConnection::of_sentinel)
    };
    let connection = connection.map_err(unreachable)?;
    connected(connection, protocol).await
}
