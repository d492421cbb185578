//! Compares `docs/observability.md` with the names in the code.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    backend::measured,
    stats::{Count, gauge},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page() -> String {
    fs::read_to_string(root().join("docs/observability.md")).unwrap()
}

/// The rows of the page's tables, without those above the rules.
fn rows(page: &str) -> Vec<Vec<&str>> {
    let lines: Vec<_> = page.lines().collect();
    let is_rule = |at: usize| lines.get(at).is_some_and(|line| line.starts_with("| ---"));
    let rows = (0..lines.len())
        .filter(|&at| lines[at].starts_with('|') && !is_rule(at) && !is_rule(at + 1));
    rows.map(|at| lines[at].trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

fn code(cell: &str) -> &str {
    cell.trim_matches('`')
}

/// An event or a span of a file: its level, target and text.
type Line = (String, String, String);

/// The end of what the bracket before `text` opens. Brackets in string literals do not count.
fn arguments(text: &str) -> &str {
    let (mut depth, mut quoted, mut escaped) = (1, false, false);
    for (at, char) in text.char_indices() {
        match char {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '(' if !quoted => depth += 1,
            ')' if !quoted => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[..at];
        }
    }
    panic!("no end of {text}")
}

/// The string literals in `text`, each on one line.
fn literals(text: &str) -> Vec<String> {
    let parts: Vec<_> = text.split('"').collect();
    let literals = parts.iter().skip(1).step_by(2);
    let joined = |text: &&str| {
        let pieces: Vec<_> = text.split("\\\n").map(str::trim_start).collect();
        pieces.concat()
    };
    literals.map(joined).collect()
}

fn sources(dir: PathBuf, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs")
            && path.file_name().is_some_and(|name| name != "observability_tests.rs")
        {
            found.push(path);
        }
    }
}

fn logged() -> BTreeSet<Line> {
    let mut files = Vec::new();
    sources(root().join("src"), &mut files);
    let mut lines = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for call in text.split("tracing::").skip(1) {
            let Some((name, rest)) = call.split_once("!(") else { continue };
            let level = match name {
                "error" | "warn" | "info" | "debug" | "trace" => name,
                "debug_span" => "debug",
                _ => continue,
            };
            let arguments = arguments(rest);
            let after = arguments.trim_start().strip_prefix("target:");
            let after =
                after.unwrap_or_else(|| panic!("no target in {}: {arguments}", file.display()));
            let literals = literals(after);
            // Where a prefix has several shards, each line names its own.
            assert_eq!(after.contains("prefix"), after.contains("shard"), "{arguments}");
            let text =
                if name.ends_with("_span") { &literals[1] } else { literals.last().unwrap() };
            lines.insert((level.to_owned(), literals[0].clone(), text.clone()));
        }
    }
    lines
}

#[test]
fn the_page_lists_every_number_and_no_other() {
    let page = page();
    let counts = Count::LIST.iter().map(|(field, metric, _)| (*field, *metric));
    let gauges = gauge::LIST.iter().map(|(field, metric, _)| (*field, *metric));
    let in_code: BTreeSet<_> = gauges.chain(counts).collect();
    let in_page: BTreeSet<_> = rows(&page)
        .into_iter()
        .filter(|row| code(row[1]).starts_with("distkit_"))
        .map(|row| (code(row[0]), code(row[1])))
        .collect();
    assert_eq!(in_page, in_code);
    // Also those that only `Debug` knows.
    let stats = format!("{:?}", crate::Stats::default());
    let fields = stats.trim_start_matches("Stats { ").split(", ").map(|field| {
        let name = field.split(':').next().unwrap_or_default();
        name.to_owned()
    });
    let listed = in_page.iter().map(|(field, _)| (*field).to_owned());
    assert_eq!(fields.collect::<BTreeSet<_>>(), listed.collect::<BTreeSet<_>>());
}

#[test]
fn the_page_lists_every_metric_of_the_layer_and_every_alert_is_on_one_that_exists() {
    let page = page();
    let layer: BTreeSet<_> = measured::LIST.iter().map(|(name, _)| *name).collect();
    let rows = rows(&page);
    let listed = rows.iter().map(|row| code(row[0]));
    let in_page: BTreeSet<_> =
        listed.filter(|name| name.starts_with("distkit_store_req")).collect();
    assert_eq!(in_page, layer);
    let mut known: BTreeSet<_> = layer;
    known.extend(Count::LIST.iter().map(|(_, metric, _)| *metric));
    known.extend(gauge::LIST.iter().map(|(_, metric, _)| *metric));
    for word in page.split(|char: char| !char.is_ascii_alphanumeric() && char != '_') {
        assert!(!word.starts_with("distkit_") || known.contains(word), "the page invents {word}");
    }
}

#[test]
fn the_page_lists_every_event_and_span_with_its_target_and_level() {
    let page = page();
    let in_page: BTreeSet<Line> = rows(&page)
        .into_iter()
        .filter(|row| row.len() > 2 && code(row[1]).starts_with("distkit::"))
        .map(|row| (row[2].to_owned(), code(row[1]).to_owned(), row[0].to_owned()))
        .collect();
    assert_eq!(in_page, logged());
}

#[test]
fn every_metric_has_a_unit_in_its_name_and_a_help_text() {
    for (_, metric, help) in Count::LIST {
        assert!(metric.ends_with("_total"), "{metric}");
        assert!(help.trim().ends_with('.'), "{metric}");
    }
    for (_, metric, help) in gauge::LIST {
        assert!(!metric.ends_with("_total") && help.ends_with('.'), "{metric}");
    }
}
