//! What doctor may find: stable codes, and what to do.

use std::collections::BTreeMap;

use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// Counts are wrong, or will be, or cannot be written.
    Error,
    /// Counts can be lost, or something does not work as it could.
    Warning,
    /// Of interest to some. Does not change the exit status, unless by `--strict`.
    Note,
}

macro_rules! codes {
    ($($variant:ident $name:literal $severity:ident $remedy:literal)*) => {
        /// A kind of finding. Its name is stable; `docs/cli.md` explains each.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Code { $($variant),* }

        impl Code {
            pub(crate) const ALL: &[Self] = &[$(Self::$variant),*];

            pub(crate) fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),* }
            }

            pub(crate) fn severity(self) -> Severity {
                match self { $(Self::$variant => Severity::$severity),* }
            }

            pub(crate) fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy),* }
            }
        }
    };
}

codes! {
    Unreachable "unreachable" Error
        "start the server, or mend the address, the network, TLS or the password that the finding names"
    WritesRefused "writes-refused" Error
        "mend what the server names (disk, memory, replicas): until then no counter can be written"
    Replica "replica" Error
        "connect to the primary, or by redis-sentinel:// or redis-cluster://"
    ClusterDown "cluster-down" Error
        "bring the failed nodes back, or fail over to their replicas"
    EvictionAllkeys "eviction-allkeys" Error
        "CONFIG SET maxmemory-policy noeviction (or volatile-*), and in the configuration file"
    VersionUnsupported "version-unsupported" Error
        "upgrade to Redis 7.0 or newer, or Valkey"
    RightMissing "right-missing" Error
        "give the user what is missing: docs/production.md, \"Rights\", has the whole ACL rule"
    ShapeOther "shape-other" Error
        "use the same version of distkit and the same number of shards in all processes of a prefix, or another prefix"
    WrongType "wrong-type" Error
        "find out who wrote that key; DEL it, or rename it away"
    ForeignTotal "foreign-total" Error
        "find out who wrote that; distkit set KEY VALUE replaces it, HDEL removes it"
    SpaceHalfLost "space-half-lost" Error
        "find out who deletes or evicts keys. Living instances make theirs whole again at their next operation, and what expired ones had is lost; plain totals that are gone are lost; the shape is made by the next process that starts to write"
    TotalDisagrees "total-disagrees" Error
        "a torn append-only file or a stranger's write: distkit set -i KEY VALUE gives the key a total that is right"
    AofTorn "aof-torn" Error
        "before the next restart: BGREWRITEAOF, which writes the file anew from memory. At a stopped server: redis-check-aof --fix on the manifest"
    TtlOnKey "ttl-on-key" Error
        "PERSIST the key, and find out who gave it an expiry"
    AofOff "aof-off" Warning
        "CONFIG SET appendonly yes, and in the configuration file: without it a restart loses what was acknowledged"
    AofNeverSynced "aof-never-synced" Warning
        "CONFIG SET appendfsync everysec, or always where no acknowledged write may be lost"
    AofFailing "aof-failing" Warning
        "see the server's log: the last rewrite of the append-only file failed"
    MemoryNearlyFull "memory-nearly-full" Warning
        "raise maxmemory, or move something away: a full server refuses writes or evicts"
    ClockOff "clock-off" Warning
        "set the clock of the server, or of this machine, by NTP: leases and ages follow the server's"
    ClusterFullCoverage "cluster-full-coverage" Warning
        "CONFIG SET cluster-require-full-coverage no on every node: else one lost node stops all prefixes"
    LazyExpire "lazy-expire" Warning
        "CONFIG SET lazyfree-lazy-expire yes, and in the configuration file"
    GuardsLost "guards-lost" Warning
        "find out who deletes or evicts keys: requests in doubt from before end as unknown"
    LaneUnanswered "lane-unanswered" Warning
        "a write was claimed, and its answer never recorded: a torn append-only file, or a write that was answered as partly applied"
    OrphanKey "orphan-key" Warning
        "no part of a counter: a newer version's, a stranger's, or a rest. Look, then DEL it"
    VersionTrypema "version-trypema" Note
        "upgrade where trypema's Redis or hybrid limiters are used: they need Redis 7.2 or Valkey 8"
}

impl Code {
    pub(crate) fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.name() == name)
    }
}

#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    pub(crate) code: &'static str,
    pub(crate) severity: Severity,
    /// A server's address, or a prefix.
    pub(crate) at: String,
    pub(crate) what: String,
    /// How often it was found there.
    pub(crate) count: usize,
    /// The first ones, where there are several.
    pub(crate) examples: Vec<String>,
    pub(crate) remedy: &'static str,
}

/// How many examples are kept of findings that come by the thousand.
const EXAMPLES: usize = 5;

#[derive(Debug, Default)]
pub(crate) struct Findings {
    found: BTreeMap<(Code, String), (usize, Vec<String>)>,
    /// What could not be looked at, and why.
    pub(crate) unchecked: Vec<String>,
}

impl Findings {
    /// `at` is where, `what` a sentence that names the key, node or value.
    pub(crate) fn add(&mut self, code: Code, at: &str, what: impl Into<String>) {
        let (count, examples) = self.found.entry((code, at.to_owned())).or_default();
        let what = what.into();
        if examples.contains(&what) {
            return;
        }
        *count += 1;
        if examples.len() < EXAMPLES {
            examples.push(what);
        }
    }

    pub(crate) fn unchecked(&mut self, what: impl Into<String>) {
        let what = what.into();
        if !self.unchecked.contains(&what) {
            self.unchecked.push(what);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    pub(crate) fn extend(&mut self, others: Self) {
        for ((code, at), (count, examples)) in others.found {
            let (own, kept) = self.found.entry((code, at)).or_default();
            *own += count;
            kept.extend(examples);
            kept.truncate(EXAMPLES);
        }
        for what in others.unchecked {
            self.unchecked(what);
        }
    }

    /// Keeps what a second look found, too: what the first one saw while a service wrote is gone by then.
    pub(crate) fn confirmed_by(mut self, second: &Self) -> Self {
        self.found.retain(|at, _| second.found.contains_key(at));
        for (at, (count, examples)) in &mut self.found {
            if let Some((second_count, second_examples)) = second.found.get(at) {
                (*count, *examples) = (*second_count, second_examples.clone());
            }
        }
        self
    }

    /// In order of severity, without those that are allowed.
    pub(crate) fn into_list(self, allowed: &[Code]) -> (Vec<Finding>, Vec<String>) {
        let mut list: Vec<Finding> = self
            .found
            .into_iter()
            .filter(|((code, _), _)| !allowed.contains(code))
            .map(|((code, at), (count, examples))| Finding {
                code: code.name(),
                severity: code.severity(),
                at,
                what: examples.first().cloned().unwrap_or_default(),
                count,
                examples,
                remedy: code.remedy(),
            })
            .collect();
        list.sort_by_key(|finding| finding.severity);
        (list, self.unchecked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_explained_in_the_documentation() {
        let page = include_str!("../../../docs/cli.md");
        for code in Code::ALL {
            let name = code.name();
            let severity = format!("{:?}", code.severity()).to_lowercase();
            assert!(page.contains(&format!("| `{name}` | {severity} |")), "{name} {severity}");
        }
    }

    #[test]
    fn a_second_look_removes_what_was_passing() {
        let mut first = Findings::default();
        first.add(Code::ForeignTotal, "shop", "a");
        first.add(Code::OrphanKey, "shop", "b");
        let mut second = Findings::default();
        second.add(Code::OrphanKey, "shop", "b");
        let (list, _) = first.confirmed_by(&second).into_list(&[]);
        assert_eq!(list.iter().map(|finding| finding.code).collect::<Vec<_>>(), ["orphan-key"]);
    }
}
