//! `doctor`: what is wrong with a server and its counters. It only reads.

mod aof;
mod expiry;
mod findings;
mod instances;
mod landscape;
mod node;
mod plain;
mod rights;
mod spaces;
mod tokens;

use std::{collections::HashSet, time::Duration};

use distkit::backend::Space;
use serde::Serialize;

use findings::{Code, Finding, Findings, Severity};
use landscape::Landscape;

use crate::{
    args::Doctor,
    error::{Error, Result},
    output::{counted, print, printable},
    server::space,
};

/// For how many prefixes the user's rights are checked: they hardly differ.
const MOST_RIGHTS: usize = 20;

#[derive(Serialize)]
struct Report {
    servers: Vec<String>,
    prefixes: usize,
    findings: Vec<Finding>,
    /// What could not be looked at, and why.
    unchecked: Vec<String>,
}

/// Gives whether nothing is wrong.
pub(crate) async fn run(
    at: &str,
    prefix: Option<&str>,
    options: &Doctor,
    json: bool,
) -> Result<bool> {
    let allowed = options
        .allow
        .iter()
        .map(|name| {
            let known = || Code::ALL.iter().map(|code| code.name()).collect::<Vec<_>>().join(", ");
            Code::by_name(name).ok_or_else(|| {
                Error::Usage(format!("no finding is called {name}; there are {}", known()))
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let only = prefix.map(space).transpose()?;

    let mut found = Findings::default();
    let seen = match look(at, &only, options, &mut found).await {
        Ok(seen) => seen,
        Err(error) => {
            let Some((at, what)) = error.unreachable(at) else { return Err(error) };
            found.add(Code::Unreachable, &at, what);
            Seen::default()
        }
    };
    let (findings, unchecked) = found.into_list(&allowed);
    let report = Report { servers: seen.servers, prefixes: seen.prefixes, findings, unchecked };
    print(json, &report, shown)?;
    let least = if options.strict { Severity::Note } else { Severity::Warning };
    Ok(report.findings.iter().all(|finding| finding.severity > least))
}

/// What was looked at.
#[derive(Default)]
struct Seen {
    servers: Vec<String>,
    prefixes: usize,
}

async fn look(
    at: &str,
    only: &Option<Space>,
    options: &Doctor,
    found: &mut Findings,
) -> Result<Seen> {
    let landscape = Landscape::of(at, found).await?;
    for server in &landscape.nodes {
        if let Some(info) = node::check(server, found).await? {
            aof::check(server, at, &info, found).await?;
        }
    }
    let prefixes = if options.server_only { 0 } else { counters(&landscape, only, found).await? };
    let servers = landscape.nodes.iter().map(|server| server.name.clone()).collect();
    Ok(Seen { servers, prefixes })
}

async fn counters(
    landscape: &Landscape,
    only: &Option<Space>,
    found: &mut Findings,
) -> Result<usize> {
    let mut first = Findings::default();
    let mut prefixes = match spaces::check(landscape, only.as_ref(), &mut first).await {
        Ok(prefixes) => prefixes,
        // A user who may not look is told so, and the rest is reported.
        Err(error @ Error::Refused { .. }) => {
            found.unchecked(format!("the counters: {error}"));
            Vec::new()
        }
        Err(error) => return Err(error),
    };
    if !first.is_empty() {
        // Services go on meanwhile: what is wrong stays wrong.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let mut second = Findings::default();
        // Refused is what the first look was, too.
        match spaces::check(landscape, only.as_ref(), &mut second).await {
            Ok(_) | Err(Error::Refused { .. }) => first = first.confirmed_by(&second),
            Err(error) => return Err(error),
        }
    }
    found.extend(first);
    let count = prefixes.len();
    if prefixes.is_empty() {
        // The rights matter also where there are no counters yet, or none may be looked at.
        prefixes.push(vec![only.clone().map_or_else(|| space("distkit"), Ok)?]);
    }
    for places in prefixes.iter().take(MOST_RIGHTS) {
        // Those of one node hardly differ.
        let mut asked = HashSet::new();
        for space in places {
            if let Some(server) = landscape.owner(space)
                && asked.insert((&server.name, space.shards() > 1))
            {
                rights::check(server, space, found).await?;
            }
        }
    }
    Ok(count)
}

fn shown(report: &Report) -> String {
    let mut lines = Vec::new();
    for finding in &report.findings {
        let severity = match finding.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Note => "note",
        };
        lines.push(format!("{severity}[{}] {}", finding.code, printable(&finding.at)));
        lines.extend(finding.examples.iter().map(|what| format!("    {}", printable(what))));
        if finding.count > finding.examples.len() {
            lines.push(format!("    and {} more", finding.count - finding.examples.len()));
        }
        lines.push(format!("    -> {}", finding.remedy));
    }
    lines.extend(report.unchecked.iter().map(|what| format!("not checked: {}", printable(what))));
    let notes = report.findings.iter().filter(|f| f.severity == Severity::Note).count();
    let mut verdict = match report.findings.len() - notes {
        0 => "nothing is wrong".to_owned(),
        several => counted(several, "finding", "findings"),
    };
    if notes > 0 {
        verdict += &format!(", {}", counted(notes, "note", "notes"));
    }
    lines.push(format!(
        "{verdict}: {}, {} looked at",
        counted(report.servers.len(), "server", "servers"),
        counted(report.prefixes, "prefix", "prefixes"),
    ));
    lines.join("\n")
}
