//! What the program prints.

use std::process::{Command, Output};

fn simulate(picture: &str) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_simulate"))
        .args(["--seed", "3", "--instances", "3", "--hours", "0.05", "--out", picture])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}

#[test]
fn stdout_follows_from_the_arguments_and_stderr_has_the_time() {
    let picture = concat!(env!("CARGO_TARGET_TMPDIR"), "/command.svg");
    let (first, second) = (simulate(picture), simulate(picture));
    let shown = String::from_utf8(first.stdout).unwrap();
    assert!(shown.contains("All rules held.") && shown.contains(picture), "{shown}");
    assert_eq!(String::from_utf8(second.stdout).unwrap(), shown);
    for stderr in [first.stderr, second.stderr] {
        let stderr = String::from_utf8(stderr).unwrap();
        assert!(stderr.lines().any(|line| line.starts_with("Time: ")), "{stderr}");
    }
}
