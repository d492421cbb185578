//! The program runs, and its tables say what they must whatever the machine does meanwhile.

use std::{collections::HashMap, process::Command};

/// The rows of each table that the program prints, by title and contender.
fn tables(groups: &str) -> HashMap<String, HashMap<String, Vec<String>>> {
    let program = env!("CARGO_BIN_EXE_peers");
    let output = Command::new(program).args(["--quick", "--only", groups]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let mut tables: HashMap<_, HashMap<_, _>> = HashMap::new();
    let mut title = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("## ") {
            name.clone_into(&mut title);
        } else if let Some(row) = line.strip_prefix("| ")
            && !row.starts_with("---")
        {
            let mut cells = row.trim_end_matches(" |").split(" | ").map(str::to_owned);
            let name = cells.next().unwrap();
            tables.entry(title.clone()).or_default().insert(name, cells.collect());
        }
    }
    tables
}

#[test]
fn every_table_has_figures_of_ours() {
    let tables = tables("inc,keys,lag,memory");
    assert_eq!(tables.len(), 4, "{tables:?}");
    for (title, rows) in &tables {
        let ours = &rows["distkit lax"];
        let has_number = |cell: &String| cell.starts_with(|first: char| first.is_ascii_digit());
        assert!(!ours.is_empty() && ours.iter().all(has_number), "{title}: {ours:?}");
    }
}

#[test]
fn ours_is_exact_and_a_contender_that_drops_is_seen_to_lose() {
    let tables = tables("exactness");
    assert_eq!(tables.len(), 2, "{tables:?}");
    for (title, rows) in &tables {
        for (name, row) in rows.iter().filter(|(name, _)| !name.trim().is_empty()) {
            let row: Vec<i64> = row.iter().map(|cell| cell.parse().unwrap()).collect();
            let [calls, counted, not_applied, unknown, _, lost, doubled] = *row else {
                panic!("{title}: {name}: {row:?}");
            };
            assert!(counted > 0, "{title}: {name}: {row:?}");
            assert_eq!(calls, counted + not_applied + unknown, "{title}: {name}");
            if name.starts_with("distkit") {
                assert_eq!((lost, doubled), (0, 0), "{title}: {name}: {row:?}");
            }
        }
    }
    let dropped = &tables["Killed connections"]["map and pipeline, dropped"];
    assert_ne!(dropped[5], "0", "{dropped:?}");
}
