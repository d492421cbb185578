//! `distkit`, the tool for those who operate services with distributed counters.
#![forbid(unsafe_code)]

mod args;
mod counters;
mod doctor;
mod error;
mod import;
mod listing;
mod members;
mod output;
mod server;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command, Global};
use error::{Error, Result, chain};
use server::{Server, space};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let json = cli.global.json;
    match run(cli).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            let text = chain(&error);
            if json {
                eprintln!("{}", serde_json::json!({ "error": text }));
            } else {
                eprintln!("error: {}", output::printable(&text));
            }
            ExitCode::from(error.status())
        }
    }
}

fn url(global: &Global) -> Result<&str> {
    let missing = || Error::Usage("which server? Give --url, or set DISTKIT_URL".to_owned());
    global.url.as_deref().ok_or_else(missing)
}

/// Gives whether all is well.
async fn run(cli: Cli) -> Result<bool> {
    let Cli { global, command } = cli;
    let json = global.json;
    if let Command::Doctor(options) = &command {
        let at = match &options.at {
            Some(at) => at,
            None => url(&global)?,
        };
        let prefix = options.of.as_deref().or(global.prefix.as_deref());
        return doctor::run(at, prefix, options, json).await;
    }
    let at = url(&global)?;
    let space = space(global.prefix.as_deref().unwrap_or("distkit"))?;
    let server = Server::connect(at).await?;
    match command {
        Command::Get { keys, family } => {
            return counters::get(&server, &space, &keys, family.instance_aware, json).await;
        }
        Command::Set { key, value, family, on } => {
            let on = family.instance_aware.then_some(on.as_deref());
            counters::set(&server, &space, &key, value, on, json).await?;
        }
        Command::Ls(list) => return listing::ls(&server, &space, &list, json).await,
        Command::Slices { key } => counters::slices(&server, &space, &key, json).await?,
        Command::Instances => counters::instances(&server, &space, json).await?,
        Command::Clear { family, yes } => {
            counters::clear(&server, &space, family.instance_aware, yes, json).await?;
        }
        Command::Import(options) => return import::run(&server, &space, &options, json).await,
        Command::Doctor(_) => {}
    }
    Ok(true)
}
