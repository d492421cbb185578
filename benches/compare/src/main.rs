//! Measures distkit, `distkit` 0.7.1, the raw clients and the bare data structures side by side.
//!
//! `cargo run --release -p distkit-compare -- --help`. It starts a private redis-server.

mod charts;
mod measure;
mod report;
mod stage;
mod works;

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use stage::{Effort, Stage};
use works::{GROUPS, Group};

const USAGE: &str = "usage: distkit-compare [--quick] [--only GROUP,GROUP...] [--out FILE.md]

  --quick   much less of everything: to see that it works, not for figures
  --only    these groups only
  --out     where the tables go, with charts beside them (FILE.svg, FILE.growth.svg); else they are
            only printed
";

struct Arguments {
    effort: Effort,
    groups: Vec<&'static Group>,
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if let [first, what, url, keys] = &*words
        && first == "--probe"
    {
        return finish(
            keys.parse()
                .map_err(|_| "a number of keys".to_owned())
                .and_then(|keys| works::probe(what, url, keys)),
        );
    }
    finish(parse(&words).and_then(|arguments| match arguments {
        Some(arguments) => run(arguments),
        None => {
            help();
            Ok(())
        }
    }))
}

fn finish(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn help() {
    print!("{USAGE}\ngroups:\n");
    for group in GROUPS {
        println!("  {:17} {}", group.name, group.about);
    }
}

/// `None` when help is asked for.
fn parse(words: &[String]) -> Result<Option<Arguments>, String> {
    let mut arguments =
        Arguments { effort: Effort::FULL, groups: GROUPS.iter().collect(), out: None };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value\n{USAGE}"));
        match &**word {
            "--help" | "-h" => return Ok(None),
            "--quick" => arguments.effort = Effort::QUICK,
            "--out" => arguments.out = Some(value()?.into()),
            "--only" => {
                let find = |name: &str| {
                    let group = GROUPS.iter().find(|group| group.name == name);
                    group.ok_or_else(|| format!("there is no group {name:?}; see --help"))
                };
                arguments.groups = value()?.split(',').map(find).collect::<Result<_, _>>()?;
            }
            other => return Err(format!("{other:?} is not understood\n{USAGE}")),
        }
    }
    Ok(Some(arguments))
}

fn run(arguments: Arguments) -> Result<(), String> {
    let started = Instant::now();
    let stage = Stage::new(arguments.effort);
    let mut outcomes = Vec::new();
    for group in &arguments.groups {
        outcomes.extend((group.run)(&stage));
    }
    let (grown, plain): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(|it| it.size.is_some());
    let tables = [report::table(&plain), report::growth(&grown)];
    println!("{}", tables.join("\n"));
    let Some(path) = arguments.out else { return Ok(()) };

    let picture = path.with_extension("svg");
    charts::costs(&plain, &picture).map_err(|error| format!("the chart: {error}"))?;
    let [table, growth] = tables;
    let mut text = String::from("# Side by side\n\n");
    let _ = write!(
        text,
        "Made by `distkit-compare {}` in {} s, on this machine: {}; {}. \
         Each figure is the median of {} rounds (fewer where a round is long, more where rounds differ much), with the smallest and the greatest; in a round every contender runs once, \
         and each round begins with another one. The ratios are of medians. \"Peer\" is `distkit` 0.7.1; \"limit\" is the raw client, or the bare \
         data structure, doing the least that must be done.\n\n![what it costs, this crate being 1]({})\n\n{table}\n",
        std::env::args().skip(1).collect::<Vec<_>>().join(" "),
        started.elapsed().as_secs(),
        machine(),
        server(&stage),
        arguments.effort.rounds,
        name(&picture),
    );
    if !grown.is_empty() {
        let picture = path.with_extension("growth.svg");
        charts::growth(&grown, &picture).map_err(|error| format!("the chart: {error}"))?;
        let _ =
            write!(text, "## How cost grows\n\n![how cost grows]({})\n\n{growth}", name(&picture));
    }
    let _ = write!(
        text,
        "## What was compared with what\n\n{}{}",
        report::contenders(&plain),
        report::contenders(&grown)
    );
    std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn name(path: &Path) -> std::borrow::Cow<'_, str> {
    path.file_name().unwrap_or_default().to_string_lossy()
}

fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    format!("{cores} cores, {}", model.unwrap_or("unknown processor"))
}

fn server(stage: &Stage) -> String {
    let text = stage.server.cli(&["INFO", "server"]);
    let version = text.lines().find_map(|line| line.strip_prefix("redis_version:"));
    format!("Redis {} on the same machine", version.unwrap_or("?").trim())
}
