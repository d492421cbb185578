//! What a process that holds a server leaves behind, and what it says when there is none to start.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use distkit_testkit::wait_until;

fn with_server() -> Command {
    Command::new(env!("CARGO_BIN_EXE_with-server"))
}

#[test]
fn the_command_gets_the_address_and_gives_the_exit_code() {
    let output = with_server()
        .args([
            "redis",
            "sh",
            "-c",
            "redis-cli -u \"$0\" INCR a && echo \"$DISTKIT_URL\"; exit 7",
            "{url}",
        ])
        .output()
        .unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let (first, second) = printed.split_once('\n').unwrap();
    assert_eq!(first, "1");
    assert!(second.starts_with("redis://127.0.0.1:"), "{second}");
    assert_eq!(output.status.code(), Some(7));
}

#[test]
fn a_missing_server_is_explained() {
    for (flavor, package) in [("redis", "redis-server"), ("valkey", "valkey-server")] {
        let output =
            with_server().args([flavor, "true"]).env("PATH", "/nonexistent").output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        assert!(said.contains(&format!("{package} is not installed (apt-get install")), "{said}");
        assert!(said.contains("scripts/test"), "{said}");
    }
}

/// No destructor runs then; the kernel has to see to it.
#[test]
fn a_killed_process_leaves_no_server() {
    if Command::new("setpriv").args(["--pdeathsig", "KILL", "true"]).status().is_err() {
        return eprintln!("skipped: needs setpriv, without which this is not promised");
    }
    let mut holder = with_server()
        .args(["redis", "sh", "-c", "redis-cli -u \"$0\" CONFIG GET dir; exec cat", "{url}"])
        .stdin(Stdio::piped()) // `cat` ends with this test, whatever becomes of the rest.
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "dir");
    let dir = lines.next().unwrap().unwrap();

    let servers = || servers_in(Path::new(&dir));
    assert_eq!(servers(), 1);
    holder.kill().unwrap();
    holder.wait().unwrap();
    wait_until("the server to be gone", || servers() == 0);
    fs::remove_dir_all(dir).unwrap();
}

/// How many processes work in `dir`.
fn servers_in(dir: &Path) -> usize {
    fs::read_dir("/proc")
        .expect("Linux")
        .flatten()
        .filter(|entry| fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd == dir))
        .count()
}
