//! `import`: moves the counters of distkit 0.2 to 0.7 into this version's layout.
//!
//! What the old version left is only read. See `docs/cli.md` for the rules.

mod instances;
mod plain;
mod record;
mod source;

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use distkit::{
    RedisKey,
    backend::{BackendError, Space},
};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use record::{Record, digest};
use source::Source;

use crate::{
    args::{Import, Kind},
    error::{Error, Result},
    output::{print, printable, table},
    server::Server,
    shards::Prefix,
};

/// How many examples are printed of what comes by the thousand.
const EXAMPLES: usize = 10;

/// One family of the new layout, and what goes into it.
struct Plan {
    instance_aware: bool,
    sources: Vec<(Kind, usize)>,
    totals: BTreeMap<RedisKey, i64>,
    record: Option<Record>,
    todo: Vec<RedisKey>,
    /// Why it must not be done.
    refusals: Vec<String>,
    skipped: Vec<String>,
}

#[derive(Serialize)]
struct Report {
    family: &'static str,
    from: Vec<&'static str>,
    counters: usize,
    /// Those that were not there yet.
    to_do: usize,
    state: &'static str,
    refusals: Vec<String>,
    skipped: Vec<String>,
}

/// Gives whether everything is moved, or may be.
pub(crate) async fn run(
    server: &Server,
    prefix: &Prefix,
    options: &Import,
    json: bool,
) -> Result<bool> {
    if prefix.is_sharded() {
        return Err(Error::Barred(format!(
            "the prefix {} has {} shards, and import fills prefixes of one shard only: import into another prefix, \
             and copy that one here with `distkit copy`. Nothing was changed",
            prefix.name(),
            prefix.shards().len()
        )));
    }
    let space = prefix.own();
    let old_prefix = options.old_prefix.as_deref().unwrap_or(space.prefix());
    let old = match &options.old_url {
        Some(url) => Server::connect(url).await?,
        None => server.clone(),
    };
    let mut plans = Vec::new();
    for instance_aware in [false, true] {
        plans.extend(plan(server, &old, space, old_prefix, options, instance_aware).await?);
    }
    // A prefix is moved as a whole or not at all.
    let fine = plans.iter().all(|plan| plan.refusals.is_empty());
    let mut reports = Vec::new();
    for mut plan in plans {
        let finished = plan.record.as_ref().is_some_and(|record| record.done);
        let state = if !plan.refusals.is_empty() {
            "refused"
        } else if finished {
            "done before"
        } else if options.apply && fine {
            apply(server, &old, space, old_prefix, options, &mut plan).await?;
            "done"
        } else {
            "possible"
        };
        reports.push(Report {
            family: if plan.instance_aware { "instance-aware" } else { "plain" },
            from: plan.sources.iter().map(|(kind, _)| kind.name()).collect(),
            counters: plan.totals.len(),
            to_do: plan.todo.len(),
            state,
            refusals: plan.refusals,
            skipped: plan.skipped,
        });
    }
    print(json, &reports, |reports| shown(reports, old_prefix, options.apply))?;
    Ok(fine)
}

async fn sources(
    old: &Server,
    prefix: &str,
    options: &Import,
    instance_aware: bool,
) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for kind in Kind::ALL {
        let wanted = options.from.is_empty() || options.from.contains(&kind);
        if wanted && kind.is_instance_aware() == instance_aware {
            let source = Source::read(old, prefix, kind).await?;
            if !source.is_empty() {
                sources.push(source);
            }
        }
    }
    Ok(sources)
}

/// The totals of all sources, and the keys that more than one of them has, or whose sum does not fit.
fn merged(sources: &[Source], sum: bool) -> (BTreeMap<RedisKey, i64>, Vec<String>) {
    let mut totals: BTreeMap<RedisKey, i64> = BTreeMap::new();
    let mut refusals = Vec::new();
    for (key, total) in sources.iter().flat_map(|source| &source.totals) {
        match totals.get(key) {
            None => {
                totals.insert(key.clone(), *total);
            }
            Some(other) if !sum => refusals.push(format!(
                "{key} is two counters, {other} and {total}, which become one: give --sum, or one type with --from"
            )),
            Some(other) => match other.checked_add(*total) {
                Some(sum) => {
                    totals.insert(key.clone(), sum);
                }
                None => refusals.push(format!("{key}: {other} and {total} do not fit into an i64 together")),
            },
        }
    }
    (totals, refusals)
}

async fn plan(
    server: &Server,
    old: &Server,
    space: &Space,
    old_prefix: &str,
    options: &Import,
    instance_aware: bool,
) -> Result<Option<Plan>> {
    let field = if instance_aware { instances::FIELD } else { plain::FIELD };
    let record = Record::read(server, space, field).await?;
    let sources = sources(old, old_prefix, options, instance_aware).await?;
    if sources.is_empty() {
        return Ok(None);
    }
    let (totals, mut refusals) = merged(&sources, options.sum);
    let mut skipped = Vec::new();
    for source in &sources {
        let unreadable = source.unreadable.iter().map(|(key, what)| format!("{key:?} {what}"));
        if options.skip_unreadable {
            skipped.extend(unreadable);
        } else {
            refusals.extend(
                unreadable.map(|what| format!("{what}: give --skip-unreadable to leave it")),
            );
        }
        let living = source::living(old, old_prefix, source.kind).await?;
        if living > 0 {
            refusals.push(format!(
                "{living} processes of the old version sent a heartbeat within 30 s: stop them first"
            ));
        }
    }
    if record.as_ref().is_some_and(|record| record.digest != digest(&totals)) {
        refusals.push(
            "the old counters have changed since an import began, or other ones are asked for: stop the old \
             processes, distkit clear the prefix, and import anew"
                .to_owned(),
        );
    }
    let todo = if instance_aware {
        let moved = instances::moved(server, space, &totals, record.as_ref()).await?;
        refusals
            .extend(moved.into_iter().map(|what| format!("the new counters have moved: {what}")));
        if record.as_ref().is_some_and(|record| record.done) {
            Vec::new()
        } else {
            totals.keys().cloned().collect()
        }
    } else {
        let standing = plain::standing(server, space, &totals, record.as_ref()).await?;
        let moved = standing.moved.into_iter();
        refusals.extend(moved.map(|what| format!("the new counters have moved: {what}")));
        standing.todo
    };
    let sources = sources.iter().map(|source| (source.kind, source.totals.len())).collect();
    Ok(Some(Plan { instance_aware, sources, totals, record, todo, refusals, skipped }))
}

async fn apply(
    server: &Server,
    old: &Server,
    space: &Space,
    old_prefix: &str,
    options: &Import,
    plan: &mut Plan,
) -> Result<()> {
    let field = if plan.instance_aware { instances::FIELD } else { plain::FIELD };
    let mut record = match plan.record.take() {
        Some(record) => record,
        None => {
            let record = Record::new(&plan.totals);
            // Before the first total: what is there without a record is not ours.
            record.write(server, space, field).await?;
            record
        }
    };
    let progress = Progress::new(plan.totals.len(), plan.totals.len() - plan.todo.len());
    if plan.instance_aware {
        let lease = Duration::from_secs(options.lease_days * 24 * 60 * 60);
        instances::apply(server, space, &plan.totals, lease, &progress).await?;
    } else {
        plain::apply(server, space, &plan.totals, &plan.todo, &mut record, &progress).await?;
        let standing = plain::standing(server, space, &plan.totals, None).await?;
        if let Some(missing) = standing.todo.first() {
            return Err(Error::failed(format!("{missing} was imported, and is gone again")));
        }
        if let Some(moved) = standing.moved.first() {
            return Err(Error::failed(format!("somebody counts under this prefix: {moved}")));
        }
    }
    progress.finish();
    let now = sources(old, old_prefix, options, plan.instance_aware).await?;
    if digest(&merged(&now, options.sum).0) != record.digest {
        return Err(Error::failed(
            "the old counters have changed meanwhile: a process of the old version still counts. Stop it, distkit \
             clear the prefix, and import anew",
        ));
    }
    record.done = true;
    record.write(server, space, field).await
}

/// How far it is, on the terminal; and whether it is to stop.
struct Progress {
    bar: ProgressBar,
    interrupted: Arc<AtomicBool>,
}

impl Progress {
    fn new(all: usize, before: usize) -> Self {
        let bar = ProgressBar::new(all as u64);
        if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} counters, {eta} left")
        {
            bar.set_style(style);
        }
        bar.set_position(before as u64);
        let interrupted = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&interrupted);
        tokio::spawn(async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                flag.store(true, Relaxed);
            }
        });
        Self { bar, interrupted }
    }

    /// After a batch that is recorded. Fails when the operator interrupts.
    fn advance(&self, counters: usize) -> Result<()> {
        self.bar.inc(counters as u64);
        if self.interrupted.load(Relaxed) {
            self.bar.abandon();
            eprintln!(
                "{} of {} counters are there; run it again to go on",
                self.bar.position(),
                self.bar.length().unwrap_or(0)
            );
            return Err(Error::Interrupted);
        }
        Ok(())
    }

    fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

/// Sends a request that may be applied twice until it is answered, for a dozen seconds or longer.
async fn again<T, F, A>(mut attempt: F) -> Result<T>
where
    F: FnMut() -> A,
    A: Future<Output = std::result::Result<T, BackendError>>,
{
    let mut pause = Duration::from_millis(50);
    loop {
        match attempt().await {
            Err(BackendError::NotApplied(_) | BackendError::OutcomeUnknown(_))
                if pause < Duration::from_secs(10) =>
            {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            answer => return Ok(answer?),
        }
    }
}

fn shown(reports: &[Report], old_prefix: &str, applied: bool) -> String {
    if reports.is_empty() {
        return format!(
            "nothing of distkit 0.2 to 0.7 is under the prefix {}",
            printable(old_prefix)
        );
    }
    let row = |report: &Report| {
        vec![
            report.family.to_owned(),
            report.from.join(", "),
            report.counters.to_string(),
            report.to_do.to_string(),
            report.state.to_owned(),
        ]
    };
    let mut lines =
        vec![table(&["family", "from", "counters", "to do", "state"], reports.iter().map(row))];
    for (title, list) in [
        ("refused", reports.iter().flat_map(|report| &report.refusals).collect::<BTreeSet<_>>()),
        ("left behind", reports.iter().flat_map(|report| &report.skipped).collect()),
    ] {
        let count = list.len();
        lines.extend(
            list.into_iter().take(EXAMPLES).map(|what| format!("{title}: {}", printable(what))),
        );
        if count > EXAMPLES {
            lines.push(format!("{title}: and {} more", count - EXAMPLES));
        }
    }
    if !applied && reports.iter().any(|report| report.state == "possible") {
        lines.push("nothing was changed: --apply does it".to_owned());
    }
    lines.join("\n")
}
