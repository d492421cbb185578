use std::io;

/// Which server it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavor {
    /// `redis-server`, of whatever version is installed.
    Redis,
    /// `valkey-server`, of whatever version is installed.
    Valkey,
}

impl Flavor {
    pub(crate) fn server(self) -> &'static str {
        match self {
            Self::Redis => "redis-server",
            Self::Valkey => "valkey-server",
        }
    }

    pub(crate) fn cli(self) -> &'static str {
        match self {
            Self::Redis => "redis-cli",
            Self::Valkey => "valkey-cli",
        }
    }

    pub(crate) fn check_aof(self) -> &'static str {
        match self {
            Self::Redis => "redis-check-aof",
            Self::Valkey => "valkey-check-aof",
        }
    }

    /// What to tell the developer when `program` did not start.
    pub(crate) fn explain(self, program: &str, error: &io::Error) -> String {
        if error.kind() != io::ErrorKind::NotFound {
            return format!("{program} cannot be run: {error}");
        }
        let how = match self {
            Self::Redis => "apt-get install redis-server redis-tools",
            Self::Valkey => {
                "apt-get install -t bookworm-backports valkey-server valkey-tools, from Debian's backports"
            }
        };
        format!("{program} is not installed ({how}); scripts/test installs it where it may")
    }
}
