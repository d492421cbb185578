use std::{
    ffi::OsStr,
    fs,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{
    Certificates, DEADLINE, Flavor, aof, clock::Clock, ports::free_port, spawn, wait_until,
};

/// How a server is to be started. Made by [`Server::redis`] and [`Server::valkey`].
#[derive(Debug, Clone)]
pub struct ServerBuilder {
    flavor: Flavor,
    append_only: bool,
    cluster: bool,
    manual_clock: bool,
    password: Option<String>,
    tls: Option<Arc<Certificates>>,
    args: Vec<String>,
}

impl ServerBuilder {
    fn new(flavor: Flavor) -> Self {
        Self {
            flavor,
            append_only: false,
            cluster: false,
            manual_clock: false,
            password: None,
            tls: None,
            args: Vec::new(),
        }
    }

    /// Every write is on disk before it is answered, so that it outlives [`Server::kill_9`].
    pub fn append_only_always(mut self) -> Self {
        self.append_only = true;
        self
    }

    /// The server's wall clock stands still until [`Server::advance`] moves it, also over a restart: `TIME`
    /// and everything that expires follow it. Its timers go on.
    ///
    /// Not for clusters, whose nodes judge one another by the clock. On Linux only.
    pub fn manual_clock(mut self) -> Self {
        self.manual_clock = true;
        self
    }

    /// Clients must give this password. It goes into the URL as it is: letters and digits only.
    pub fn password(mut self, password: &str) -> Self {
        assert!(
            !password.is_empty() && password.chars().all(|c| c.is_ascii_alphanumeric()),
            "a password of letters and digits, not {password:?}"
        );
        self.password = Some(password.to_owned());
        self
    }

    /// The port speaks TLS alone, and clients must show a certificate.
    pub fn tls(mut self, certificates: &Arc<Certificates>) -> Self {
        self.tls = Some(certificates.clone());
        self
    }

    /// One more argument for the server's command line, such as `--maxmemory` and then `10mb`.
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// More arguments for the server's command line.
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|&arg| arg.to_owned()));
        self
    }

    pub(crate) fn cluster(mut self) -> Self {
        assert!(!self.manual_clock, "the nodes of a cluster judge one another by the clock");
        self.cluster = true;
        self
    }

    /// Starts the server and returns when it answers.
    ///
    /// # Panics
    ///
    /// When it is not installed, or does not answer within 30 seconds.
    pub fn start(self) -> Server {
        // A port found free may be gone when the server asks for it.
        for _ in 0..10 {
            let dir = tempfile::Builder::new()
                .prefix("distkit-")
                .tempdir()
                .expect("a temporary directory");
            let clock = self
                .manual_clock
                .then(|| Clock::new(dir.path()).expect("a file in a temporary directory"));
            let server = Server {
                dir,
                clock,
                port: free_port(),
                bus_port: self.cluster.then(free_port),
                builder: Box::new(self.clone()),
                child: Mutex::new(None),
            };
            match server.launch() {
                Ok(()) => return server,
                Err(log) if log.contains("Address already in use") => {}
                Err(log) => panic!("{} ended while starting:\n{log}", self.flavor.server()),
            }
        }
        panic!("{}: ten free ports in a row were taken", self.flavor.server());
    }
}

/// A running server, gone when dropped.
#[derive(Debug)]
pub struct Server {
    // Before `dir`: a server must not outlive its directory. `Drop` sees to it; the order is for readers.
    child: Mutex<Option<Child>>,
    dir: TempDir,
    clock: Option<Clock>,
    port: u16,
    bus_port: Option<u16>,
    builder: Box<ServerBuilder>,
}

impl Server {
    /// A private Redis.
    pub fn redis() -> ServerBuilder {
        ServerBuilder::new(Flavor::Redis)
    }

    /// A private Valkey.
    pub fn valkey() -> ServerBuilder {
        ServerBuilder::new(Flavor::Valkey)
    }

    /// Which of the two it is.
    pub fn flavor(&self) -> Flavor {
        self.builder.flavor
    }

    /// The address for a client, with the password if there is one.
    pub fn url(&self) -> String {
        let scheme = if self.builder.tls.is_some() { "rediss" } else { "redis" };
        match &self.builder.password {
            Some(password) => format!("{scheme}://:{password}@127.0.0.1:{}/", self.port),
            None => format!("{scheme}://127.0.0.1:{}/", self.port),
        }
    }

    /// Has the server read its certificates again, after [`Certificates::rotate`]. Connections in use stay.
    ///
    /// # Panics
    ///
    /// When it does not speak TLS, or refuses.
    pub fn reload_certificates(&self) {
        let tls = self.builder.tls.as_ref().expect("a server that speaks TLS");
        let files = tls.server_files();
        let mut command = vec!["CONFIG", "SET"];
        command.extend(files.iter().flat_map(|(name, file)| [*name, file]));
        assert_eq!(self.cli(&command), "OK");
    }

    pub(crate) fn tls(&self) -> Option<&Certificates> {
        self.builder.tls.as_deref()
    }

    /// The port on 127.0.0.1, the same after a restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn bus_port(&self) -> Option<u16> {
        self.bus_port
    }

    /// The unix socket, the same after a restart.
    pub fn unix_path(&self) -> PathBuf {
        self.dir.path().join("sock")
    }

    /// The server's own directory: its log (`log`) and its files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The server's process, or none when it is not running.
    pub fn pid(&self) -> Option<u32> {
        self.child().as_ref().map(Child::id)
    }

    /// Runs one command with `redis-cli` or `valkey-cli`; gives what it printed, without the last newline.
    ///
    /// An error reply is printed too and so comes back as text (`ERR ...`).
    ///
    /// # Panics
    ///
    /// When there is no connection.
    pub fn cli<S: AsRef<OsStr>>(&self, args: &[S]) -> String {
        let mut command = Command::new(self.builder.flavor.cli());
        command.arg("-s").arg(self.unix_path()).args(args);
        self.run_cli(command)
    }

    /// What `ROLE` answers, or nothing: a demoted server closes its connections.
    pub(crate) fn role(&self) -> String {
        let mut command = Command::new(self.builder.flavor.cli());
        command.arg("-s").arg(self.unix_path()).arg("ROLE");
        let output = command.output().expect("the command line client");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn run_cli(&self, mut command: Command) -> String {
        let program = self.builder.flavor.cli();
        if let Some(password) = &self.builder.password {
            command.env("REDISCLI_AUTH", password).env("VALKEYCLI_AUTH", password);
        }
        let output = command
            .output()
            .unwrap_or_else(|error| panic!("{}", self.builder.flavor.explain(program, &error)));
        let printed = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{program} failed: {printed}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        printed.trim_end_matches('\n').to_owned()
    }

    /// Kills the process as a crash would; returns when it is gone. Nothing if it is not running.
    pub fn kill_9(&self) {
        if let Some(mut child) = self.child().take() {
            // Fails only if the process is gone already, which is what is wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Ends the process in an orderly way; returns when it is gone. Nothing if it is not running.
    pub fn stop(&self) {
        let child = self.child().take();
        if let Some(mut child) = child {
            signal(&child, "TERM");
            let start = Instant::now();
            while child.try_wait().expect("a child to wait for").is_none() {
                if start.elapsed() > DEADLINE {
                    let _ = child.kill();
                    let _ = child.wait();
                    panic!("{} did not end on SIGTERM", self.builder.flavor.server());
                }
                thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// Starts it again on the same port and socket and in the same directory, after a [`kill_9`](Self::kill_9)
    /// if it is running; returns when it answers.
    ///
    /// What it held is there again only with [`ServerBuilder::append_only_always`]; a transaction that the kill
    /// tore is not, at this restart or a later one.
    pub fn restart(&self) {
        self.kill_9();
        aof::mend(self.builder.flavor, self.dir());
        let start = Instant::now();
        while let Err(log) = self.launch() {
            assert!(start.elapsed() < DEADLINE, "no restart on port {}:\n{log}", self.port);
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Stops the process from running without closing its connections: a server that hangs.
    pub fn freeze(&self) {
        signal(self.child().as_ref().expect("a running server"), "STOP");
    }

    /// Ends [`freeze`](Self::freeze).
    pub fn thaw(&self) {
        signal(self.child().as_ref().expect("a running server"), "CONT");
    }

    /// Moves the server's clock forward. The next command that it runs sees the new time.
    ///
    /// # Panics
    ///
    /// When it has no [`manual_clock`](ServerBuilder::manual_clock).
    pub fn advance(&self, step: Duration) {
        self.clock().advance(step).expect("a write to the clock's file");
    }

    /// Moves the server's clock back, as an administrator or a time service may.
    ///
    /// # Panics
    ///
    /// When it has no [`manual_clock`](ServerBuilder::manual_clock).
    pub fn go_back(&self, step: Duration) {
        self.clock().go_back(step).expect("a write to the clock's file");
    }

    /// The time since 1970 that the server's clock shows.
    ///
    /// # Panics
    ///
    /// When it has no [`manual_clock`](ServerBuilder::manual_clock).
    pub fn now(&self) -> Duration {
        self.clock().now()
    }

    fn clock(&self) -> &Clock {
        self.clock.as_ref().expect("a server with a clock to move")
    }

    fn child(&self) -> std::sync::MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn command_line(&self) -> Vec<String> {
        let mut args: Vec<String> = Vec::new();
        let mut set =
            |name: &str, value: &str| args.extend([format!("--{name}"), value.to_owned()]);
        let dir = self.dir.path().to_string_lossy();
        set("bind", "127.0.0.1");
        if let Some(tls) = &self.builder.tls {
            set("port", "0");
            set("tls-port", &self.port.to_string());
            set("tls-auth-clients", "yes");
            set("tls-replication", "yes");
            set("tls-cluster", "yes");
            tls.server_files().iter().for_each(|(name, file)| set(name, file));
        } else {
            set("port", &self.port.to_string());
        }
        set("unixsocket", &self.unix_path().to_string_lossy());
        set("dir", &dir);
        set("logfile", &self.log_path().to_string_lossy());
        set("daemonize", "no");
        set("save", "");
        // DEBUG SLEEP and the like, for tests of slow servers.
        set("enable-debug-command", "yes");
        if self.builder.append_only {
            set("appendonly", "yes");
            set("appendfsync", "always");
        }
        if let Some(bus_port) = self.bus_port {
            set("cluster-enabled", "yes");
            set("cluster-port", &bus_port.to_string());
            set("cluster-node-timeout", "5000");
        }
        if let Some(password) = &self.builder.password {
            set("requirepass", password);
        }
        args.extend(self.builder.args.iter().cloned());
        args
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    /// Starts the process and waits until it answers; gives its log if it ends first.
    fn launch(&self) -> Result<(), String> {
        let flavor = self.builder.flavor;
        // Only this start's log: an old one may hold an old reason.
        let _ = fs::remove_file(self.log_path());
        if !installed(flavor.server()) {
            let error = std::io::ErrorKind::NotFound.into();
            panic!("{}", flavor.explain(flavor.server(), &error));
        }
        let mut command = spawn::command(flavor.server());
        command.args(self.command_line());
        if let Some(clock) = &self.clock {
            command.env("LD_PRELOAD", Clock::library()).env("DISTKIT_CLOCK", clock.path());
        }
        let child = spawn::spawn(command)
            .unwrap_or_else(|error| panic!("{}", flavor.explain(flavor.server(), &error)));
        *self.child() = Some(child);

        let mut ended = false;
        wait_until("a server that answers PING", || {
            let mut child = self.child();
            ended = child
                .as_mut()
                .is_some_and(|child| child.try_wait().expect("a child to wait for").is_some());
            if ended {
                *child = None;
            }
            ended || self.ping()
        });
        if !ended {
            return Ok(());
        }
        let log = fs::read_to_string(self.log_path()).unwrap_or_default();
        Err(format!("{log}\ncommand line: {:?}", self.command_line()))
    }

    /// Whether it answers and has loaded its data. Over the unix socket, which nobody else can be behind;
    /// the server opens it after the port.
    fn ping(&self) -> bool {
        let Ok(mut stream) = UnixStream::connect(self.unix_path()) else { return false };
        let mut request = String::new();
        if let Some(password) = &self.builder.password {
            request = format!("AUTH {password}\r\n");
        }
        request.push_str("PING\r\nQUIT\r\n");
        let mut answer = String::new();
        stream.set_read_timeout(Some(Duration::from_secs(1))).is_ok()
            && stream.write_all(request.as_bytes()).is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.contains("+PONG")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill_9();
    }
}

/// `setpriv` would start and then fail, so the spawn alone does not tell.
fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

fn signal(child: &Child, name: &str) {
    // A shell's own `kill`: std can only send SIGKILL.
    let status = Command::new("sh")
        .args(["-c", "kill -s \"$0\" \"$1\"", name, &child.id().to_string()])
        .status()
        .expect("sh to send a signal with");
    assert!(status.success(), "SIG{name} to {} failed", child.id());
}
