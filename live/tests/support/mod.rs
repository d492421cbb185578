//! Processes of the service, as the tests start and end them.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part")]

use std::{
    io::{BufRead, BufReader},
    process::{Child, ExitStatus, Stdio},
    time::Duration,
};

use distkit_testkit::{Server, command_tied_to_this_thread};
use serde_json::Value;
use tokio::time::{Instant, sleep};

/// A lease for tests that wait for its end; long enough for the heartbeats of a busy machine.
pub const SHORT: &str = "3s";

/// A lease that expires in no test.
pub const LONG: &str = "1h";

/// Whatever takes longer has failed. No successful test waits that long.
const DEADLINE: Duration = Duration::from_secs(30);

/// A process that serves. It is killed when this is dropped.
pub struct Process {
    child: Child,
    pub url: String,
}

impl Process {
    /// Starts one by this name, and returns when it serves.
    pub fn start(server: &Server, name: &str, lease: &str, args: &[&str]) -> Self {
        let url = server.url();
        let mut command = command_tied_to_this_thread(env!("CARGO_BIN_EXE_distkit-live"));
        command.args(["--listen", "127.0.0.1:0", "--poll", "100ms", "--lease", lease]);
        command.args(["--url", &url, "--name", name]).args(args);
        command.env_remove("DISTKIT_URL").stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").map(str::to_owned);
        let Some(url) = url else {
            let _ = child.kill();
            panic!("{name} does not serve: {line:?}, {:?}", child.wait());
        };
        Self { child, url }
    }

    /// SIGKILL, as the OOM killer sends it.
    pub fn kill_9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; gives the exit status.
    pub async fn terminate(&mut self) -> ExitStatus {
        let id = self.child.id().to_string();
        let sent = std::process::Command::new("sh").args(["-c", "kill -TERM \"$0\"", &id]).status();
        assert!(sent.unwrap().success());
        self.ended().await
    }

    pub async fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the end of a process", async || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap()
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        json(client().get(format!("{}{path}", self.url))).await
    }

    pub async fn opens(&self, n: i64) {
        let path = format!("{}/connections?n={n}", self.url);
        let (status, answer) = json(client().post(path)).await;
        assert_eq!(status, 200, "{answer}");
    }

    /// Waits until this process reports exactly these living instances with these connections.
    pub async fn shows(&self, expected: Value) {
        let mut seen = Value::Null;
        let sum: i64 = expected.as_object().unwrap().values().filter_map(Value::as_i64).sum();
        wait_until(&format!("{expected} in {}", self.url), async || {
            let (_, stats) = self.get("/stats").await;
            seen = stats["latest"].clone();
            seen["slices"] == expected
        })
        .await;
        assert_eq!(seen["total"], sum, "{seen}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn client() -> reqwest::Client {
    reqwest::Client::builder().timeout(DEADLINE).build().unwrap()
}

/// Status and body of an answer, which must be JSON.
pub async fn json(request: reqwest::RequestBuilder) -> (u16, Value) {
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

pub async fn wait_until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !condition().await {
        assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
