//! What the server holds and has done, whichever contender it was for.

use std::{collections::HashMap, time::Duration};

use distkit_testkit::Server;
use redis::aio::MultiplexedConnection;

use crate::contenders::Names;

/// Where a contender keeps its counters.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    /// In the fields of this hash.
    Hash(&'static str),
    /// Each in a string, as limitador names them.
    Limiter,
}

/// A connection to observe the server by.
pub(crate) async fn connect(url: &str) -> MultiplexedConnection {
    let client = redis::Client::open(url).expect("a valid URL");
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    let connection = client.get_multiplexed_async_connection_with_config(&config).await;
    connection.expect("the server is there")
}

impl Place {
    /// The commands that read these counters. For one of limitador's that is not there yet, a key that no
    /// one has.
    pub(crate) async fn reads(
        self,
        connection: &mut MultiplexedConnection,
        names: &Names,
    ) -> Vec<redis::Cmd> {
        let read = |words: &[&str]| {
            let mut command = redis::cmd(words[0]);
            command.arg(&words[1..]);
            command
        };
        match self {
            Self::Hash(hash) => names.iter().map(|name| read(&["HGET", hash, name])).collect(),
            Self::Limiter => {
                let mut command = redis::cmd("KEYS");
                let keys: Vec<String> =
                    command.arg("*,counter:*").query_async(connection).await.expect("served");
                let of: HashMap<&str, &str> =
                    keys.iter().filter_map(|key| Some((variable(key)?, &**key))).collect();
                let key = |name: &String| of.get(&**name).copied().unwrap_or("-");
                names.iter().map(|name| read(&["GET", key(name)])).collect()
            }
        }
    }

    /// The value of each counter; 0 where there is none.
    pub(crate) async fn held(
        self,
        connection: &mut MultiplexedConnection,
        names: &Names,
    ) -> Vec<i64> {
        let mut pipeline = redis::pipe();
        for read in self.reads(connection, names).await {
            pipeline.add_command(read);
        }
        let values: Vec<Option<i64>> = pipeline.query_async(connection).await.expect("served");
        values.into_iter().map(Option::unwrap_or_default).collect()
    }
}

/// The value of the variable in a key of limitador: `...,"set_variables":{"counter":"NAME"},...`.
fn variable(key: &str) -> Option<&str> {
    key.split_once("\"set_variables\":{")?.1.split('"').nth(3)
}

/// How many additions the server has made, each by a command of its own or within a script.
pub(crate) async fn additions(connection: &mut MultiplexedConnection) -> u64 {
    let mut command = redis::cmd("INFO");
    let text: String =
        command.arg("commandstats").query_async(connection).await.expect("the server is there");
    let calls = |line: &str| {
        let (command, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let counted = matches!(command, "hincrby" | "incrby");
        counted.then(|| rest.split(',').next()?.parse::<u64>().ok()).flatten()
    };
    text.lines().filter_map(calls).sum()
}

/// Returns when the server has made so many additions since it started.
///
/// # Panics
///
/// When it has not within a minute.
pub async fn arrived(url: &str, count: u64) {
    let mut connection = connect(url).await;
    let all = async {
        while additions(&mut connection).await < count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.expect("all additions arrive");
}

/// Milliseconds of CPU that the server's main thread has used.
pub(crate) fn cpu(server: &Server) -> f64 {
    let pid = server.pid().expect("it runs");
    crate::processor::milliseconds(format!("/proc/{pid}/schedstat").as_ref())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_limitadors_key_names_its_counter() {
        let key = "namespace:{peers},counter:{\"limit\":{\"namespace\":\"peers\",\"seconds\":86400,\"conditions\":[],\
                   \"variables\":[\"counter\"]},\"set_variables\":{\"counter\":\"user-7-views\"},\"remaining\":null}";
        assert_eq!(super::variable(key), Some("user-7-views"));
        assert_eq!(super::variable("namespace:{peers},counters_of_limit:{}"), None);
    }
}
