//! `distkit`, the tool for those who operate services with distributed counters.
#![forbid(unsafe_code)]

mod args;
mod copy;
mod counters;
mod doctor;
mod error;
mod import;
mod listing;
mod members;
mod output;
mod server;
mod shards;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command, Global};
use distkit::RedisKey;
use error::{Error, Result, chain};
use server::Server;
use shards::Prefix;

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
    let prefix = RedisKey::new(global.prefix.as_deref().unwrap_or("distkit"))?;
    let server = Server::connect(at).await?;
    let prefix = Prefix::of(&server, prefix).await?;
    match command {
        Command::Get { keys, family } => {
            return counters::get(&server, &prefix, &keys, family.instance_aware, json).await;
        }
        Command::Set { key, value, family, on } => {
            let on = family.instance_aware.then_some(on.as_deref());
            counters::set(&server, &prefix, &key, value, on, json).await?;
        }
        Command::Ls(list) => return listing::ls(&server, &prefix, &list, json).await,
        Command::Slices { key } => counters::slices(&server, &prefix, &key, json).await?,
        Command::Instances => counters::instances(&server, &prefix, json).await?,
        Command::Clear { family, yes } => {
            counters::clear(&server, &prefix, family.instance_aware, yes, json).await?;
        }
        Command::Copy(options) => copy::run(&server, &prefix, &options, json).await?,
        Command::Import(options) => return import::run(&server, &prefix, &options, json).await,
        Command::Doctor(_) => {}
    }
    Ok(true)
}
