//! The append-only file itself, where the server is on this machine.
//!
//! A server that was killed amid a write leaves the beginning of a transaction. At the next start Redis 7.0 and
//! Valkey 8 cut off the torn command and keep those before it: `MULTI` without its `EXEC`, which takes up what
//! follows at the start after that. In memory nothing is wrong until then, and no command tells.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    findings::{Code, Findings},
    node::{Info, setting},
};
use crate::{
    error::Result,
    server::{Server, url},
};

pub(super) async fn check(
    server: &Server,
    at: &str,
    info: &Info,
    found: &mut Findings,
) -> Result<()> {
    if info.get("aof_enabled") != "1" {
        return Ok(());
    }
    let name = &server.name;
    if !url::is_local(at) {
        found.unchecked(format!(
            "{name}: whether the append-only file is torn, for it is on another machine; doctor looks into it when it \
             runs there"
        ));
        return Ok(());
    }
    let Some(folder) = folder(server).await? else {
        found.unchecked(format!(
            "{name}: whether the append-only file is torn, for CONFIG GET is denied"
        ));
        return Ok(());
    };
    let size = info.number("aof_current_size");
    for _ in 0..3 {
        let look = tokio::task::spawn_blocking({
            let folder = folder.clone();
            move || look(&folder, size)
        });
        match look.await.map_err(io::Error::other)? {
            // What is being written right now ends soon.
            Ok(Torn::OpenAtEnd(_)) => tokio::time::sleep(Duration::from_millis(200)).await,
            Ok(Torn::No) => return Ok(()),
            Ok(Torn::Inside(path)) => {
                found.add(Code::AofTorn, name, told(&path));
                return Ok(());
            }
            Err(error) => {
                let folder = folder.display();
                found.unchecked(format!(
                    "{name}: whether the append-only file is torn: {folder}: {error}"
                ));
                return Ok(());
            }
        }
    }
    if let Ok(Ok(Torn::OpenAtEnd(path))) =
        tokio::task::spawn_blocking(move || look(&folder, size)).await
    {
        found.add(Code::AofTorn, name, told(&path));
    }
    Ok(())
}

fn told(path: &Path) -> String {
    format!(
        "{} has a transaction without its end: at the next start its beginning is added to the counters once more",
        path.display()
    )
}

/// Where the files are.
async fn folder(server: &Server) -> Result<Option<PathBuf>> {
    let (Some(dir), Some(sub)) =
        (setting(server, "dir").await?, setting(server, "appenddirname").await?)
    else {
        return Ok(None);
    };
    Ok(Some(Path::new(&dir).join(sub)))
}

#[derive(Debug, PartialEq)]
enum Torn {
    No,
    /// A transaction began within another.
    Inside(PathBuf),
    /// A transaction has no end yet.
    OpenAtEnd(PathBuf),
}

/// Reads the files that the manifest names and that hold commands, in their order. `size` is what the server says of
/// all of them: behind a forwarded port is another machine, and the files here may be another server's.
fn look(folder: &Path, size: u64) -> io::Result<Torn> {
    let is_manifest = |path: &PathBuf| path.extension().is_some_and(|end| end == "manifest");
    let entries = std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path()));
    let paths = entries.collect::<io::Result<Vec<_>>>()?;
    let manifest = paths.into_iter().find(is_manifest);
    let manifest = manifest.ok_or_else(|| io::Error::other("there is no manifest"))?;
    let mut files = Vec::new();
    let mut found_size = 0;
    for line in std::fs::read_to_string(manifest)?.lines() {
        // file <name> seq <number> type b|i|h
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, name, _, _, _, kind] = words[..] else { continue };
        if kind != "h" {
            let path = folder.join(name);
            found_size += path.metadata()?.len();
            files.push(path);
        }
    }
    // Files that are written grow meanwhile.
    if found_size < size / 2 || found_size > size.saturating_mul(2).saturating_add(1 << 20) {
        return Err(io::Error::other("the files there are another server's, by their size"));
    }
    let mut open = None;
    for path in files.into_iter().filter(|path| path.extension().is_none_or(|end| end != "rdb")) {
        if transactions(&mut BufReader::new(File::open(&path)?), &mut open, &path)? {
            return Ok(Torn::Inside(path));
        }
    }
    Ok(open.map_or(Torn::No, Torn::OpenAtEnd))
}

/// Goes through commands. True if a transaction begins within another; `open` is the file of one without an end.
fn transactions(
    file: &mut (impl BufRead + Seek),
    open: &mut Option<PathBuf>,
    path: &Path,
) -> io::Result<bool> {
    while let Some(name) = command(file)? {
        if name.eq_ignore_ascii_case(b"multi") {
            if open.is_some() {
                return Ok(true);
            }
            *open = Some(path.to_owned());
        } else if name.eq_ignore_ascii_case(b"exec") {
            *open = None;
        }
    }
    Ok(false)
}

/// The name of the next command; `None` at the end, or where the last one is not whole.
fn command(file: &mut (impl BufRead + Seek)) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if file.read_until(b'\n', &mut line)? == 0 || line.last() != Some(&b'\n') {
            return Ok(None);
        }
        // Annotations, such as a time.
        if line.first() != Some(&b'#') {
            break;
        }
    }
    let count = number(&line, b'*')?;
    let mut name = None;
    for _ in 0..count {
        line.clear();
        if file.read_until(b'\n', &mut line)? == 0 || line.last() != Some(&b'\n') {
            return Ok(None);
        }
        let length = number(&line, b'$')?;
        if name.is_none() && length < 64 {
            let mut text = Vec::new();
            file.by_ref().take(length).read_to_end(&mut text)?;
            name = Some(text);
        } else {
            name.get_or_insert_default();
            file.seek_relative(i64::try_from(length).map_err(io::Error::other)?)?;
        }
        let mut end = [0; 2];
        if file.read_exact(&mut end).is_err() {
            return Ok(None);
        }
    }
    Ok(name)
}

fn number(line: &[u8], mark: u8) -> io::Result<u64> {
    let digits = line.strip_prefix(&[mark]).and_then(|rest| std::str::from_utf8(rest).ok());
    let parsed = digits.and_then(|digits| digits.trim_end().parse().ok());
    parsed.ok_or_else(|| io::Error::other("the file does not read as commands"))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn commands(names: &[&str]) -> Vec<u8> {
        let mut file = b"#TS:1\r\n".to_vec();
        for name in names {
            let text = format!("*2\r\n${}\r\n{name}\r\n$3\r\nkey\r\n", name.len());
            file.extend(text.as_bytes());
        }
        file
    }

    fn go(file: Vec<u8>) -> (bool, bool) {
        let mut open = None;
        let inside = transactions(&mut Cursor::new(file), &mut open, Path::new("f")).unwrap();
        (inside, open.is_some())
    }

    #[test]
    fn a_transaction_without_its_end_is_found() {
        assert_eq!(go(commands(&["SELECT", "MULTI", "HSET", "EXEC", "HINCRBY"])), (false, false));
        assert_eq!(go(commands(&["MULTI", "HSET", "MULTI", "HSET", "EXEC"])), (true, true));
        assert_eq!(go(commands(&["MULTI", "HSET"])), (false, true));
    }

    #[test]
    fn a_command_that_is_not_whole_yet_is_the_end() {
        let mut file = commands(&["HSET", "HSET"]);
        file.truncate(file.len() - 4);
        assert_eq!(go(file), (false, false));
        assert!(
            transactions(&mut Cursor::new(b"REDIS0011".to_vec()), &mut None, Path::new("f"))
                .is_ok()
        );
        let text = b"what\n".to_vec();
        assert!(transactions(&mut Cursor::new(text), &mut None, Path::new("f")).is_err());
    }
}
