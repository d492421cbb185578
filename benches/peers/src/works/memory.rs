//! What very many counters take in the process, each contender in a process of its own.

use std::process::{Command, Stdio};

use distkit_testkit::Server;

use super::Effort;
use crate::{contenders::Kind, table::Table};

const PROGRAM: &str = "peers-memory";

pub(super) fn run(effort: &Effort) -> Vec<Table> {
    let measured = |kind: &Kind| kind.buffers() && !kind.is_variant() || *kind == Kind::Limiter;
    vec![Table {
        title: "Memory".to_owned(),
        about: format!(
            "Bytes a counter that are allocated in the process beyond the counters' names, when 64 tasks add once to each \
             of {} counters: at most meanwhile, and 1 s after the server has them all.",
            effort.keys
        ),
        columns: vec!["", "at most, B a counter", "afterwards, B a counter"],
        rows: Kind::ALL.into_iter().filter(measured).map(|kind| ask(kind, effort.keys)).collect(),
    }]
}

/// What the other program prints.
fn ask(kind: Kind, keys: usize) -> Vec<String> {
    let server = Server::redis().start();
    let path = std::env::current_exe().expect("this program has a path").with_file_name(PROGRAM);
    assert!(path.exists(), "{} is missing: cargo build --release -p distkit-peers", path.display());
    let mut command = Command::new(path);
    command.args([kind.name(), &server.url(), &keys.to_string()]).stderr(Stdio::inherit());
    let output = command.output().expect("it can be run");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut words = text.split_whitespace();
    let mut cell = || words.next().unwrap_or("failed").to_owned();
    vec![kind.name().to_owned(), cell(), cell()]
}
