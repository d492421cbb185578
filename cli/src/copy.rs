//! `copy`: a prefix to another one, which may have another number of shards or be on another server.

use distkit::{
    RedisKey,
    backend::{Space, operator},
    counter::{CounterOptions, copy_prefix, copy_prefix_without_windows},
};
use serde::Serialize;

use crate::{
    args::Copy,
    counters::confirm,
    error::{Error, Result},
    members,
    output::{counted, print},
    server::Server,
    shards::{Prefix, side_by_side},
};

#[derive(Serialize)]
struct Report<'a> {
    from: &'a str,
    from_shards: u16,
    to: &'a str,
    to_shards: u16,
    counters: u64,
    /// Before a copy, those of expired instances are among them.
    instance_aware_counters: u64,
    /// The living ones.
    instances: u64,
    /// The source has tokens, which stay behind.
    tokens: bool,
    /// The source has windows that are not over, which stay behind.
    windows: bool,
    copied: bool,
    #[serde(skip)]
    leave_windows: bool,
}

/// What a prefix holds.
struct Content {
    counters: u64,
    instance_aware_counters: u64,
    instances: u64,
    tokens: bool,
    windows: bool,
}

pub(crate) async fn run(
    server: &Server,
    prefix: &Prefix,
    options: &Copy,
    json: bool,
) -> Result<()> {
    let other = match &options.to_url {
        Some(url) => Server::connect(url).await?,
        None => server.clone(),
    };
    let name = RedisKey::new(&options.to)?;
    if name == *prefix.name() && options.to_url.is_none() {
        return Err(Error::Usage("a prefix cannot be copied to itself".to_owned()));
    }
    let shards = number_of_shards(&other, &name, prefix, options.shards).await?;
    let content = content(server, prefix).await?;
    let mut report = Report {
        from: prefix.name(),
        from_shards: prefix.count(),
        to: &name,
        to_shards: shards,
        counters: content.counters,
        instance_aware_counters: content.instance_aware_counters,
        instances: content.instances,
        tokens: content.tokens,
        windows: content.windows,
        copied: false,
        leave_windows: options.leave_windows,
    };
    if !options.apply {
        return print(json, &report, described);
    }
    if report.windows && !options.leave_windows {
        return Err(Error::Barred(format!(
            "{} has counters in windows, which cannot be copied. Wait until they are over, or give --leave-windows to copy \
             the others. Nothing was changed",
            prefix.name()
        )));
    }
    if !options.yes {
        let question = format!(
            "This copies the prefix {} on {} to {name} with {} on {}. Nobody may use either meanwhile.",
            prefix.name(),
            server.name,
            counted(shards.into(), "shard", "shards"),
            other.name
        );
        confirm(&question, &name, "nothing was copied")?;
    }
    let of = |server: &Server, name: &RedisKey, shards| {
        let options = CounterOptions::new(name.clone(), server.store.clone()).shards(shards);
        match prefix.shards().first().and_then(Space::idle) {
            None => options,
            Some(idle) => options.expire_after(idle),
        }
    };
    let (from, to) = (of(server, prefix.name(), prefix.count()), of(&other, &name, shards));
    let copied = match options.leave_windows {
        false => copy_prefix(&from, &to).await,
        true => copy_prefix_without_windows(&from, &to).await,
    };
    let copied = copied.map_err(|source| Error::Copy { source })?;
    report.counters = copied.counters;
    report.instance_aware_counters = copied.instance_aware_counters;
    report.instances = copied.instances;
    report.copied = true;
    print(json, &report, described)
}

/// How many the copy gets: what was asked for, or what a part of it has already, or as many as the source.
async fn number_of_shards(
    server: &Server,
    name: &RedisKey,
    source: &Prefix,
    asked: Option<u16>,
) -> Result<u16> {
    let Some(held) = Prefix::shape_of(server, name.clone()).await? else {
        return Ok(asked.unwrap_or(source.count()));
    };
    match asked {
        Some(asked) if asked != held => Err(Error::Barred(format!(
            "the prefix {name} is there already and has {}, not {asked}. Nothing was changed",
            counted(held.into(), "shard", "shards")
        ))),
        _ => Ok(held),
    }
}

async fn content(server: &Server, prefix: &Prefix) -> Result<Content> {
    let parts = side_by_side(prefix.shards(), |space| async move {
        let index = format!("{}index", operator::instance_names(space));
        let number = async |name: &'static str, key: &str| {
            Ok::<_, Error>(u64::try_from(server.number(name, &[key]).await?).unwrap_or_default())
        };
        let members = members::all(server, space).await?;
        let living = members.into_iter().filter(|member| !member.expired);
        Ok((
            number("HLEN", &operator::totals(space)).await?,
            number("HLEN", &index).await?,
            living.map(|member| member.id).collect::<Vec<_>>(),
            number("EXISTS", &operator::tokens(space)).await? > 0,
            match server.store.capabilities().windows {
                Some(windows) => windows.any_open(space).await?,
                None => false,
            },
        ))
    });
    let (mut ids, mut all) = (
        std::collections::BTreeSet::new(),
        Content {
            counters: 0,
            instance_aware_counters: 0,
            instances: 0,
            tokens: false,
            windows: false,
        },
    );
    for part in parts.await {
        let (counters, instance_aware, living, tokens, windows) = part?;
        all.counters += counters;
        all.instance_aware_counters += instance_aware;
        all.tokens |= tokens;
        all.windows |= windows;
        ids.extend(living);
    }
    all.instances = ids.len() as u64;
    Ok(all)
}

fn described(report: &Report<'_>) -> String {
    let Report { from, to, from_shards, to_shards, .. } = report;
    let shards = |number: u16| counted(number.into(), "shard", "shards");
    let what = format!(
        "{} plain and {} instance-aware counters of {from} ({}) {} {to} ({}), {} living instances with them",
        report.counters,
        report.instance_aware_counters,
        shards(*from_shards),
        if report.copied { "are copied to" } else { "would be copied to" },
        shards(*to_shards),
        report.instances,
    );
    let mut lines = vec![what];
    if report.tokens {
        lines.push(format!(
            "Tokens stay behind: an addition under a token that was used in {from} counts once more in {to}."
        ));
    }
    if report.windows {
        lines.push(match report.leave_windows {
            true => format!("Counters in windows stay behind: {to} has none of those of {from}."),
            false => format!(
                "{from} has counters in windows, which cannot be copied. Wait until they are over, or give --leave-windows \
                 to copy the others."
            ),
        });
    }
    if !report.copied {
        lines.push("Nothing was changed. Stop the services, and give --apply.".to_owned());
    }
    lines.join("\n")
}
