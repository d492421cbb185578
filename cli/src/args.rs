//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Looks at, changes, diagnoses and imports counters of distkit.
#[derive(Debug, Parser)]
#[command(
    name = "distkit",
    version,
    about,
    after_help = "Exit status: 0 done, nothing wrong; 1 doctor found something, or a part was refused; \
                  2 wrong usage; 3 the command failed; 130 interrupted."
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The server: redis://, rediss://, redis+unix://, redis-cluster://, redis-sentinel://, as
    /// `distkit::backend::connect` takes them.
    #[arg(long, global = true, env = "DISTKIT_URL", hide_env_values = true)]
    pub(crate) url: Option<String>,
    /// The prefix of the counters. Default: distkit.
    #[arg(long, global = true, env = "DISTKIT_PREFIX")]
    pub(crate) prefix: Option<String>,
    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Prints totals. A missing key reads 0.
    Get {
        /// The counters.
        #[arg(required = true)]
        keys: Vec<String>,
        #[command(flatten)]
        family: Family,
    },
    /// Sets a total.
    Set {
        /// The counter.
        key: String,
        /// Its new total.
        #[arg(allow_negative_numbers = true)]
        value: i64,
        #[command(flatten)]
        family: Family,
        /// With -i: the id, name or incarnation of the living instance whose slice the total becomes. Needed
        /// where more than one lives.
        #[arg(long, value_name = "INSTANCE", requires = "instance_aware")]
        on: Option<String>,
    },
    /// Prints counters and their totals as they come, in no order: one may come twice while others are written.
    Ls(List),
    /// Prints the living instances' slices of an instance-aware counter.
    Slices {
        /// The counter.
        key: String,
    },
    /// Lists the instances of a prefix, living and expired, with their leases.
    Instances,
    /// Deletes all counters of a prefix. Asks first.
    Clear {
        #[command(flatten)]
        family: Family,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
    },
    /// Copies all counters of the prefix to another one, exactly, while nobody uses either: to give it another number of
    /// shards, or another server. Shows what it would do, unless --apply is given.
    Copy(Copy),
    /// Says what is wrong with a server and its counters, and what to do. Changes nothing.
    Doctor(Doctor),
    /// Moves the counters of distkit 0.2 to 0.7. Shows what it would do, unless --apply is given.
    Import(Import),
}

#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Family {
    /// The instance-aware counters instead of the plain ones.
    #[arg(short, long)]
    pub(crate) instance_aware: bool,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only counters whose whole name matches: `*` is any number of characters, `?` is one, `\` takes the meaning
    /// from the next one.
    #[arg(conflicts_with = "starting_with")]
    pub(crate) glob: Option<String>,
    /// Only counters whose name begins with this text.
    #[arg(long, value_name = "TEXT")]
    pub(crate) starting_with: Option<String>,
    #[command(flatten)]
    pub(crate) family: Family,
    /// Only the N greatest totals, the greatest first.
    #[arg(long, value_name = "N")]
    pub(crate) top: Option<usize>,
    /// With -i: the living instances' slices, too.
    #[arg(long, requires = "instance_aware", conflicts_with = "top")]
    pub(crate) slices: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Copy {
    /// The new prefix. It is empty, or has a part of an interrupted copy.
    #[arg(value_name = "PREFIX")]
    pub(crate) to: String,
    /// Its number of shards. Default: as many as the old one has.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) shards: Option<u16>,
    /// The server of the new prefix. Default: the same.
    #[arg(long, value_name = "URL")]
    pub(crate) to_url: Option<String>,
    /// Copy the others where there are counters in windows, which cannot be copied. Default: nothing is copied.
    #[arg(long)]
    pub(crate) leave_windows: bool,
    /// Do it. Asks first.
    #[arg(long)]
    pub(crate) apply: bool,
    /// Do not ask.
    #[arg(long, requires = "apply")]
    pub(crate) yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// The server, instead of --url.
    #[arg(value_name = "URL")]
    pub(crate) at: Option<String>,
    /// The prefix to look at. Default: --prefix, else every prefix that is there.
    #[arg(value_name = "PREFIX")]
    pub(crate) of: Option<String>,
    /// Findings that are known and accepted, by their codes.
    #[arg(long, value_name = "CODE", value_delimiter = ',')]
    pub(crate) allow: Vec<String>,
    /// Notes count as findings, too.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Look at the server only, not at the counters.
    #[arg(long)]
    pub(crate) server_only: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Import {
    /// Do it.
    #[arg(long)]
    pub(crate) apply: bool,
    /// The prefix under which the old version counted. Default: the prefix.
    #[arg(long, value_name = "PREFIX")]
    pub(crate) old_prefix: Option<String>,
    /// The server where the old version counted. Default: the same.
    #[arg(long, value_name = "URL")]
    pub(crate) old_url: Option<String>,
    /// What to move. Default: all that is there.
    #[arg(long, value_name = "KIND", value_delimiter = ',')]
    pub(crate) from: Vec<Kind>,
    /// Add up the totals of a key that two old types had. They are one counter now.
    #[arg(long)]
    pub(crate) sum: bool,
    /// Leave behind what cannot be moved: values that are not an i64, names that are not keys.
    #[arg(long)]
    pub(crate) skip_unreadable: bool,
    /// For how many days imported totals of instance-aware counters count.
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3650))]
    pub(crate) lease_days: u64,
}

/// The types of counters of the old versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub(crate) enum Kind {
    /// `StrictCounter`
    Strict,
    /// `LaxCounter`
    Lax,
    /// `StrictInstanceAwareCounter`
    InstanceAware,
    /// `LaxInstanceAwareCounter`
    LaxInstanceAware,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] =
        [Self::Strict, Self::Lax, Self::InstanceAware, Self::LaxInstanceAware];

    pub(crate) fn is_instance_aware(self) -> bool {
        matches!(self, Self::InstanceAware | Self::LaxInstanceAware)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Lax => "lax",
            Self::InstanceAware => "instance-aware",
            Self::LaxInstanceAware => "lax-instance-aware",
        }
    }
}
