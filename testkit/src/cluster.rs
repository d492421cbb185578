use std::process::Command;

use crate::{Server, ServerBuilder, wait_until};

/// Three masters on loopback that share the slots, without replicas; gone when dropped.
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
        let builder = builder.cluster();
        let nodes: Vec<Server> = (0..3).map(|_| builder.clone().start()).collect();

        let mut create = Command::new(nodes[0].flavor().cli());
        create.args(["--cluster", "create"]);
        create.args(nodes.iter().map(|node| {
            let bus_port = node.bus_port().expect("a cluster's node has one");
            format!("127.0.0.1:{}@{bus_port}", node.port())
        }));
        create.args(["--cluster-replicas", "0", "--cluster-yes"]);
        nodes[0].run_cli(create);

        let cluster = Self { nodes };
        cluster.wait_ok();
        cluster
    }

    /// Waits until every node says `cluster_state:ok` and knows the two others, as after a restart of one.
    ///
    /// # Panics
    ///
    /// After 30 seconds.
    pub fn wait_ok(&self) {
        wait_until("a cluster in order", || {
            self.nodes.iter().all(|node| {
                let info = node.cli(&["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok")
                    && info.contains("cluster_known_nodes:3")
                    && info.contains("cluster_size:3")
            })
        });
    }

    /// The three servers.
    pub fn nodes(&self) -> &[Server] {
        &self.nodes
    }

    /// The address of each node.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(Server::url).collect()
    }

    /// Runs one command on whichever node holds its key; see [`Server::cli`].
    pub fn cli(&self, args: &[&str]) -> String {
        let first = &self.nodes[0];
        let mut command = Command::new(first.flavor().cli());
        command.args(["-c", "-p", &first.port().to_string()]).args(args);
        first.run_cli(command)
    }
}
