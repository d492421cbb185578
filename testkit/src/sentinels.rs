use std::{
    fs,
    process::{Child, Command},
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{Server, ServerBuilder, ports::free_port, spawn, wait_until};

/// What the sentinels call the service.
const SERVICE: &str = "main";

/// A primary with two replicas, and three sentinels that watch them; gone when dropped.
#[derive(Debug)]
pub struct Sentinels {
    servers: Vec<Server>,
    watchers: Vec<Watcher>,
}

#[derive(Debug)]
struct Watcher {
    child: Child,
    /// For clients.
    port: u16,
    /// For questions of this kit: the same, or one without TLS, which costs a command line client less.
    plain_port: u16,
    _dir: TempDir,
}

impl Sentinels {
    /// Three of these servers, the first one as the primary. Returns when the sentinels know all of them and one
    /// another.
    ///
    /// # Panics
    ///
    /// When that takes more than 30 seconds.
    pub fn of(builder: ServerBuilder) -> Self {
        let servers: Vec<Server> = (0..3).map(|_| builder.clone().start()).collect();
        let primary = servers[0].port();
        for replica in &servers[1..] {
            assert_eq!(replica.cli(&["REPLICAOF", "127.0.0.1", &primary.to_string()]), "OK");
            wait_until("a replica that is up to date", || {
                replica.cli(&["INFO", "replication"]).contains("master_link_status:up")
            });
        }
        let watchers = (0..3).map(|_| watch(&servers[0], primary)).collect();
        let all = Self { servers, watchers };
        wait_until("sentinels that know everything", || {
            // They say hello every two seconds: asking without pause would only take their CPU.
            std::thread::sleep(Duration::from_millis(100));
            (0..3).all(|watcher| {
                let state = all.ask(watcher, &["SENTINEL", "MASTER", SERVICE]);
                let lines: Vec<&str> = state.lines().collect();
                let is = |name: &str, value: &str| {
                    lines.chunks(2).any(|pair| pair.first() == Some(&name) && pair[1] == value)
                };
                is("num-slaves", "2") && is("num-other-sentinels", "2") && is("flags", "master")
            })
        });
        all
    }

    /// The URL, with `scheme` in front: `redis-sentinel` or `redis-sentinel+fred`, or `rediss-...` over TLS.
    pub fn url(&self, scheme: &str) -> String {
        let [first, others @ ..] = &*self.watchers else { unreachable!("there are three") };
        let nodes: String =
            others.iter().map(|other| format!("&node=127.0.0.1:{}", other.port)).collect();
        format!("{scheme}://127.0.0.1:{}/0?sentinelServiceName={SERVICE}{nodes}", first.port)
    }

    /// The primary, as most sentinels see it.
    pub fn primary(&self) -> &Server {
        let named = |watcher| {
            let answer = self.ask(watcher, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE]);
            let port = answer.lines().nth(1).and_then(|port| port.parse::<u16>().ok());
            self.servers.iter().position(|server| Some(server.port()) == port)
        };
        let seen = [named(0), named(1), named(2)];
        let most = if seen[1] == seen[2] { seen[1] } else { seen[0] };
        &self.servers[most.expect("a server of ours")]
    }

    /// All three servers.
    pub fn servers(&self) -> &[Server] {
        &self.servers
    }

    /// Demotes the primary in favour of a replica, and waits until the sentinels agree and it is a replica.
    ///
    /// # Panics
    ///
    /// When that takes more than a minute.
    pub fn fail_over(&self) {
        let old = self.primary().port();
        // Sentinels that got no CPU for a while give a failover up.
        for attempt in 0..6 {
            let _ = self.ask(attempt % 3, &["SENTINEL", "FAILOVER", SERVICE]);
            let began = Instant::now();
            while began.elapsed() < Duration::from_secs(10) {
                if self.has_another_primary(old) {
                    return self.wait_for_demotion(old);
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        panic!("six failovers were given up");
    }

    /// Waits until the server that listens on `port` is a replica.
    ///
    /// # Panics
    ///
    /// After 30 seconds.
    pub fn wait_for_demotion(&self, port: u16) {
        wait_until("a demoted primary", || self.is(port, "slave"));
    }

    /// Waits until the sentinels agree on a primary that does not listen on `port`.
    ///
    /// # Panics
    ///
    /// After 30 seconds.
    pub fn wait_for_another_primary(&self, port: u16) {
        wait_until("another primary", || self.has_another_primary(port));
    }

    fn has_another_primary(&self, port: u16) -> bool {
        let primary = self.primary().port();
        primary != port && self.is(primary, "master")
    }

    fn is(&self, port: u16, role: &str) -> bool {
        let server = self.servers.iter().find(|server| server.port() == port);
        server.is_some_and(|server| server.role().starts_with(role))
    }

    fn ask(&self, watcher: usize, args: &[&str]) -> String {
        let port = self.watchers[watcher].plain_port;
        let mut command = Command::new(self.servers[0].flavor().cli());
        command.args(["-p", &port.to_string()]).args(args);
        let output = command.output().expect("the command line client");
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }
}

fn watch(server: &Server, primary: u16) -> Watcher {
    let dir = tempfile::Builder::new().prefix("distkit-").tempdir().expect("a directory");
    let (port, path) = (free_port(), dir.path().join("sentinel.conf"));
    let plain_port = if server.tls().is_some() { free_port() } else { port };
    let mut config = format!("port {plain_port}\n");
    if let Some(tls) = server.tls() {
        config += &format!("tls-port {port}\ntls-replication yes\n");
        config.extend(tls.server_files().iter().map(|(name, file)| format!("{name} {file}\n")));
    }
    config += &format!(
        "bind 127.0.0.1\ndir {}\n\
         sentinel monitor {SERVICE} 127.0.0.1 {primary} 2\n\
         sentinel down-after-milliseconds {SERVICE} 2000\n\
         sentinel failover-timeout {SERVICE} 5000\n\
         sentinel parallel-syncs {SERVICE} 2\n",
        dir.path().display()
    );
    fs::write(&path, config).expect("a file in a temporary directory");
    // A sentinel is the server's own program in another mode.
    let mut command = spawn::command(server.flavor().server());
    command.arg(&path).arg("--sentinel");
    let child = spawn::spawn(command).expect("a sentinel");
    Watcher { child, port, plain_port, _dir: dir }
}

impl Drop for Sentinels {
    fn drop(&mut self) {
        for watcher in &mut self.watchers {
            let _ = watcher.child.kill();
            let _ = watcher.child.wait();
        }
    }
}
