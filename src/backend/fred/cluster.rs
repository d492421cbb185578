//! Which node serves which slot, and a client for each node.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use fred::{
    clients::Client,
    interfaces::ClientLike,
    types::{
        ClusterHash, CustomCommand, Value,
        cluster::{ClusterRouting, SlotRange},
        config::{Options, Server},
    },
};
use futures_util::future::{join_all, select_ok};
use parking_lot::{Mutex, RwLock};
use tokio::{runtime::Handle, time::Instant};

use crate::backend::lua::CallError;

use super::own::{Own, not_sent};

const SLOTS: usize = 16_384;

/// How often a cluster is asked who serves which slot: when a node says that it does not serve one, and when a node
/// does not answer.
pub(super) const LOOKS: (Duration, Duration) =
    (Duration::from_millis(10), Duration::from_millis(500));

/// How long a node may take to tell who serves which slot.
const TELLING: Duration = Duration::from_secs(1);

/// The nodes of a cluster, each with clients of its own.
///
/// Fred's own client of a cluster has one task for all nodes. Whenever one node is unreachable, that task waits for
/// it, and nothing is sent to the others. It also mixes up the answers of a connection when it follows a redirection.
pub(super) struct Cluster {
    model: Client,
    seeds: Vec<Server>,
    /// Clients for each node.
    each: usize,
    home: Option<Handle>,
    known: RwLock<Arc<Topology>>,
    last_look: Mutex<Option<Instant>>,
}

struct Topology {
    nodes: Vec<Arc<Node>>,
    /// The place in `nodes` of the one that serves a slot. Empty until it was asked for: then `nodes` are those of the
    /// configuration.
    owners: Vec<Option<u16>>,
}

/// One server.
pub(super) struct Node {
    server: Server,
    clients: Vec<Own>,
    next: AtomicUsize,
}

impl Node {
    fn own(&self) -> &Own {
        &self.clients[self.next.fetch_add(1, Relaxed) % self.clients.len()]
    }

    /// One of its clients, connected.
    pub(super) async fn connected(&self) -> Result<Client, CallError> {
        self.own().connected().await
    }
}

impl Cluster {
    /// As the settings of `clients`, all of one cluster, say. No I/O.
    pub(super) fn like(clients: &[Client]) -> Option<Self> {
        let model = clients.first()?;
        let seeds = model.client_config().server.hosts();
        let mut cluster = Self {
            model: model.clone(),
            seeds: Vec::new(),
            each: clients.len(),
            home: Handle::try_current().ok(),
            known: RwLock::new(Arc::new(Topology { nodes: Vec::new(), owners: Vec::new() })),
            last_look: Mutex::default(),
        };
        // All who look at first ask the same clients.
        let nodes = seeds.iter().map(|seed| cluster.node_at(seed)).collect();
        *cluster.known.get_mut() = Arc::new(Topology { nodes, owners: Vec::new() });
        cluster.seeds = seeds;
        Some(cluster)
    }

    /// Learns who serves which slot, and connects to all nodes that answer.
    ///
    /// # Errors
    ///
    /// No node of the configuration can tell.
    pub(super) async fn connect(&self) -> Result<(), CallError> {
        self.look(None).await?;
        let known = self.topology();
        // A node that does not answer delays its own slots only.
        join_all(known.nodes.iter().flat_map(|node| &node.clients).map(Own::connected)).await;
        Ok(())
    }

    fn topology(&self) -> Arc<Topology> {
        self.known.read().clone()
    }

    /// The node that serves a slot, or any where a command has no key; as far as is known.
    fn known_node(&self, slot: Option<u16>) -> Option<Arc<Node>> {
        let known = self.known.read();
        let place = match slot {
            Some(slot) => usize::from((*known.owners.get(usize::from(slot))?)?),
            None => 0,
        };
        known.nodes.get(place).cloned()
    }

    pub(super) async fn node(&self, slot: Option<u16>) -> Result<Arc<Node>, CallError> {
        if let Some(node) = self.known_node(slot) {
            return Ok(node);
        }
        if self.known.read().owners.is_empty() {
            self.look(None).await?;
        } else {
            self.look_again(None, LOOKS.1).await;
        }
        self.known_node(slot).ok_or_else(|| not_sent("no node of the cluster serves the slot"))
    }

    /// Whether another node than this one is known to serve the slot.
    pub(super) fn moved_from(&self, node: &Arc<Node>, slot: Option<u16>) -> bool {
        self.known_node(slot).is_some_and(|owner| !Arc::ptr_eq(&owner, node))
    }

    /// Learns who serves which slot, from the node `first` if it can tell, unless somebody did within `pause`. What
    /// it cannot learn stays as it was.
    pub(super) async fn look_again(&self, first: Option<&Arc<Node>>, pause: Duration) {
        {
            // Not a lock that is held meanwhile: a caller that is not polled on must hold up nobody.
            let mut last = self.last_look.lock();
            if last.is_some_and(|last| last.elapsed() < pause) {
                return;
            }
            *last = Some(Instant::now());
        }
        let _ = self.look(first).await;
    }

    /// Learns it.
    ///
    /// # Errors
    ///
    /// No node that is known, and none of the configuration, can tell.
    pub(super) async fn look(&self, first: Option<&Arc<Node>>) -> Result<(), CallError> {
        let routing = match first {
            Some(first) => self.first_answer(vec![first.clone()]).await,
            None => Err(not_sent("no node was asked")),
        };
        let routing = match routing {
            Ok(routing) => routing,
            Err(_) => match self.first_answer(self.topology().nodes.clone()).await {
                Ok(routing) => routing,
                Err(_) => {
                    let seeds = self.seeds.iter().map(|seed| self.node_at(seed)).collect();
                    self.first_answer(seeds).await?
                }
            },
        };
        self.learn(routing);
        Ok(())
    }

    async fn first_answer(&self, nodes: Vec<Arc<Node>>) -> Result<Vec<SlotRange>, CallError> {
        if nodes.is_empty() {
            return Err(not_sent("the client knows no node of the cluster"));
        }
        let asked = nodes.iter().map(|node| {
            Box::pin(async move {
                let told = tokio::time::timeout(TELLING, tell(node)).await;
                told.unwrap_or_else(|_| Err(not_sent("a node does not tell who serves which slot")))
            })
        });
        select_ok(asked).await.map(|(ranges, _)| ranges)
    }

    /// The node, with the clients that it has if it is known.
    fn node_at(&self, server: &Server) -> Arc<Node> {
        let known = self.topology();
        let node = known.nodes.iter().find(|node| node.server == *server);
        node.cloned().unwrap_or_else(|| {
            let own = || Own::of_node(&self.model, server.clone(), self.home.clone());
            Arc::new(Node {
                server: server.clone(),
                clients: (0..self.each).map(|_| own()).collect(),
                next: AtomicUsize::new(0),
            })
        })
    }

    fn learn(&self, routing: Vec<SlotRange>) {
        let mut nodes: Vec<Arc<Node>> = Vec::new();
        let mut owners = vec![None; SLOTS];
        for range in routing {
            let place = nodes.iter().position(|node| node.server == range.primary);
            let place = place.unwrap_or_else(|| {
                nodes.push(self.node_at(&range.primary));
                nodes.len() - 1
            });
            let slots = usize::from(range.start)..=usize::from(range.end);
            if let Some(slots) = owners.get_mut(slots) {
                slots.fill(u16::try_from(place).ok());
            }
        }
        // The clients of nodes that serve no slot any more end with their last command.
        *self.known.write() = Arc::new(Topology { nodes, owners });
    }
}

/// Who serves which slot by the account of one node.
async fn tell(node: &Node) -> Result<Vec<SlotRange>, CallError> {
    let client = node.connected().await?;
    let options = Options { max_attempts: Some(1), timeout: Some(TELLING), ..Options::default() };
    let command = CustomCommand::new_static("CLUSTER", ClusterHash::FirstKey, false);
    let told = client.with_options(&options).custom::<Value, _>(command, vec!["SLOTS"]).await;
    let routing = told
        .and_then(|slots| ClusterRouting::from_cluster_slots(slots, node.server.host.clone()))
        .map_err(|error| CallError::NotSent(Arc::new(error)))?;
    if routing.slots().is_empty() {
        return Err(not_sent("a node of the cluster knows of no slot that is served"));
    }
    let ranges = routing.slots().iter().cloned();
    Ok(ranges.map(|range| named(range, &client, &node.server)).collect())
}

/// The range with the name that its node's certificate is checked against, where the client's settings map addresses to
/// names.
#[cfg(feature = "fred-tls")]
fn named(mut range: SlotRange, client: &Client, told_by: &Server) -> SlotRange {
    use fred::types::config::TlsHostMapping;

    let config = client.client_config();
    if let (Some(tls), Ok(ip)) = (&config.tls, range.primary.host.parse()) {
        let name = match &tls.hostnames {
            TlsHostMapping::None => None,
            TlsHostMapping::DefaultHost => Some(told_by.host.to_string()),
            TlsHostMapping::Custom(mapping) => mapping.map(&ip, &told_by.host),
        };
        range.primary.tls_server_name = name.map(Into::into);
    }
    range
}

#[cfg(not(feature = "fred-tls"))]
fn named(range: SlotRange, _: &Client, _: &Server) -> SlotRange {
    range
}
