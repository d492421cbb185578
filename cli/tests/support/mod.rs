//! Runs the binary, and makes what it looks at.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part")]

use std::process::{Command, Stdio};

use distkit::RedisKey;
use serde_json::Value;

pub struct Run {
    pub status: i32,
    pub out: String,
    pub errors: String,
}

impl Run {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out)
            .unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.errors))
    }

    /// The codes of doctor's findings.
    pub fn codes(&self) -> Vec<String> {
        let report = self.json();
        let findings = report["findings"].as_array().unwrap();
        findings.iter().map(|finding| finding["code"].as_str().unwrap().to_owned()).collect()
    }

    pub fn ok(self) -> Self {
        assert_eq!(self.status, 0, "{}{}", self.out, self.errors);
        self
    }
}

pub fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_distkit"));
    command.args(args).stdin(Stdio::null());
    command.env_remove("DISTKIT_URL").env_remove("DISTKIT_PREFIX");
    command
}

pub fn distkit(args: &[&str]) -> Run {
    let output = command(args).output().unwrap();
    Run {
        status: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        errors: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The same from within a runtime whose tasks go on meanwhile.
pub async fn beside(args: &[&str]) -> Run {
    let args: Vec<String> = args.iter().map(ToString::to_string).collect();
    let run = move || distkit(&args.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(run).await.unwrap()
}

pub fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}
