//! Measures distkit beside what is used in its place: `peers --help`. It starts private servers.

use std::{fmt::Write as _, path::PathBuf, process::ExitCode, time::Instant};

use distkit_peers::{Effort, GROUPS, Group, Kind};

const USAGE: &str = "usage: peers [--quick] [--only GROUP,GROUP...] [--out FILE.md]

  --quick   much less of everything: to see that it works, not for figures
  --only    these groups only
  --out     where the tables go; else they are only printed
";

struct Arguments {
    effort: Effort,
    groups: Vec<&'static Group>,
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let result = parse(&words).and_then(|arguments| match arguments {
        Some(arguments) => run(&arguments, &words.join(" ")),
        None => {
            print!("{USAGE}\ngroups:\n");
            GROUPS.iter().for_each(|group| println!("  {:10} {}", group.name, group.about));
            Ok(())
        }
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
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

fn run(arguments: &Arguments, words: &str) -> Result<(), String> {
    let began = Instant::now();
    let mut tables = String::new();
    for group in &arguments.groups {
        let group_began = Instant::now();
        for table in (group.run)(&arguments.effort) {
            println!("{table}");
            let _ = writeln!(tables, "{table}");
        }
        eprintln!("{}: {:.1} s", group.name, group_began.elapsed().as_secs_f64());
    }
    let Some(path) = &arguments.out else { return Ok(()) };
    let mut text = format!(
        "# Beside others\n\nMade by `peers {words}` in {} s, on this machine: {}. Only the ratios within a run mean \
         anything on another machine.\n\n{tables}## Who is compared\n\n",
        began.elapsed().as_secs(),
        distkit_peers::machine(),
    );
    for kind in Kind::ALL {
        let _ = writeln!(text, "- **{}**: {}", kind.name(), kind.about());
    }
    text.push_str(CAVEATS);
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

const CAVEATS: &str = "
limitador is a rate limiter. Its counters are those of a limit within a window and expire with it, and its
documentation says that it trades accuracy for speed. Here the limit is out of reach, the window is a day, and
nothing is checked. Each call makes a `Context` with the counter's name, as each request to a service would. The map
and pipeline can neither read a total nor tell when an addition was sent. An error of `distkit` 0.7.1, limitador or
redis-rs does not say whether the addition counts.
";
