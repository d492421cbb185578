//! A connection, and commands over it.

use std::sync::Arc;

use distkit::{
    RedisKey,
    backend::{
        Space, Store, connect,
        operator::{RawCommands, RawReply},
    },
};

use crate::error::{Error, Result};

/// A server, or a cluster as a whole.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) store: Arc<dyn Store>,
    /// What findings and errors call it: an address, never a password.
    pub(crate) name: String,
}

impl Server {
    pub(crate) async fn connect(url: &str) -> Result<Self> {
        let unusable = |source| Error::Unusable { address: url::address(url), source };
        let store = connect(&url::for_tool(url)).await.map_err(unusable)?;
        if store.capabilities().raw.is_none() {
            return Err(Error::Usage("the tool needs a server: memory:// has none".to_owned()));
        }
        Ok(Self { store, name: url::address(url) })
    }

    fn raw(&self) -> Result<&dyn RawCommands> {
        let missing = || Error::Usage("the tool needs a server".to_owned());
        self.store.capabilities().raw.ok_or_else(missing)
    }

    /// Sends a command whose first argument is its key, if it has one. An error reply is an answer here.
    pub(crate) async fn ask(&self, name: &'static str, args: &[&str]) -> Result<RawReply> {
        Ok(self.raw()?.command(name, args, 0).await?)
    }

    /// The same; an error reply is an error.
    pub(crate) async fn command(&self, name: &'static str, args: &[&str]) -> Result<RawReply> {
        match self.ask(name, args).await? {
            RawReply::Error { code, detail } => {
                let command = name.to_owned();
                Err(Error::Refused { command, code, detail })
            }
            reply => Ok(reply),
        }
    }

    /// A script that writes nothing, with one key.
    pub(crate) async fn script(&self, script: &str, key: &str, args: &[&str]) -> Result<RawReply> {
        let mut all = vec![script, "1", key];
        all.extend_from_slice(args);
        Ok(self.raw()?.command("EVAL", &all, 2).await?)
    }

    pub(crate) async fn text(&self, name: &'static str, args: &[&str]) -> Result<Option<String>> {
        Ok(text(&self.command(name, args).await?))
    }

    pub(crate) async fn number(&self, name: &'static str, args: &[&str]) -> Result<i64> {
        let reply = self.command(name, args).await?;
        let parsed = match &reply {
            RawReply::Int(number) => Some(*number),
            other => text(other).and_then(|text| text.parse().ok()),
        };
        parsed.ok_or_else(|| unexpected(name, &reply))
    }

    pub(crate) async fn texts(
        &self,
        name: &'static str,
        args: &[&str],
    ) -> Result<Vec<Option<String>>> {
        match self.command(name, args).await? {
            RawReply::Array(items) => {
                // RESP3 gives pairs where RESP2 gives one list.
                let flat = items.iter().flat_map(|item| match item {
                    RawReply::Array(pair) => pair.iter(),
                    item => std::slice::from_ref(item).iter(),
                });
                Ok(flat.map(text).collect())
            }
            reply => Err(unexpected(name, &reply)),
        }
    }

    /// A portion of a hash, set or keyspace, and the cursor of the next one; `None` at the end.
    pub(crate) async fn scan(
        &self,
        name: &'static str,
        key: Option<&str>,
        cursor: &str,
        rest: &[&str],
    ) -> Result<(Vec<String>, Option<String>)> {
        let mut args: Vec<&str> = key.into_iter().collect();
        args.push(cursor);
        args.extend_from_slice(rest);
        let reply = self.command(name, &args).await?;
        if let RawReply::Array(both) = &reply
            && let [next, RawReply::Array(items)] = &both[..]
            && let Some(next) = text(next)
        {
            let items = items.iter().filter_map(text).collect();
            return Ok((items, (next != "0").then_some(next)));
        }
        Err(unexpected(name, &reply))
    }

    /// The server's clock, in microseconds since 1970.
    pub(crate) async fn time_us(&self) -> Result<i64> {
        let parts = self.texts("TIME", &[]).await?;
        let number = |at: usize| parts.get(at)?.as_ref()?.parse::<i64>().ok();
        match (number(0), number(1)) {
            (Some(seconds), Some(micros)) => Ok(seconds * 1_000_000 + micros),
            _ => Err(Error::failed("the server's TIME is no time")),
        }
    }
}

/// How much one HSCAN, SSCAN or SCAN looks at: a fraction of a millisecond of the server.
pub(crate) const PORTION: &str = "500";

/// The fields and values of a whole hash, a portion at a time. A field may come twice.
pub(crate) async fn each_field<F>(server: &Server, key: &str, mut each: F) -> Result<()>
where
    F: FnMut(String, String),
{
    let mut cursor = Some("0".to_owned());
    while let Some(at) = cursor {
        let (items, next) = server.scan("HSCAN", Some(key), &at, &["COUNT", PORTION]).await?;
        let mut items = items.into_iter();
        while let (Some(field), Some(value)) = (items.next(), items.next()) {
            each(field, value);
        }
        cursor = next;
    }
    Ok(())
}

/// The text of a simple answer. Bytes that are no UTF-8 are replaced.
pub(crate) fn text(reply: &RawReply) -> Option<String> {
    match reply {
        RawReply::Int(number) => Some(number.to_string()),
        RawReply::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        _ => None,
    }
}

pub(crate) fn unexpected(command: &str, reply: &RawReply) -> Error {
    let found: String = format!("{reply:?}").chars().take(200).collect();
    Error::Unexpected { command: command.to_owned(), found }
}

pub(crate) fn space(prefix: &str) -> Result<Space> {
    Ok(Space::new(RedisKey::new(prefix)?))
}

pub(crate) mod url {
    //! URLs of stores, taken apart as far as the tool must.

    /// The same store, as this tool connects to it: over redis-rs, whatever the service uses.
    pub(crate) fn for_tool(url: &str) -> String {
        let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
        if scheme.is_empty() {
            return url.to_owned();
        }
        let scheme = scheme.strip_suffix("+fred").unwrap_or(scheme);
        format!("{scheme}://{rest}")
    }

    /// The parameters of `rest` but for those of that name.
    fn without(rest: &str, name: &str) -> String {
        let Some((address, query)) = rest.split_once('?') else { return rest.to_owned() };
        let kept: Vec<&str> = query
            .split('&')
            .filter(|pair| pair.split('=').next() != Some(name) && !pair.is_empty())
            .collect();
        if kept.is_empty() { address.to_owned() } else { format!("{address}?{}", kept.join("&")) }
    }

    /// The host and port, or path: what may be printed.
    pub(crate) fn address(url: &str) -> String {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let rest = rest.split('?').next().unwrap_or(rest);
        let address = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
        address.trim_end_matches('/').to_owned()
    }

    pub(crate) fn is_cluster(url: &str) -> bool {
        let scheme = url.split("://").next().unwrap_or_default();
        scheme.strip_suffix("+fred").unwrap_or(scheme).ends_with("-cluster")
    }

    /// Whether the server can be on this machine.
    pub(crate) fn is_local(url: &str) -> bool {
        let scheme = url.split("://").next().unwrap_or_default();
        let host = address(url);
        let host = host.split('/').next().unwrap_or_default();
        let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
        scheme.contains("unix")
            || matches!(host, "" | "localhost" | "::1" | "[::1]")
            || host.starts_with("127.")
    }

    /// One node of the cluster at `url`, by itself.
    pub(crate) fn node(url: &str, host: &str, port: i64) -> String {
        let url = for_tool(url);
        let (scheme, rest) = url.split_once("://").unwrap_or(("redis-cluster", &url));
        let scheme = scheme.trim_end_matches("-cluster");
        let rest = without(rest, "node");
        let (address, query) = rest.split_once('?').unwrap_or((&rest, ""));
        let user = address.rfind('@').map_or("", |at| &address[..=at]);
        let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
        let query = if query.is_empty() { String::new() } else { format!("?{query}") };
        format!("{scheme}://{user}{host}:{port}{query}")
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_node_has_the_credentials_of_its_cluster_and_no_other_nodes() {
            let cluster = "rediss-cluster+fred://u:p@a:1?node=b:2&node=c:3";
            assert_eq!(node(cluster, "d", 4), "rediss://u:p@d:4");
            assert_eq!(node("valkey-cluster://a:1", "::1", 4), "valkey://[::1]:4");
            assert_eq!(address(cluster), "a:1");
            assert!(is_cluster(cluster) && !is_cluster("redis://a"));
        }

        #[test]
        fn the_tool_has_its_own_client() {
            assert_eq!(for_tool("redis+fred://h:1?protocol=resp3"), "redis://h:1?protocol=resp3");
            assert_eq!(
                for_tool("redis-sentinel://h?sentinelServiceName=a"),
                "redis-sentinel://h?sentinelServiceName=a"
            );
            assert!(is_local("redis://user:pass@127.0.0.1:7000/2"));
            assert!(is_local("redis+unix:///tmp/socket") && !is_local("redis://db:6379"));
        }
    }
}
