//! What a URL asks for.

use crate::backend::BackendError;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Client {
    RedisRs,
    Fred,
}

/// What stands behind the address.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Layout {
    Server,
    Cluster,
    Sentinel,
}

/// What the URL says of the protocol.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(not(any(feature = "redis-rs", feature = "fred")), allow(dead_code))]
pub(super) enum Protocol {
    Resp2,
    Resp3,
}

#[derive(Debug, PartialEq)]
#[cfg_attr(not(any(feature = "redis-rs", feature = "fred")), allow(dead_code))]
pub(super) struct Target<'a> {
    pub(super) client: Client,
    pub(super) layout: Layout,
    pub(super) tls: bool,
    pub(super) protocol: Option<Protocol>,
    /// What follows `://`, without the parameters.
    pub(super) address: &'a str,
    query: &'a str,
}

impl Protocol {
    pub(super) fn of(query: &str) -> Result<Option<Self>, BackendError> {
        match pairs(query).find(|(name, _)| *name == "protocol") {
            None => Ok(None),
            Some((_, "2" | "resp2")) => Ok(Some(Self::Resp2)),
            Some((_, "3" | "resp3")) => Ok(Some(Self::Resp3)),
            Some(_) => Err(unusable("the parameter `protocol` is resp2 or resp3")),
        }
    }
}

/// The files of a TLS connection, by the names that the command line clients give them.
const TLS: [&str; 3] = ["cacert", "cert", "key"];

/// The names and values of a query.
fn pairs(query: &str) -> impl Iterator<Item = (&str, &str)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

/// Refuses a parameter that is not known, such as a misspelt one.
pub(super) fn check_parameters(
    scheme: &str,
    query: &str,
    known: &[&str],
) -> Result<(), BackendError> {
    match pairs(query).find(|(name, _)| !known.contains(name)) {
        None => Ok(()),
        Some((name, _)) => Err(unusable(format!(
            "a {scheme}:// URL has no parameter `{name}`; it may have {}",
            known.join(", ")
        ))),
    }
}

pub(super) fn unusable(text: impl Into<String>) -> BackendError {
    BackendError::not_applied(text.into())
}

impl<'a> Target<'a> {
    pub(super) fn parse(url: &'a str) -> Result<Self, BackendError> {
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
        let (address, query) = address.split_once('?').unwrap_or((address, ""));
        let mut known = vec!["protocol"];
        known.extend(match layout {
            Layout::Server => &[][..],
            Layout::Cluster => &["node"],
            Layout::Sentinel => {
                &["sentinelServiceName", "node", "sentinelUsername", "sentinelPassword"]
            }
        });
        if tls {
            known.extend(TLS);
        } else if let Some((name, _)) = pairs(query).find(|(name, _)| TLS.contains(name)) {
            return Err(unusable(format!("`{name}` needs TLS: rediss:// in place of {scheme}://")));
        }
        check_parameters(scheme, query, &known)?;
        let given = |name| pairs(query).any(|(given, value)| given == name && !value.is_empty());
        if given("cert") != given("key") {
            return Err(unusable("a client certificate takes both parameters, cert and key"));
        }
        let protocol = Protocol::of(query)?;
        let target = Self { client, layout, tls, protocol, address, query };
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
    pub(super) fn scheme(&self) -> &'static str {
        if self.tls { "rediss" } else { "redis" }
    }

    /// The decoded value of a parameter.
    #[cfg(any(feature = "redis-rs-sentinel", feature = "redis-rs-tls", feature = "fred-tls"))]
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        let (_, value) = pairs(self.query).find(|(given, _)| *given == name)?;
        let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy();
        Some(value.into_owned()).filter(|value| !value.is_empty())
    }

    /// One URL for each node that is named.
    #[cfg(any(feature = "redis-rs-cluster", feature = "redis-rs-sentinel"))]
    pub(super) fn nodes(&self) -> Vec<String> {
        let credentials = self.address.rfind('@').map_or("", |at| &self.address[..=at]);
        let scheme = self.scheme();
        let others = pairs(self.query).filter(|(name, _)| *name == "node");
        let others = others.map(|(_, node)| format!("{scheme}://{credentials}{node}"));
        std::iter::once(format!("{scheme}://{}", self.address)).chain(others).collect()
    }

    /// The parameters that fred itself reads from a URL, as they were given.
    #[cfg(feature = "fred")]
    pub(super) fn fred_query(&self) -> String {
        let ours = |name: &str| name == "protocol" || TLS.contains(&name);
        let theirs: Vec<String> = pairs(self.query)
            .filter(|(name, _)| !ours(name))
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        theirs.join("&")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(error: BackendError) -> String {
        std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default()
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
            ("redis://:secret@host?protocol=resp4", "`protocol` is resp2 or resp3"),
            ("redis://:secret@host?cacert=/ca", "`cacert` needs TLS"),
            ("rediss://:secret@host?cert=/crt", "both parameters, cert and key"),
            ("rediss://:secret@host?key=/key&cert=", "both parameters, cert and key"),
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

    #[cfg(feature = "redis-rs-sentinel")]
    #[test]
    fn parameters_are_decoded() {
        let url = "redis-sentinel://h?sentinelServiceName=main&sentinelPassword=a%26b%3D";
        let target = Target::parse(url).unwrap();
        assert_eq!(target.parameter("sentinelPassword").as_deref(), Some("a&b="));
        assert_eq!(target.parameter("sentinelUsername"), None);
    }
}
