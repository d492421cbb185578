//! `doctor`: it names each fault that is planted, and nothing on a healthy server.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use distkit::{
    Token, Windows,
    backend::{Space, Store, connect, operator},
    counter::{CounterOptions, CounterTrait, LaxCounter, StrictCounter},
    icounter::{
        InstanceAwareCounterTrait, StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
    },
};
use distkit_testkit::{Cluster, Sentinels, Server, ServerBuilder};
use serde_json::json;
use support::{Run, beside, key};

const PREFIX: &str = "shop";

/// Counters of all kinds that were used, and the instances live on.
struct Service {
    strict: Arc<StrictCounter>,
    lax: Arc<LaxCounter>,
    instances: Vec<Arc<StrictInstanceAwareCounter>>,
}

impl Service {
    async fn start(url: &str) -> Self {
        Self::start_on(url, 1).await
    }

    async fn start_on(url: &str, shards: u16) -> Self {
        let store: Arc<dyn Store> = connect(url).await.unwrap();
        let options = || CounterOptions::new(key(PREFIX), store.clone()).shards(shards);
        let service = Self {
            strict: StrictCounter::new(options()),
            lax: LaxCounter::new(options()),
            instances: (0..3)
                .map(|_| {
                    let options =
                        StrictInstanceAwareCounterOptions::new(key(PREFIX), store.clone());
                    let options = options.shards(shards).dead_instance_threshold_ms(600_000);
                    StrictInstanceAwareCounter::new(options)
                })
                .collect(),
        };
        for round in 0..20 {
            service.use_all(round).await;
        }
        // What is deleted, cleared and left behind is healthy, too.
        service.instances[0].del(&key("k3")).await.unwrap();
        service.instances[0].clear().await.unwrap();
        service.instances[1].inc(&key("k0"), 5).await.unwrap();
        service.lax.flush().await.unwrap();
        service
    }

    async fn use_all(&self, round: i64) {
        let name = key(&format!("k{}", round % 7));
        self.strict.inc(&name, round).await.unwrap();
        self.lax.inc(&key("lax"), 1).await.unwrap();
        let token = Token::new(format!("event {round}")).unwrap();
        self.strict.inc_once(&name, 1, &token).await.unwrap();
        for (instance, amount) in self.instances.iter().zip(1..) {
            instance.inc(&name, amount * (round - 5)).await.unwrap();
        }
    }
}

async fn doctor(args: &[&str]) -> Run {
    beside(&[&["doctor", "--json"], args].concat()).await
}

fn healthy() -> ServerBuilder {
    Server::valkey().append_only_always()
}

/// Doctor finds these codes and no others, and its status says so.
async fn finds(args: &[&str], codes: &[&str]) -> Run {
    let run = doctor(args).await;
    let mut found = run.codes();
    // On each node of a cluster.
    found.dedup();
    assert_eq!(found, codes, "{}{}", run.out, run.errors);
    // A note changes no status.
    let wrong = codes.iter().any(|code| *code != "version-trypema");
    assert_eq!(run.status, i32::from(wrong));
    run
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_server_has_no_findings_also_while_services_write() {
    let server = healthy().start();
    let url = server.url();
    finds(&[&url], &[]).await;
    let service = Service::start(&url).await;
    let changes = || {
        let info = server.cli(&["INFO", "persistence"]);
        let line = info.lines().find(|line| line.starts_with("rdb_changes_since_last_save"));
        line.unwrap().to_owned()
    };
    // Between two heartbeats.
    let before = changes();
    let run = finds(&[&url], &[]).await;
    assert_eq!(changes(), before, "doctor writes nothing");
    let report = run.json();
    assert_eq!((&report["prefixes"], &report["unchecked"]), (&1.into(), &serde_json::json!([])));

    let writer = tokio::spawn(async move {
        for round in 0.. {
            service.use_all(round).await;
            if round % 50 == 49 {
                service.instances[0].clear().await.unwrap();
            }
        }
    });
    for _ in 0..5 {
        finds(&[&url, PREFIX], &[]).await;
    }
    writer.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_hold_up_the_server_when_it_expires_is_named() {
    let server = healthy().start();
    server.cli(&["CONFIG", "SET", "lazyfree-lazy-expire", "no"]);
    let url = server.url();
    let store: Arc<dyn Store> = connect(&url).await.unwrap();
    let options = |prefix| CounterOptions::new(key(prefix), store.clone());
    let hour = Duration::from_secs(3600);
    let names: Vec<_> = (0..10_001).map(|n| key(&format!("k{n}"))).collect();
    let fill = async |counter: &StrictCounter, number: usize| {
        let all: Vec<_> = names[..number].iter().map(|name| (name, 1)).collect();
        counter.inc_all(&all).await.unwrap();
    };
    fill(&StrictCounter::new(options("lasting")), 10_001).await;
    fill(&StrictCounter::new(options("small").expire_after(hour)), 100).await;
    finds(&[&url], &[]).await;
    let expiring = StrictCounter::new(options("cart").expire_after(hour));
    let windowed = StrictCounter::new(options("hourly").windows(Windows::every(hour)));
    for counter in [expiring, windowed] {
        fill(&counter, 10_001).await;
    }
    let report = finds(&[&url], &["lazy-expire"]).await.json();
    let mut at: Vec<_> = report["findings"].as_array().unwrap().iter().map(|f| &f["at"]).collect();
    at.sort_by_key(|at| at.to_string());
    assert_eq!(at, ["cart", "hourly"]);
    finds(&[&url, "cart"], &["lazy-expire"]).await;
    server.cli(&["CONFIG", "SET", "lazyfree-lazy-expire", "yes"]);
    finds(&[&url], &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_evicts_totals_is_named() {
    let server = healthy().args(&["--maxmemory-policy", "allkeys-lru"]).start();
    let run = finds(&[&server.url()], &["eviction-allkeys"]).await;
    assert!(run.out.contains("allkeys-lru"), "{}", run.out);
    server.cli(&["CONFIG", "SET", "maxmemory-policy", "volatile-lru"]);
    finds(&[&server.url()], &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_an_append_only_file_is_named() {
    let server = Server::valkey().start();
    finds(&[&server.url()], &["aof-off"]).await;
    finds(&[&server.url(), "--allow", "aof-off"], &[]).await;
    let run = doctor(&[&server.url(), "--allow", "aof-of"]).await;
    assert!(run.status == 2 && run.errors.contains("aof-off"), "{}", run.errors);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_too_old_for_trypema_is_named() {
    let server = Server::redis().append_only_always().start();
    // Of no interest to those who do not limit rates.
    let run = finds(&[&server.url()], &["version-trypema"]).await;
    assert_eq!(run.status, 0);
    let run = doctor(&[&server.url(), "--strict"]).await;
    assert_eq!((run.status, run.codes()), (1, vec!["version-trypema".to_owned()]));
    let run = doctor(&[&server.url(), "--strict", "--allow", "version-trypema"]).await;
    assert_eq!(run.status, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_answer_is_named() {
    let run = finds(&["redis://user:secret@127.0.0.1:1"], &["unreachable"]).await;
    let finding = &run.json()["findings"][0];
    assert_eq!((&finding["at"], &finding["severity"]), (&"127.0.0.1:1".into(), &"error".into()));
    assert!(finding["what"].as_str().unwrap().contains("refused"), "{}", run.out);
    assert!(!run.out.contains("secret"), "{}", run.out);
    finds(&["redis-cluster://127.0.0.1:1"], &["unreachable"]).await;
    let run = beside(&["doctor", "redis://127.0.0.1:1"]).await;
    assert!(run.status == 1 && run.out.contains("error[unreachable] 127.0.0.1:1"), "{}", run.out);
    assert!(run.out.contains("1 finding: 0 servers, 0 prefixes looked at"), "{}", run.out);

    let server = healthy().password("right").start();
    let wrong = server.url().replace("right", "wrong");
    let run = finds(&[&wrong], &["unreachable"]).await;
    assert!(run.out.contains("password"), "{}", run.out);
    server.freeze();
    let run = finds(&[&server.url()], &["unreachable"]).await;
    server.thaw();
    assert_eq!(run.json()["servers"], json!([]));

    // What is wrong with the URL is no finding.
    let run = doctor(&["nonsense"]).await;
    assert!(run.status == 3 && run.out.is_empty(), "{}{}", run.out, run.errors);
}

#[tokio::test(flavor = "multi_thread")]
async fn totals_that_are_gone_are_named() {
    let server = healthy().start();
    let service = Service::start(&server.url()).await;
    finds(&[&server.url()], &[]).await;
    assert_eq!(server.cli(&["DEL", "distkit:{shop}:totals"]), "1");
    let run = finds(&[&server.url()], &["space-half-lost"]).await;
    assert!(run.out.contains("distkit:{shop}:totals is gone"), "{}", run.out);
    service.use_all(1).await;
    service.lax.flush().await.unwrap();
    finds(&[&server.url()], &[]).await;
    assert_eq!(service.strict.stats().losses, 1);
    // What was removed is not gone.
    service.strict.clear().await.unwrap();
    finds(&[&server.url()], &[]).await;
}

/// Every command that the counters use, denied alone.
#[tokio::test(flavor = "multi_thread")]
async fn each_denied_command_is_named() {
    for (builder, others) in
        [(healthy(), &[][..]), (Server::redis(), &["aof-off", "version-trypema"])]
    {
        denied(&builder.start(), others).await;
    }
}

async fn denied(server: &Server, others: &[&str]) {
    let _service = Service::start(&server.url()).await;
    let url = server.url().replacen("redis://", "redis://app:pw@", 1);
    server.cli(&["ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all"]);
    finds(&[&url], others).await;
    let expected = [&["right-missing"], others].concat();
    for command in ["hincrby", "hset", "zrangebyscore", "unlink", "spop", "rename", "eval"] {
        server.cli(&["ACL", "SETUSER", "app", &format!("-{command}")]);
        let run = finds(&[&url, PREFIX], &expected).await;
        assert!(run.out.contains(&command.to_uppercase()), "{}", run.out);
        server.cli(&["ACL", "SETUSER", "app", &format!("+{command}")]);
    }
    for command in ["hget", "hscan", "exists"] {
        server.cli(&["ACL", "SETUSER", "app", &format!("-{command}")]);
        let run = doctor(&[&url, PREFIX]).await;
        assert!(run.status == 1 && run.out.contains(&command.to_uppercase()), "{}", run.out);
        server.cli(&["ACL", "SETUSER", "app", &format!("+{command}")]);
    }
    server.cli(&["ACL", "SETUSER", "app", "resetkeys", "~distkit:{shop}:*"]);
    finds(&[&url], others).await;
    // Another's keys.
    server.cli(&["ACL", "SETUSER", "app", "resetkeys", "~other:*"]);
    let run = doctor(&[&url, PREFIX]).await;
    assert!(run.status == 1 && run.codes().contains(&"right-missing".to_owned()), "{}", run.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rights_of_the_production_page_are_enough_for_the_counters_of_a_prefix() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/production.md");
    let page = fs::read_to_string(page).unwrap();
    let rule = page.lines().find(|line| line.starts_with("ACL SETUSER app on")).unwrap();
    let server = healthy().start();
    let _service = Service::start(&server.url()).await;
    server.cli(&rule.split(' ').chain([">pw"]).collect::<Vec<_>>());
    let url = server.url().replacen("redis://", "redis://app:pw@", 1);
    let run = finds(&[&url, PREFIX], &[]).await;
    let unchecked = run.json()["unchecked"].to_string();
    assert!(unchecked.contains("SCAN") && unchecked.contains("CONFIG"), "{unchecked}");

    server.cli(&["HSET", "distkit:{shop}:totals", "k0", "much"]);
    server.cli(&["HINCRBY", "distkit:{shop}:i:k:k0", "t", "1"]);
    finds(&[&url, PREFIX], &["foreign-total", "total-disagrees"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_values_among_the_totals_are_named() {
    let server = healthy().start();
    let _service = Service::start(&server.url()).await;
    for value in ["much", "1.5", "007", "9223372036854775808"] {
        server.cli(&["HSET", "distkit:{shop}:totals", "foreign", value]);
        let run = finds(&[&server.url()], &["foreign-total"]).await;
        assert!(run.out.contains("foreign") && run.out.contains(value), "{}", run.out);
    }
    server.cli(&["HDEL", "distkit:{shop}:totals", "foreign"]);
    server.cli(&["HSET", "distkit:{shop}:totals", "user:7", "5"]);
    finds(&[&server.url()], &["foreign-total"]).await;
    server.cli(&["DEL", "distkit:{shop}:totals"]);
    server.cli(&["LPUSH", "distkit:{shop}:totals", "5"]);
    finds(&[&server.url()], &["wrong-type"]).await;
    server.cli(&["DEL", "distkit:{shop}:totals"]);
    // Else they are missed.
    server.cli(&["HDEL", "distkit:{shop}:shape", "totals"]);
    server.cli(&["SET", "distkit:{shop}:stray", "5"]);
    server.cli(&["EXPIRE", "distkit:{shop}:shape", "5000"]);
    finds(&[&server.url()], &["ttl-on-key", "orphan-key"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_space_of_which_a_part_is_lost_is_named() {
    let server = healthy().start();
    for (part, code) in [
        ("i:leases", "space-half-lost"),
        ("i:meta", "space-half-lost"),
        ("i:names", "space-half-lost"),
        ("i:k:k0", "space-half-lost"),
        ("i:index", "space-half-lost"),
        ("shape", "space-half-lost"),
        ("writers", "guards-lost"),
        ("lanes", "guards-lost"),
        ("tok", "guards-lost"),
    ] {
        server.cli(&["FLUSHALL"]);
        let _service = Service::start(&server.url()).await;
        finds(&[&server.url()], &[]).await;
        assert_eq!(server.cli(&["DEL", &format!("distkit:{{shop}}:{part}")]), "1", "{part}");
        let run = doctor(&[&server.url()]).await;
        assert!(run.status == 1 && run.codes().contains(&code.to_owned()), "{part}: {}", run.out);
        assert!(run.out.contains(&format!("distkit:{{shop}}:{part}")), "{part}: {}", run.out);
        if part == "i:leases" {
            assert_eq!(run.codes(), [code], "{}", run.out);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_shape_is_named() {
    let server = healthy().start();
    let _service = Service::start(&server.url()).await;
    server.cli(&["HSET", "distkit:{shop}:shape", "layout", "9"]);
    finds(&[&server.url()], &["shape-other"]).await;
    server.cli(&["HSET", "distkit:{shop}:shape", "layout", "1", "shards", "48"]);
    finds(&[&server.url(), PREFIX], &["shape-other"]).await;
    server.cli(&["HSET", "distkit:{shop}:shape", "shards", "1"]);
    server.cli(&["HSET", "distkit:{shop}:i:meta", "shape", "1 48"]);
    finds(&[&server.url(), PREFIX], &["shape-other"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_an_hour_off_is_named() {
    let server = healthy().manual_clock().start();
    let here = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let hour = Duration::from_secs(3600);
    // It begins far in the future.
    server.go_back(server.now() - here - hour);
    let run = finds(&[&server.url()], &["clock-off"]).await;
    assert!(run.out.contains("ahead of"), "{}", run.out);
    server.go_back(2 * hour);
    let run = finds(&[&server.url()], &["clock-off"]).await;
    assert!(run.out.contains("behind"), "{}", run.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_requires_full_coverage_is_named_and_so_is_a_lost_node() {
    let cluster = Cluster::of(healthy());
    let url = format!("redis-cluster://127.0.0.1:{}", cluster.nodes()[0].port());
    let _service = Service::start(&url).await;
    finds(&[&url], &["cluster-full-coverage"]).await;
    for node in cluster.nodes() {
        node.cli(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    finds(&[&url], &[]).await;
    let by_node = cluster.nodes()[1].url();
    finds(&[&by_node, PREFIX], &[]).await;
    // Wherever the prefix is.
    for node in cluster.nodes() {
        node.cli(&["HSET", "distkit:{shop}:totals", "foreign", "x"]);
    }
    finds(&[&by_node], &["foreign-total"]).await;
    cluster.nodes()[2].kill_9();
    let run = doctor(&[&by_node, "--server-only"]).await;
    assert!(run.codes().contains(&"cluster-down".to_owned()), "{}", run.out);
}

/// A server on a copy of another one's files, the last transaction of which is cut off in the middle.
fn torn(from: &Server, dir: &Path, builder: ServerBuilder) -> Server {
    from.kill_9();
    let files = dir.join("appendonlydir");
    fs::create_dir_all(&files).unwrap();
    for entry in fs::read_dir(from.dir().join("appendonlydir")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, files.join(path.file_name().unwrap())).unwrap();
    }
    let incremental = files.join("appendonly.aof.1.incr.aof");
    let held = fs::read(&incremental).unwrap();
    let last = held.windows(5).rposition(|window| window == b"MULTI").unwrap();
    // Within the last command of the transaction.
    let end = held.windows(4).rposition(|window| window == b"EXEC").unwrap();
    assert!(last < end);
    let cut = held[..end - 20].to_vec();
    fs::write(&incremental, cut).unwrap();
    builder.append_only_always().arg("--dir").arg(dir.to_str().unwrap()).start()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_append_only_file_is_named_before_and_after_it_does_harm() {
    for (builder, others) in
        [(Server::redis(), &["version-trypema"][..]), (Server::valkey(), &[][..])]
    {
        let found = |code: &'static str| [&[code][..], others].concat();
        let first = builder.clone().append_only_always().start();
        let service = Service::start(&first.url()).await;
        finds(&[&first.url()], others).await;
        service.instances[2].inc(&key("k0"), 1000).await.unwrap();
        drop(service);
        // Leaving is no transaction that is to be torn: the process was killed.
        let dir = tempfile::tempdir().unwrap();
        let server = torn_after(&first, dir.path(), builder.clone()).await;
        let run = finds(&[&server.url()], &found("aof-torn")).await;
        assert!(run.out.contains("incr.aof"), "{}", run.out);

        // The next transaction, and the next start, at which the beginning of the torn one joins it.
        let store = connect(&server.url()).await.unwrap();
        let options = StrictInstanceAwareCounterOptions::new(key(PREFIX), store);
        let late = StrictInstanceAwareCounter::new(options.dead_instance_threshold_ms(600_000));
        late.inc(&key("k1"), 7).await.unwrap();
        finds(&[&server.url()], &found("aof-torn")).await;
        server.kill_9();
        let again =
            builder.append_only_always().arg("--dir").arg(dir.path().to_str().unwrap()).start();
        let run = doctor(&[&again.url()]).await;
        assert!(run.codes().contains(&"aof-torn".to_owned()), "{}", run.out);
    }
}

async fn torn_after(first: &Server, dir: &Path, builder: ServerBuilder) -> Server {
    tokio::task::block_in_place(|| torn(first, dir, builder))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rewrite_mends_a_torn_append_only_file() {
    let first = healthy().start();
    let service = Service::start(&first.url()).await;
    service.instances[2].inc(&key("k0"), 1000).await.unwrap();
    drop(service);
    let dir = tempfile::tempdir().unwrap();
    let server = torn_after(&first, dir.path(), Server::valkey()).await;
    finds(&[&server.url()], &["aof-torn"]).await;
    server.cli(&["BGREWRITEAOF"]);
    distkit_testkit::wait_until("the end of the rewrite", || {
        let info = server.cli(&["INFO", "persistence"]);
        info.contains("aof_rewrite_in_progress:0") && info.contains("aof_rewrite_scheduled:0")
    });
    finds(&[&server.url()], &[]).await;
}

/// What a torn transaction leaves in the data, where the file cannot be seen.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_torn_transaction_leaves_behind_is_named() {
    let server = healthy().start();
    let _service = Service::start(&server.url()).await;
    finds(&[&server.url()], &[]).await;
    let hash = "distkit:{shop}:i:k:k0";
    server.cli(&["HINCRBY", hash, "t", "1"]);
    let run = finds(&[&server.url()], &["total-disagrees"]).await;
    assert!(run.out.contains("the slices make"), "{}", run.out);
    server.cli(&["HINCRBY", hash, "t", "-1"]);
    let epoch = server.cli(&["HGET", hash, "e"]);
    server.cli(&["HDEL", hash, "c"]);
    finds(&[&server.url()], &["total-disagrees"]).await;
    server.cli(&["HSET", hash, "c", &epoch]);
    server.cli(&["HSET", "distkit:{shop}:lanes", "p:0", "7 0"]);
    finds(&[&server.url()], &["lane-unanswered"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_writes_is_named() {
    let primary = healthy().start();
    let port = primary.port().to_string();
    let replica = healthy().args(&["--replicaof", &format!("127.0.0.1 {port}")]).start();
    finds(&[&replica.url()], &["replica"]).await;
    primary.cli(&["CONFIG", "SET", "min-replicas-to-write", "3"]);
    finds(&[&primary.url()], &["writes-refused"]).await;
    primary.cli(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    primary.cli(&["CONFIG", "SET", "maxmemory", "1mb"]);
    finds(&[&primary.url()], &["memory-nearly-full"]).await;
}

/// Such a server turns down even the PING that a new connection begins with.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_save_is_named() {
    let dir = tempfile::tempdir().unwrap();
    // What is to be renamed to this name cannot be.
    std::fs::create_dir_all(dir.path().join("taken/full")).unwrap();
    let directory = dir.path().to_str().unwrap();
    let server = healthy()
        .args(&["--dir", directory, "--dbfilename", "taken", "--save", "1000 1000000"])
        .start();
    finds(&[&server.url()], &[]).await;
    server.cli(&["BGSAVE"]);
    let failed = || server.cli(&["INFO", "persistence"]).contains("rdb_last_bgsave_status:err");
    let began = std::time::Instant::now();
    while !failed() {
        assert!(began.elapsed().as_secs() < 60, "the save succeeded");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    finds(&[&server.url()], &["writes-refused"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn findings_are_readable_without_json() {
    let server = Server::redis().start();
    let run = beside(&["doctor", &server.url()]).await;
    assert_eq!(run.status, 1);
    let verdict = "1 finding, 1 note: 1 server, 0 prefixes looked at";
    for text in ["warning[aof-off]", "note[version-trypema]", "-> ", verdict] {
        assert!(run.out.contains(text), "{}", run.out);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_follows_sentinel_and_unix_sockets() {
    let sentinels = Sentinels::of(healthy());
    let url = sentinels.url("redis-sentinel");
    let _service = Service::start(&url).await;
    finds(&[&url], &[]).await;
    sentinels.primary().cli(&["HSET", "distkit:{shop}:totals", "foreign", "x"]);
    finds(&[&url, PREFIX], &["foreign-total"]).await;

    let server = healthy().password("secret").start();
    let url = format!("redis+unix://{}?pass=secret", server.unix_path().display());
    let _service = Service::start(&url).await;
    let run = finds(&[&url], &[]).await;
    assert!(!run.out.contains("secret"), "{}", run.out);
}

const SHARDS: u16 = 4;

/// What the names of a shard begin with, and those of the shard of a counter.
fn of_shard(shard: u16) -> String {
    operator::key_tag(&Space::shards_of(key(PREFIX), SHARDS)[usize::from(shard)])
}

fn shard_of(name: &str) -> u16 {
    Space::shard_of(&key(name), SHARDS)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_prefix_of_several_shards_has_no_findings() {
    let server = healthy().start();
    let url = server.url();
    let service = Service::start_on(&url, SHARDS).await;
    for args in [&[&*url][..], &[&*url, PREFIX]] {
        let run = finds(args, &[]).await;
        let report = run.json();
        assert_eq!((&report["prefixes"], &report["unchecked"]), (&1.into(), &json!([])));
    }
    // Beside one whose name begins with the same.
    let store = connect(&url).await.unwrap();
    let other = StrictCounter::new(CounterOptions::new(key("shopping"), store));
    other.inc(&key("k0"), 1).await.unwrap();
    assert_eq!(finds(&[&url], &[]).await.json()["prefixes"], 2);
    assert_eq!(finds(&[&url, PREFIX], &[]).await.json()["prefixes"], 1);

    let writer = tokio::spawn(async move {
        for round in 0.. {
            service.use_all(round).await;
            if round % 50 == 49 {
                service.instances[0].clear().await.unwrap();
            }
        }
    });
    for _ in 0..3 {
        finds(&[&url], &[]).await;
    }
    assert!(!writer.is_finished());
    writer.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_in_one_shard_is_named() {
    let server = healthy().start();
    let url = server.url();
    let _service = Service::start_on(&url, SHARDS).await;
    finds(&[&url], &[]).await;
    let shard = of_shard(shard_of("k0"));
    let other = of_shard((shard_of("k0") + 1) % SHARDS);
    let at = |name: &str| format!("{shard}{name}");
    type Fault<'a> = (&'a [&'a str], &'a [&'a str], &'a [&'a str]);
    let (totals, hash, leases, shape) = (at("totals"), at("i:k:k0"), at("i:leases"), at("shape"));
    let (lost, stray) = (at("lost"), at("stray"));
    let other_totals = format!("{other}totals");
    let faults: [Fault<'_>; 8] = [
        (&["HSET", &totals, "user:7", "5"], &["foreign-total"], &["HDEL", &totals, "user:7"]),
        (&["HSET", &other_totals, "k0", "5"], &["foreign-total"], &["HDEL", &other_totals, "k0"]),
        (&["HINCRBY", &hash, "t", "1"], &["total-disagrees"], &["HINCRBY", &hash, "t", "-1"]),
        (
            &["RENAME", &leases, &lost],
            &["space-half-lost", "orphan-key"],
            &["RENAME", &lost, &leases],
        ),
        (&["SET", &stray, "5"], &["orphan-key"], &["DEL", &stray]),
        (&["EXPIRE", &totals, "5000"], &["ttl-on-key"], &["PERSIST", &totals]),
        (&["HSET", &shape, "shards", "9"], &["shape-other"], &["HSET", &shape, "shards", "4"]),
        (&["HSET", &shape, "layout", "2"], &["shape-other"], &["HSET", &shape, "layout", "1"]),
    ];
    for (plant, codes, mend) in faults {
        server.cli(plant);
        for args in [&[&*url][..], &[&*url, PREFIX]] {
            let run = finds(args, codes).await;
            assert!(run.out.contains(&shard) || run.out.contains("k0"), "{}", run.out);
            assert_eq!(run.json()["findings"][0]["at"], PREFIX, "{}", run.out);
        }
        server.cli(mend);
        finds(&[&url], &[]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_other_numbers_of_shards_away_is_checked() {
    let server = healthy().start();
    let url = server.url();
    let _service = Service::start_on(&url, SHARDS).await;
    for (lost, code) in
        [("shape", "space-half-lost"), ("totals", "space-half-lost"), ("i:meta", "space-half-lost")]
    {
        let place = format!("distkit:{{shop}}:{lost}");
        assert_eq!(server.cli(&["RENAME", &place, "aside"]), "OK");
        let run = finds(&[&url], &[code]).await;
        assert!(run.out.contains(&place), "{}", run.out);
        server.cli(&["RENAME", "aside", &place]);
    }
    finds(&[&url], &[]).await;
    // A process of one shard has counted.
    server.cli(&["RENAME", "distkit:{shop}:totals", "aside"]);
    server.cli(&["HSET", "distkit:{shop}:totals", "k0", "5"]);
    finds(&[&url], &["shape-other"]).await;
    server.cli(&["RENAME", "aside", "distkit:{shop}:totals"]);
    server.cli(&["SET", "distkit:{shop}:totals", "layout 1, 5 shards"]);
    finds(&[&url], &["shape-other"]).await;
    server.cli(&["SET", "distkit:{shop}:totals", "layout 1, 4 shards"]);
    server.cli(&["HSET", "distkit:{shop}:writers", "a", "b"]);
    finds(&[&url], &["orphan-key"]).await;
    server.cli(&["DEL", "distkit:{shop}:writers"]);
    // A shard of another number of shards.
    let stray = operator::totals(&Space::shards_of(key(PREFIX), 9)[8]);
    server.cli(&["HSET", &stray, "k0", "5"]);
    let run = finds(&[&url, PREFIX], &["shape-other"]).await;
    assert!(run.out.contains(&stray), "{}", run.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_not_use_the_shards_is_told_so() {
    let server = healthy().start();
    let _service = Service::start_on(&server.url(), SHARDS).await;
    // The prefix's own tag only.
    server.cli(&["ACL", "SETUSER", "app", "on", ">pw", "~distkit:{shop}:*", "+@all"]);
    let url = server.url().replacen("redis://", "redis://app:pw@", 1);
    let run = finds(&[&url, PREFIX], &["right-missing"]).await;
    assert!(run.out.contains("distkit:{shop:0."), "{}", run.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shards_of_a_cluster_are_looked_at_where_they_are() {
    let cluster = Cluster::of(healthy());
    let url = format!("redis-cluster://127.0.0.1:{}", cluster.nodes()[0].port());
    for node in cluster.nodes() {
        node.cli(&["CONFIG", "SET", "cluster-require-full-coverage", "no"]);
    }
    let _service = Service::start_on(&url, SHARDS).await;
    for args in [&[&*url][..], &[&*url, PREFIX]] {
        assert_eq!(finds(args, &[]).await.json()["prefixes"], 1);
    }
    for shard in 0..SHARDS {
        let stray = format!("{}stray", of_shard(shard));
        let owner = cluster.nodes().iter().find(|node| node.cli(&["SET", &stray, "5"]) == "OK");
        let run = finds(&[&url, PREFIX], &["orphan-key"]).await;
        assert!(run.out.contains(&stray), "{}", run.out);
        assert_eq!(owner.unwrap().cli(&["DEL", &stray]), "1");
    }
    finds(&[&url], &[]).await;
}
