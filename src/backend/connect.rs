use std::sync::Arc;

use super::{BackendError, Store, memory::MemoryBackend};

/// Connects to the store that `url` names.
///
/// | URL | store |
/// | --- | --- |
/// | `memory://` | a [`MemoryBackend`] of its own, empty and shared with nobody else |
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
/// TLS trusts the certificates of the system. The process's default `CryptoProvider` of rustls does the
/// cryptography; where none was installed, this installs aws-lc-rs.
///
/// # Errors
///
/// [`BackendError::NotApplied`] when nothing usable answers at the address, the password is missing or
/// wrong, the URL is not one of these or has another parameter, or it needs a feature of this crate that is off, which the text
/// names.
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
        check_parameters(scheme, address, &["db", "user", "pass", "protocol"])?;
        return unix_socket(scheme, address).await;
    }
    let target = Target::parse(url)?;
    #[cfg(any(feature = "redis-rs-tls", feature = "fred-tls"))]
    if target.tls && rustls::crypto::CryptoProvider::get_default().is_none() {
        // Fails only where another thread has just installed one.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    }
    match target.client {
        Client::RedisRs => redis_rs(&target).await,
        Client::Fred => fred(&target).await,
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Client {
    RedisRs,
    Fred,
}

/// What stands behind the address.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Layout {
    Server,
    Cluster,
    Sentinel,
}

#[derive(Debug, PartialEq)]
struct Target<'a> {
    client: Client,
    layout: Layout,
    tls: bool,
    /// What follows `://`.
    address: &'a str,
}

/// Refuses what nobody would look at, such as a misspelt name.
fn check_parameters(scheme: &str, address: &str, known: &[&str]) -> Result<(), BackendError> {
    let (_, query) = address.split_once('?').unwrap_or_default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, _) = pair.split_once('=').unwrap_or((pair, ""));
        if !known.contains(&name) {
            let known = known.join(", ");
            return Err(unusable(format!(
                "a {scheme}:// URL has no parameter `{name}`; it may have {known}"
            )));
        }
    }
    Ok(())
}

fn unusable(text: impl Into<String>) -> BackendError {
    BackendError::not_applied(text.into())
}

impl<'a> Target<'a> {
    fn parse(url: &'a str) -> Result<Self, BackendError> {
        // The URL itself may hold a password, and must not get into an error.
        let Some((scheme, address)) = url.split_once("://") else {
            return Err(unusable("a store's URL looks like redis://localhost:6379"));
        };
        let (rest, client) = match scheme.strip_suffix("+fred") {
            Some(rest) => (rest, Client::Fred),
            None if cfg!(feature = "redis-rs") || !cfg!(feature = "fred") => {
                (scheme, Client::RedisRs)
            }
            None => (scheme, Client::Fred),
        };
        let (rest, layout) = match rest.rsplit_once('-') {
            Some((rest, "cluster")) => (rest, Layout::Cluster),
            Some((rest, "sentinel")) => (rest, Layout::Sentinel),
            _ => (rest, Layout::Server),
        };
        let tls = match rest {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            "unix" | "redis+unix" | "valkey+unix" if client == Client::Fred => {
                return Err(unusable("a unix socket takes redis-rs: redis+unix:///path"));
            }
            _ => return Err(unusable(format!("no store has URLs that begin with {scheme}://"))),
        };
        let target = Self { client, layout, tls, address };
        let known: &[&str] = match layout {
            Layout::Server => &["protocol"],
            Layout::Cluster => &["node"],
            Layout::Sentinel => {
                &["sentinelServiceName", "node", "sentinelUsername", "sentinelPassword"]
            }
        };
        check_parameters(scheme, address, known)?;
        match target.missing_feature() {
            Some(feature) => Err(unusable(format!(
                "{scheme}:// needs the feature {feature} of distkit, which is off"
            ))),
            None => Ok(target),
        }
    }

    fn missing_feature(&self) -> Option<&'static str> {
        let needed = match self.client {
            Client::RedisRs => [
                (true, cfg!(feature = "redis-rs"), "redis-rs"),
                (
                    self.layout == Layout::Cluster,
                    cfg!(feature = "redis-rs-cluster"),
                    "redis-rs-cluster",
                ),
                (
                    self.layout == Layout::Sentinel,
                    cfg!(feature = "redis-rs-sentinel"),
                    "redis-rs-sentinel",
                ),
                (self.tls, cfg!(feature = "redis-rs-tls"), "redis-rs-tls"),
            ],
            Client::Fred => [
                (true, cfg!(feature = "fred"), "fred"),
                (false, true, ""),
                (false, true, ""),
                (self.tls, cfg!(feature = "fred-tls"), "fred-tls"),
            ],
        };
        needed.into_iter().find(|(needed, on, _)| *needed && !on).map(|(_, _, feature)| feature)
    }

    #[cfg(any(feature = "redis-rs", feature = "fred"))]
    fn scheme(&self) -> &'static str {
        if self.tls { "rediss" } else { "redis" }
    }

    /// One URL for each node that is named.
    #[cfg(any(feature = "redis-rs-cluster", feature = "redis-rs-sentinel"))]
    fn nodes(&self) -> Vec<String> {
        let (first, query) = self.address.split_once('?').unwrap_or((self.address, ""));
        let credentials = first.rfind('@').map_or("", |at| &first[..=at]);
        let scheme = self.scheme();
        let others = query.split('&').filter_map(|pair| pair.strip_prefix("node="));
        let others = others.map(|node| format!("{scheme}://{credentials}{node}"));
        std::iter::once(format!("{scheme}://{first}")).chain(others).collect()
    }
}

#[cfg(any(feature = "redis-rs-cluster", feature = "fred"))]
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

#[cfg(any(feature = "redis-rs", feature = "fred"))]
fn unreachable(error: impl std::fmt::Display) -> BackendError {
    unusable(format!("cannot connect to the server: {error}"))
}

#[cfg(feature = "redis-rs")]
async fn redis_rs(target: &Target<'_>) -> Result<Arc<dyn Store>, BackendError> {
    #[cfg(feature = "redis-rs-cluster")]
    if target.layout == Layout::Cluster {
        use super::IntoBackend;

        let client = redis::cluster::ClusterClient::builder(target.nodes())
            .connection_timeout(PATIENCE)
            .response_timeout(PATIENCE)
            .tcp_settings(redis::io::tcp::TcpSettings::default().set_nodelay(true))
            // A slot that moves is asked for again soon; the default waits 1.28 s and doubles. A factor of
            // 1 keeps the pauses from overflowing.
            .retries(100)
            .min_retry_wait(5)
            .max_retry_wait(100)
            .retry_wait_formula(100, 1)
            .build()
            .map_err(unreachable)?;
        let connection = client.get_async_connection().await.map_err(unreachable)?;
        return Ok(connection.into_backend());
    }
    #[cfg(feature = "redis-rs-sentinel")]
    if target.layout == Layout::Sentinel {
        return sentinel(target).await;
    }
    managed(format!("{}://{}", target.scheme(), target.address)).await
}

#[cfg(feature = "redis-rs-sentinel")]
async fn sentinel(target: &Target<'_>) -> Result<Arc<dyn Store>, BackendError> {
    use super::{IntoBackend, ReconnectingConnection};
    use redis::{
        IntoConnectionInfo as _, TlsMode,
        sentinel::{SentinelClientBuilder, SentinelServerType},
    };

    let parameter = |name: &str| {
        let (_, query) = target.address.split_once('?')?;
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    };
    let name =
        parameter("sentinelServiceName").filter(|name| !name.is_empty()).ok_or_else(|| {
            unusable("the URL of a sentinel names the service: ?sentinelServiceName=name")
        })?;
    let mut nodes = Vec::new();
    for node in target.nodes() {
        nodes.push(node.as_str().into_connection_info().map_err(unreachable)?);
    }
    let server = nodes[0].redis_settings().clone();
    let addresses = nodes.iter().map(|node| node.addr().clone());
    let builder = SentinelClientBuilder::new(addresses, name, SentinelServerType::Master);
    let mut builder = builder.map_err(unreachable)?.set_client_to_redis_db(server.db());
    if let Some(user) = server.username() {
        builder = builder.set_client_to_redis_username(user);
    }
    if let Some(password) = server.password() {
        builder = builder.set_client_to_redis_password(password);
    }
    if let Some(user) = parameter("sentinelUsername") {
        builder = builder.set_client_to_sentinel_username(user);
    }
    if let Some(password) = parameter("sentinelPassword") {
        builder = builder.set_client_to_sentinel_password(password);
    }
    if target.tls {
        builder = builder
            .set_client_to_redis_tls_mode(TlsMode::Secure)
            .set_client_to_sentinel_tls_mode(TlsMode::Secure);
    }
    let sentinels = builder.build().map_err(unreachable)?;
    let connection = ReconnectingConnection::of_sentinel(sentinels);
    Ok(connection.connected().await.map_err(unreachable)?.into_backend())
}

#[cfg(feature = "redis-rs")]
async fn unix_socket(scheme: &str, address: &str) -> Result<Arc<dyn Store>, BackendError> {
    managed(format!("{scheme}://{address}")).await
}

#[cfg(not(feature = "redis-rs"))]
async fn unix_socket(scheme: &str, _: &str) -> Result<Arc<dyn Store>, BackendError> {
    Err(unusable(format!("{scheme}:// needs the feature redis-rs of distkit, which is off")))
}

#[cfg(feature = "redis-rs")]
async fn managed(url: String) -> Result<Arc<dyn Store>, BackendError> {
    use super::{IntoBackend, ReconnectingConnection};

    let client = redis::Client::open(url).map_err(unreachable)?;
    let connection = ReconnectingConnection::connect(client).await.map_err(unreachable)?;
    Ok(connection.into_backend())
}

#[cfg(not(feature = "redis-rs"))]
async fn redis_rs(_: &Target<'_>) -> Result<Arc<dyn Store>, BackendError> {
    Err(unusable("the feature redis-rs of distkit is off"))
}

#[cfg(feature = "fred")]
async fn fred(target: &Target<'_>) -> Result<Arc<dyn Store>, BackendError> {
    use fred::{
        interfaces::ClientLike,
        types::{
            Builder,
            config::{Config, ReconnectPolicy},
        },
    };

    let layout = match target.layout {
        Layout::Server => "",
        Layout::Cluster => "-cluster",
        Layout::Sentinel => "-sentinel",
    };
    let url = format!("{}{layout}://{}", target.scheme(), target.address);
    let config = Config::from_url(&url).map_err(unreachable)?;
    let client = Builder::from_config(config)
        .with_performance_config(|config| config.default_command_timeout = PATIENCE)
        .with_connection_config(|config| {
            config.connection_timeout = PATIENCE;
            config.internal_command_timeout = PATIENCE;
            config.tcp.nodelay = Some(true);
            // A connection that has gone silent is replaced.
            config.unresponsive.max_timeout = Some(PATIENCE);
            if target.layout == Layout::Cluster {
                // The store follows redirections itself: fred mixes up answers.
                config.max_redirections = 0;
            }
        })
        .set_policy(ReconnectPolicy::new_exponential(0, 20, 2000, 2))
        .build()
        .map_err(unreachable)?;
    let task = client.init().await.map_err(unreachable)?;
    Ok(super::fred::owning(client, task))
}

#[cfg(not(feature = "fred"))]
async fn fred(_: &Target<'_>) -> Result<Arc<dyn Store>, BackendError> {
    Err(unusable("the feature fred of distkit is off"))
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

    #[test]
    fn an_unknown_url_is_named_without_its_password() {
        for (url, expected) in [
            ("localhost", "looks like redis://"),
            ("mysql://user:secret@host", "mysql://"),
            ("redis+other://user:secret@host", "redis+other://"),
            (
                "redis://user:secret@host/0?timeout=5",
                "no parameter `timeout`; it may have protocol",
            ),
        ] {
            let error = cause(Target::parse(url).unwrap_err());
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[cfg(not(feature = "fred"))]
    #[test]
    fn a_feature_that_is_off_is_named() {
        let error = cause(Target::parse("redis+fred://host").unwrap_err());
        assert!(error.contains("feature fred "), "{error}");
    }

    #[cfg(feature = "redis-rs-cluster")]
    #[test]
    fn every_node_gets_the_credentials() {
        let target = Target::parse("redis-cluster://u:p@a:1?node=b:2&node=c:3").unwrap();
        assert_eq!(target.nodes(), ["redis://u:p@a:1", "redis://u:p@b:2", "redis://u:p@c:3"]);
    }
}
