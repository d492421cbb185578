//! Runs a command while a private server is up: `with-server valkey some-command --url {url}`.
//!
//! `{url}` in the command's arguments is replaced by the server's address, which is in the environment as
//! `DISTKIT_URL` too. Ends with the command's exit code.

use std::process::{Command, ExitCode};

use distkit_testkit::Server;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let server = match args.next().as_deref() {
        Some("redis") => Server::redis().start(),
        Some("valkey") => Server::valkey().start(),
        _ => return usage(),
    };
    let Some(program) = args.next() else { return usage() };
    let url = server.url();
    let status = Command::new(&program)
        .args(args.map(|arg| arg.replace("{url}", &url)))
        .env("DISTKIT_URL", &url)
        .status();
    match status {
        Ok(status) => {
            ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
        }
        Err(error) => {
            eprintln!("{program}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: with-server redis|valkey COMMAND [ARGUMENT or {{url}}]...");
    ExitCode::from(2)
}
