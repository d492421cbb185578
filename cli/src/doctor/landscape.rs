//! The servers behind a URL: one, or the primaries of a cluster.

use distkit::backend::{Space, operator::RawReply};

use super::{
    findings::{Code, Findings},
    node,
};
use crate::{
    error::{Error, Result},
    server::{Server, text, unexpected, url},
};

#[derive(Debug)]
pub(super) struct Landscape {
    pub(super) nodes: Vec<Server>,
    /// Of a cluster: which slots, from and to, are whose.
    slots: Vec<(i64, i64, usize)>,
    pub(super) is_cluster: bool,
}

impl Landscape {
    pub(super) async fn of(at: &str, found: &mut Findings) -> Result<Self> {
        let first =
            if url::is_cluster(at) { any_node(at).await? } else { Server::connect(at).await? };
        let info = node::Info::of(&first).await?;
        let says_so = info.is_some_and(|info| info.get("cluster_enabled") == "1");
        if !says_so && !url::is_cluster(at) {
            return Ok(Self { nodes: vec![first], slots: Vec::new(), is_cluster: false });
        }
        let mut nodes: Vec<Server> = Vec::new();
        let mut slots = Vec::new();
        for (from, to, host, port) in owners(&first).await? {
            let host = if host.is_empty() { host_of(&first.name) } else { &host };
            let name = url::address(&url::node(at, host, port));
            let known = nodes.iter().position(|node| node.name == name);
            let index = match known {
                Some(index) => index,
                None => match Server::connect(&url::node(at, host, port)).await {
                    Ok(node) => {
                        nodes.push(node);
                        nodes.len() - 1
                    }
                    Err(error) => {
                        let text = crate::error::chain(&error);
                        found.add(
                            Code::ClusterDown,
                            &name,
                            format!("the node does not answer: {text}"),
                        );
                        continue;
                    }
                },
            };
            slots.push((from, to, index));
        }
        let landscape = Self { nodes, slots, is_cluster: true };
        landscape.check(&first, found).await?;
        Ok(landscape)
    }

    async fn check(&self, first: &Server, found: &mut Findings) -> Result<()> {
        let covered: i64 = self.slots.iter().map(|(from, to, _)| to - from + 1).sum();
        let info = first.text("CLUSTER", &["INFO"]).await?.unwrap_or_default();
        let state = info.lines().find_map(|line| line.trim_end().strip_prefix("cluster_state:"));
        if covered < 16_384 || state != Some("ok") {
            let state = state.unwrap_or("unknown");
            found.add(
                Code::ClusterDown,
                &first.name,
                format!(
                    "cluster_state is {state}, and nodes that answer have {covered} of 16384 slots"
                ),
            );
        }
        for node in &self.nodes {
            match node::setting(node, "cluster-require-full-coverage").await?.as_deref() {
                Some("yes") => found.add(
                    Code::ClusterFullCoverage,
                    &node.name,
                    "cluster-require-full-coverage is yes: where one slot has no node, no key can be written",
                ),
                Some(_) => {}
                None => found.unchecked(format!(
                    "{}: cluster-require-full-coverage, for CONFIG GET is denied",
                    node.name
                )),
            }
        }
        Ok(())
    }

    /// The server that has the keys of a space, if one has.
    pub(super) fn owner(&self, space: &Space) -> Option<&Server> {
        if !self.is_cluster {
            return self.nodes.first();
        }
        let slot = i64::from(space.slot());
        let owner = self.slots.iter().find(|(from, to, _)| (*from..=*to).contains(&slot));
        owner.and_then(|(_, _, index)| self.nodes.get(*index))
    }
}

fn host_of(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

/// A node of the cluster that answers, of those that the URL names.
async fn any_node(at: &str) -> Result<Server> {
    let address = url::address(at);
    let mut named = vec![address];
    let query = at.split_once('?').map_or("", |(_, query)| query);
    named.extend(query.split('&').filter_map(|pair| pair.strip_prefix("node=")).map(str::to_owned));
    let mut last = Error::Usage("the URL names no node".to_owned());
    for node in named {
        let (host, port) = node.rsplit_once(':').unwrap_or((&node, "6379"));
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let Ok(port) = port.trim_end_matches('/').parse() else { continue };
        match Server::connect(&url::node(at, host, port)).await {
            Ok(server) => return Ok(server),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Slots from, to, and their primary's host and port.
async fn owners(node: &Server) -> Result<Vec<(i64, i64, String, i64)>> {
    let reply = node.command("CLUSTER", &["SLOTS"]).await?;
    let parse = |range: &RawReply| {
        let RawReply::Array(parts) = range else { return None };
        let [RawReply::Int(from), RawReply::Int(to), RawReply::Array(primary), ..] = &parts[..]
        else {
            return None;
        };
        let [host, RawReply::Int(port), ..] = &primary[..] else { return None };
        Some((*from, *to, text(host).unwrap_or_default(), *port))
    };
    let parsed = match &reply {
        RawReply::Array(ranges) => ranges.iter().map(parse).collect(),
        _ => None,
    };
    parsed.ok_or_else(|| unexpected("CLUSTER SLOTS", &reply))
}
