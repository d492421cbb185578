//! What a server says that it did, and in which order: its append-only file.

use std::{collections::HashMap, fs, path::Path};

use super::checker::Change;

/// The changes of each counter of the hash `totals`, from when the server was new.
///
/// Scripts are in the log with what they did, not as scripts, so that the records of lanes and the
/// transactions around them can be passed over.
pub(super) fn changes(server_dir: &Path, totals: &str) -> HashMap<String, Vec<Change>> {
    let mut log = Vec::new();
    for entry in fs::read_dir(server_dir.join("appendonlydir")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "aof") {
            assert!(log.is_empty(), "the server has rewritten its log");
            log = fs::read(&path).unwrap();
        }
    }
    let mut changes: HashMap<String, Vec<Change>> = HashMap::new();
    for command in commands(&log) {
        if command.get(1).is_none_or(|name| name != totals) {
            continue;
        }
        let mut push = |counter: &str, change| {
            changes.entry(counter.to_owned()).or_default().push(change);
        };
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        match (&*words[0].to_ascii_uppercase(), &words[2..]) {
            ("HINCRBY", [counter, count]) => push(counter, Change::Add(count.parse().unwrap())),
            ("HSET", [counter, count]) => push(counter, Change::Set(count.parse().unwrap())),
            ("HDEL", [counter]) => push(counter, Change::Delete),
            _ => panic!("a command that no strict counter should make: {words:?}"),
        }
    }
    changes
}

fn commands(log: &[u8]) -> Vec<Vec<String>> {
    let mut rest = log;
    let mut commands = Vec::new();
    while !rest.is_empty() {
        let length = header(&mut rest, b'*');
        let words = (0..length).map(|_| {
            let length = header(&mut rest, b'$');
            let (word, after) = rest.split_at(length);
            rest = after.strip_prefix(b"\r\n").unwrap();
            String::from_utf8_lossy(word).into_owned()
        });
        commands.push(words.collect());
    }
    commands
}

fn header(rest: &mut &[u8], kind: u8) -> usize {
    let end = rest.iter().position(|byte| *byte == b'\r').unwrap();
    let (line, after) = rest.split_at(end);
    assert_eq!(line[0], kind, "{}", String::from_utf8_lossy(line));
    *rest = &after[2..];
    std::str::from_utf8(&line[1..]).unwrap().parse().unwrap()
}
