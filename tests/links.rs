//! The links of the Markdown files lead somewhere, on the pages of the repository and in the documentation.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The Markdown files of the repository.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    let mut folders = vec![PathBuf::from(ROOT)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            // Those of `src` are documentation only, where rustdoc looks after the links.
            } else if name.ends_with(".md") && !path.starts_with(Path::new(ROOT).join("src")) {
                pages.push(path);
            }
        }
    }
    assert!(pages.len() > 10, "{pages:?}");
    pages
}

/// The text outside of blocks of code.
fn prose(text: &str) -> String {
    let mut inside = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        if !inside && !fence {
            lines.push(line);
        }
    }
    lines.join("\n")
}

/// The targets of `[text](target)`, and of definitions, `[label]: target`.
fn targets(text: &str) -> Vec<String> {
    let inline = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    let definitions = text.lines().filter_map(definition);
    inline
        .map(|(target, _)| target.to_owned())
        .chain(definitions.map(|(_, target)| target.to_owned()))
        .collect()
}

fn definition(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix('[')?.split_once("]: ")
}

/// The name that a heading has in a link, as GitHub and rustdoc make it.
fn anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    prose(text).lines().filter(|line| line.starts_with('#')).map(anchor).collect()
}

#[test]
fn links_to_files_and_headings_lead_somewhere() {
    let mut dead = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for target in targets(&prose(&text)) {
            let elsewhere = target.contains("://") || target.starts_with("crate::");
            if elsewhere || target.starts_with("mailto:") {
                continue;
            }
            let (file, heading) = target.split_once('#').unwrap_or((&target, ""));
            let file =
                if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            let found = file.exists()
                && (heading.is_empty()
                    || anchors(&fs::read_to_string(&file).unwrap()).contains(heading));
            if !found {
                dead.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(dead.is_empty(), "{dead:#?}");
}

/// In the documentation a file's name leads nowhere: each page that is part of it has only links that are defined at
/// its end, and `src/guide.rs` or `src/lib.rs` defines them before, as items.
#[test]
fn pages_of_the_guide_link_to_items_in_the_documentation() {
    let root = Path::new(ROOT);
    let sources = ["src/guide.rs", "src/lib.rs", "src/icounter/mod.rs"]
        .map(|file| fs::read_to_string(root.join(file)).unwrap())
        .join("\n");
    let mut wrong = Vec::new();
    for page in pages() {
        let name = page.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        let Some(in_docs) = name.strip_prefix("docs/") else { continue };
        // For those who maintain the crate.
        if in_docs == "publishing.md" {
            continue;
        }
        // The definitions that stand before the page, back to the page before.
        let Some((before, _)) = sources.split_once(&format!("{in_docs}\"")) else {
            wrong.push(format!("{name} is not part of the documentation"));
            continue;
        };
        let own = before.rsplit_once(".md\"").map_or(before, |(_, own)| own);
        let text = prose(&fs::read_to_string(&page).unwrap());
        for line in text.lines() {
            if let Some((label, target)) = definition(line) {
                let local = !target.contains("://");
                if local && !own.contains(&format!("[{label}]: crate::")) {
                    wrong.push(format!("{name}: [{label}] is not defined for the documentation"));
                }
            }
        }
        for target in targets(&text) {
            let inline = text.contains(&format!("]({target})"));
            if inline && !target.contains("://") && !target.starts_with('#') {
                wrong.push(format!("{name}: ({target}) should be a link with a label"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
