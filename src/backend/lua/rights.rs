//! The commands that a user must be allowed to run.

/// What the scripts call, and what a client sends: each with as many arguments as an ACL check of the server
/// wants. `KEY` stands for a name of this crate's.
pub const COMMANDS: &[&[&str]] = &[
    &["EVAL", "return 1", "1", "KEY"],
    &["EVALSHA", "0", "1", "KEY"],
    &["PING"],
    // Of listings: which run of the server answers.
    &["INFO"],
    &["TIME"],
    &["EXISTS", "KEY"],
    &["DEL", "KEY"],
    &["UNLINK", "KEY"],
    &["RENAME", "KEY", "KEY"],
    &["HGET", "KEY", "f"],
    &["HMGET", "KEY", "f"],
    &["HSET", "KEY", "f", "0"],
    &["HSETNX", "KEY", "f", "0"],
    &["HDEL", "KEY", "f"],
    &["HINCRBY", "KEY", "f", "0"],
    &["HLEN", "KEY"],
    &["HEXISTS", "KEY", "f"],
    &["HKEYS", "KEY"],
    &["HGETALL", "KEY"],
    &["HRANDFIELD", "KEY"],
    &["HSCAN", "KEY", "0"],
    &["GET", "KEY"],
    &["SET", "KEY", "0"],
    &["GETBIT", "KEY", "0"],
    &["SETBIT", "KEY", "0", "0"],
    &["INCR", "KEY"],
    &["PTTL", "KEY"],
    &["PEXPIRE", "KEY", "1"],
    // Of windows.
    &["PEXPIREAT", "KEY", "1"],
    &["SADD", "KEY", "m"],
    &["SREM", "KEY", "m"],
    &["SPOP", "KEY"],
    &["SCARD", "KEY"],
    &["SISMEMBER", "KEY", "m"],
    &["ZADD", "KEY", "0", "m"],
    &["ZREM", "KEY", "m"],
    &["ZSCORE", "KEY", "m"],
    &["ZCARD", "KEY"],
    &["ZRANGE", "KEY", "0", "0"],
    &["ZRANGEBYSCORE", "KEY", "0", "0"],
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_command_of_a_script_is_listed_here_and_in_the_readme() {
        let mut called = BTreeSet::new();
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/backend/lua");
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "lua") {
                let text = std::fs::read_to_string(path).unwrap();
                for start in ["call('", "try('"] {
                    called.extend(
                        text.split(start)
                            .skip(1)
                            .filter_map(|rest| rest.split('\'').next().map(str::to_owned)),
                    );
                }
            }
        }
        assert!(called.len() > 20, "{called:?}");
        let listed: BTreeSet<_> = COMMANDS.iter().map(|words| words[0].to_owned()).collect();
        assert_eq!(called.difference(&listed).collect::<Vec<_>>(), [] as [&String; 0]);
        let page = include_str!("../../../docs/production.md");
        let rule = page.lines().find(|line| line.starts_with("ACL SETUSER app")).unwrap();
        for command in listed {
            let right = format!("+{}", command.to_lowercase());
            assert!(rule.split(' ').any(|word| word == right), "{right} is not in {rule}");
        }
    }
}
