use std::process::Command;

use crate::{Server, ServerBuilder, wait_until};

/// Three masters on loopback that share the slots, with or without replicas; gone when dropped.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Server>,
}

impl Cluster {
    /// A cluster of Redis servers. Returns when each of them says that the cluster is in order.
    ///
    /// # Panics
    ///
    /// When Redis is not installed, or the cluster is not in order within 30 seconds.
    pub fn start() -> Self {
        Self::of(Server::redis())
    }

    /// A cluster of three of these.
    ///
    /// # Panics
    ///
    /// As [`start`](Self::start).
    pub fn of(builder: ServerBuilder) -> Self {
        Self::create(builder, 0)
    }

    /// A cluster of three of these and a replica of each, which takes its place when it is unreachable for two
    /// seconds. The nodes that are left serve their own slots meanwhile.
    ///
    /// # Panics
    ///
    /// As [`start`](Self::start).
    pub fn with_replicas(builder: ServerBuilder) -> Self {
        let builder = builder
            .args(&["--cluster-node-timeout", "2000", "--cluster-require-full-coverage", "no"])
            .args(&["--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0"]);
        Self::create(builder, 1)
    }

    fn create(builder: ServerBuilder, replicas: usize) -> Self {
        let builder = builder.cluster();
        let nodes: Vec<Server> = (0..3 * (1 + replicas)).map(|_| builder.clone().start()).collect();

        let mut create = client(&nodes[0]);
        create.args(["--cluster", "create"]);
        create.args(nodes.iter().map(|node| {
            let bus_port = node.bus_port().expect("a cluster's node has one");
            format!("127.0.0.1:{}@{bus_port}", node.port())
        }));
        create.args(["--cluster-replicas", &replicas.to_string(), "--cluster-yes"]);
        nodes[0].run_cli(create);

        let cluster = Self { nodes };
        cluster.wait_ok();
        cluster
    }

    /// Waits until every node says `cluster_state:ok` and knows all others, as after a restart of one, and each replica
    /// has its primary's data.
    ///
    /// # Panics
    ///
    /// After 30 seconds.
    pub fn wait_ok(&self) {
        wait_until("a cluster in order", || {
            self.nodes.iter().all(|node| {
                let info = node.cli(&["CLUSTER", "INFO"]);
                let known = format!("cluster_known_nodes:{}", self.nodes.len());
                let replication = node.cli(&["INFO", "replication"]);
                info.lines().any(|line| line.trim_end() == known)
                    && info.contains("cluster_state:ok")
                    && info.contains("cluster_size:3")
                    && !replication.contains("master_link_status:down")
                    && (self.nodes.len() == 3
                        || replication.contains("role:slave")
                        || replication.contains("state=online"))
            })
        });
    }

    /// Waits until the replicas of a node have all that it was written before the call. Nobody may write meanwhile.
    ///
    /// # Panics
    ///
    /// After 30 seconds, and when the node has no replica.
    pub fn wait_replicated(&self, node: usize) {
        wait_until("a replica that is level with its primary", || {
            let info = self.nodes[node].cli(&["INFO", "replication"]);
            let number = |name: &str| {
                let rest = info.split_once(name)?.1;
                let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
                rest[..end].parse::<u64>().ok()
            };
            let (has, sent) = (number(",offset="), number("master_repl_offset:"));
            has.is_some() && has == sent
        });
    }

    /// Waits until a living node other than `down` serves the slot, by all living nodes' account, and gives it.
    ///
    /// # Panics
    ///
    /// After 30 seconds.
    pub fn wait_replaced(&self, slot: u16, down: usize) -> usize {
        let mut by = None;
        wait_until("a replica that takes the place of its primary", || {
            by = (0..self.nodes.len()).find(|&node| node != down && self.serves(node, slot));
            by.is_some()
                && (0..self.nodes.len()).filter(|&node| node != down).all(|node| {
                    self.nodes[node].cli(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
                })
        });
        by.expect("one was found")
    }

    /// Waits until all nodes say the same of who serves which slot: until then the cluster's tool moves none.
    fn wait_agreed(&self) {
        wait_until("nodes that agree", || {
            let address = format!("127.0.0.1:{}", self.nodes[0].port());
            let mut command = Command::new(self.nodes[0].flavor().cli());
            command.args(["--cluster", "check", &address]);
            command.output().expect("the tool of the cluster").status.success()
        });
    }

    /// Spreads the slots evenly over the nodes again, by the cluster's own tool.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn rebalance(&self) {
        self.wait_agreed();
        let address = format!("127.0.0.1:{}", self.nodes[0].port());
        let mut command = Command::new(self.nodes[0].flavor().cli());
        command.args(["--cluster", "rebalance", &address, "--cluster-threshold", "1"]);
        let output = command.output().expect("the tool of the cluster");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }

    /// The servers: the masters first, then their replicas, in the order of the beginning.
    pub fn nodes(&self) -> &[Server] {
        &self.nodes
    }

    /// The address of each node.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Server::url).collect()
    }

    /// The slot of a key.
    pub fn slot(&self, key: &str) -> u16 {
        self.nodes[0].cli(&["CLUSTER", "KEYSLOT", key]).parse().expect("a slot")
    }

    /// Which of the [`nodes`](Self::nodes) serves the slot, by its own account.
    ///
    /// # Panics
    ///
    /// When none does.
    pub fn owner(&self, slot: u16) -> usize {
        let mut nodes = 0..self.nodes.len();
        nodes.find(|&node| self.serves(node, slot)).expect("a node that serves the slot")
    }

    fn serves(&self, node: usize, slot: u16) -> bool {
        let node = &self.nodes[node];
        let id = node.cli(&["CLUSTER", "MYID"]);
        node.cli(&["CLUSTER", "NODES"]).lines().any(|line| {
            let mut words = line.split(' ');
            words.next() == Some(&*id)
                && words.skip(7).any(|range| {
                    let (first, last) = range.split_once('-').unwrap_or((range, range));
                    match (first.parse(), last.parse()) {
                        (Ok(first), Ok(last)) => (first..=last).contains(&slot),
                        _ => false,
                    }
                })
        })
    }

    /// Opens the slot for a move from its node to the next one; gives both.
    pub fn open_slot(&self, slot: u16) -> (usize, usize) {
        let (from, slot) = (self.owner(slot), slot.to_string());
        let to = (from + 1) % self.nodes.len();
        let id = |node: usize| self.nodes[node].cli(&["CLUSTER", "MYID"]);
        self.set_slot(to, &[&slot, "IMPORTING", &id(from)]);
        self.set_slot(from, &[&slot, "MIGRATING", &id(to)]);
        (from, to)
    }

    /// Moves up to `count` keys of an open slot; gives how many it found.
    ///
    /// # Panics
    ///
    /// When the servers refuse.
    pub fn move_keys(&self, slot: u16, (from, to): (usize, usize), count: usize) -> usize {
        let keys = self.nodes[from].cli(&[
            "CLUSTER",
            "GETKEYSINSLOT",
            &slot.to_string(),
            &count.to_string(),
        ]);
        let keys: Vec<&str> = keys.lines().filter(|key| !key.is_empty()).collect();
        if !keys.is_empty() {
            let port = self.nodes[to].port().to_string();
            let mut args = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            args.extend(&keys);
            let moved = self.nodes[from].cli(&args);
            assert!(matches!(&*moved, "OK" | "NOKEY"), "MIGRATE: {moved}");
        }
        keys.len()
    }

    /// Ends a move: every node hears that the slot is served by `to`.
    pub fn close_slot(&self, slot: u16, (from, to): (usize, usize)) {
        let id = self.nodes[to].cli(&["CLUSTER", "MYID"]);
        let others = (0..self.nodes.len()).filter(|&node| node != to && node != from);
        for node in [to, from].into_iter().chain(others) {
            self.set_slot(node, &[&slot.to_string(), "NODE", &id]);
        }
    }

    /// Moves the first `slots` slots of a node to another, by the cluster's own tool.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn reshard(&self, from: usize, to: usize, slots: usize) {
        self.wait_agreed();
        let id = |node: usize| self.nodes[node].cli(&["CLUSTER", "MYID"]);
        let address = format!("127.0.0.1:{}", self.nodes[from].port());
        let mut command = client(&self.nodes[from]);
        command.args(["--cluster", "reshard", &address, "--cluster-yes", "--cluster-slots"]);
        command.args([&slots.to_string(), "--cluster-from", &id(from), "--cluster-to", &id(to)]);
        let output = command.output().expect("the tool of the cluster");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }

    fn set_slot(&self, node: usize, args: &[&str]) {
        let answer = self.nodes[node].cli(&[&["CLUSTER", "SETSLOT"], args].concat());
        assert_eq!(answer, "OK", "CLUSTER SETSLOT {args:?}");
    }

    /// Runs one command on whichever node holds its key; see [`Server::cli`].
    pub fn cli(&self, args: &[&str]) -> String {
        let first = &self.nodes[0];
        let mut command = client(first);
        command.args(["-c", "-p", &first.port().to_string()]).args(args);
        first.run_cli(command)
    }
}

/// The command line client, for the port of a node.
fn client(node: &Server) -> Command {
    let mut command = Command::new(node.flavor().cli());
    command.args(node.tls().iter().flat_map(|tls| tls.cli_args()));
    command
}
