use std::time::Duration;

use distkit::backend::{InstanceBackend, Member};

use crate::bed::{Bed, LONG, adds};

/// What the server has spent: the CPU time of its main thread, which other load on the machine changes
/// little, and how many scripts and commands it has run.
#[derive(Clone, Copy)]
struct Spent {
    cpu: Duration,
    scripts: u64,
    commands: u64,
}

impl Bed {
    async fn spent(&self) -> Spent {
        let info = redis::cmd("INFO").arg("cpu").arg("commandstats").to_owned();
        let info: String = info.query_async(&mut self.raw.clone()).await.unwrap();
        let mut spent = Spent { cpu: Duration::ZERO, scripts: 0, commands: 0 };
        for line in info.lines() {
            let Some((name, value)) = line.split_once(':') else { continue };
            if name.ends_with("_main_thread") {
                spent.cpu += Duration::from_secs_f64(value.parse().unwrap());
            } else if let Some(command) = name.strip_prefix("cmdstat_") {
                let calls = value.strip_prefix("calls=").unwrap().split(',').next().unwrap();
                let calls: u64 = calls.parse().unwrap();
                spent.commands += calls;
                spent.scripts += if command == "evalsha" { calls } else { 0 };
            }
        }
        spent
    }

    /// Lets the leases of all instances but `survivor` run out at this moment.
    fn kill_all_but(&self, survivor: &Member) {
        const SCRIPT: &str = "redis.call('DEL', ARGV[1] .. 'quiet') \
            for _, who in ipairs(redis.call('ZRANGE', ARGV[1] .. 'leases', 0, -1)) do \
                if who ~= ':' and who ~= ARGV[2] then \
                    redis.call('ZADD', ARGV[1] .. 'leases', 1, who) \
                    redis.call('DEL', ARGV[1] .. 'lease:' .. who) \
                end \
            end return redis.call('HSET', ARGV[1] .. 'meta', 'due', 1)";
        let survivor = survivor.incarnation.to_string();
        assert_eq!(self.server.cli(&["EVAL", SCRIPT, "0", "distkit:{bed}:i:", &survivor]), "0");
    }
}

/// What the operations of one kind cost the server.
struct Costs {
    what: &'static str,
    /// CPU time and commands for each script of an operation, on average.
    each: Vec<(Duration, u64)>,
}

impl Costs {
    fn of(what: &'static str) -> Self {
        Self { what, each: Vec::new() }
    }

    /// Takes in one operation.
    fn add(&mut self, before: Spent, after: Spent) {
        let scripts = after.scripts - before.scripts;
        let cpu = (after.cpu - before.cpu) / u32::try_from(scripts).unwrap();
        self.each.push((cpu, (after.commands - before.commands) / scripts));
    }

    /// Prints them, and gives the most commands that a script ran.
    fn report(mut self) -> u64 {
        self.each.sort();
        let at = |part: f64| self.each[((self.each.len() - 1) as f64 * part) as usize].0;
        let most = self.each.iter().map(|(_, commands)| *commands).max().unwrap();
        println!(
            "{:>11}: {} operations, CPU per script: median {:?}, p99 {:?}, worst {:?}; at most {most} \
             commands",
            self.what,
            self.each.len(),
            at(0.5),
            at(0.99),
            at(1.0),
        );
        most
    }
}

/// A thousand instances die at once. `DISTKIT_BACKLOG_KEYS` says how many keys each of them has.
#[tokio::test]
async fn the_slices_of_expired_instances_are_swept_until_none_is_left() {
    const EXPIRED: usize = 1000;
    let keys = std::env::var("DISTKIT_BACKLOG_KEYS").map_or(200, |keys| keys.parse().unwrap());
    let bed = Bed::new().await;
    let survivor = bed.join(LONG).await;
    let writes = adds(keys);
    let touched = 50;
    bed.apply(&survivor, &writes[..touched]).await;
    let empty = bed.memory();
    let mut built = Costs::of("to build");
    for _ in 0..EXPIRED {
        let member = bed.join(LONG).await;
        let before = bed.spent().await;
        bed.apply(&member, &writes).await;
        built.add(before, bed.spent().await);
    }
    built.report();
    let full = bed.memory();
    bed.server.cli(&["CONFIG", "SET", "slowlog-log-slower-than", "1000"]);
    bed.server.cli(&["CONFIG", "SET", "slowlog-max-len", "100000"]);
    bed.kill_all_but(&survivor);
    bed.server.cli(&["SLOWLOG", "RESET"]);

    // Exact at the first touch, whether one key or many. Nobody touches the other half of the keys.
    let mut touch = Costs::of("one key");
    for write in &writes[..touched] {
        let before = bed.spent().await;
        let total = bed.apply(&survivor, std::slice::from_ref(write)).await[0].total;
        touch.add(before, bed.spent().await);
        assert_eq!(total, 2);
    }
    let mut batch = Costs::of("half of all");
    let before = bed.spent().await;
    let standings = bed.apply(&survivor, &writes[..keys / 2]).await;
    batch.add(before, bed.spent().await);
    let totals: Vec<_> = standings.iter().map(|standing| standing.total).collect();
    let expected = [vec![3; touched], vec![1; keys / 2 - touched]].concat();
    assert_eq!(totals, expected);
    // Keys of expired instances only go with the first look at them.
    let theirs: Vec<_> = writes[keys - 10..].iter().map(|write| write.key.clone()).collect();
    let read = bed.store.read_on(&bed.space, &survivor, &theirs).await.unwrap().answer;
    assert!(read.iter().all(|standing| standing.as_ref().unwrap().total == 0));

    let mut sweep = Costs::of("heartbeat");
    while bed.server.cli(&["EXISTS", "distkit:{bed}:i:dead"]) != "0" {
        let before = bed.spent().await;
        bed.store.heartbeat(&bed.space, &survivor).await.unwrap();
        sweep.add(before, bed.spent().await);
        assert!(sweep.each.len() < 100_000, "the backlog does not shrink");
    }
    assert_eq!(bed.audit(), keys / 2);
    assert_eq!(bed.server.cli(&["EXISTS", "distkit:{bed}:i:quiet"]), "1", "calls are quick again");
    let slow = bed.server.cli(&[
        "EVAL",
        "local worst, n = 0, 0 for _, entry in ipairs(redis.call('SLOWLOG', 'GET', '-1')) do \
            if entry[4][1] == 'EVALSHA' then n = n + 1 worst = math.max(worst, entry[3]) end \
        end return worst .. ' us, over 1 ms: ' .. n",
        "0",
    ]);
    println!("slowest script {slow}, while others may have had the CPU");
    // A portion is small, however many have expired: this is what keeps an operation short.
    for costs in [touch, batch, sweep] {
        let most = costs.report();
        assert!(most < 3000, "a script ran {most} commands");
    }
    bed.store.leave(&bed.space, &survivor).await.unwrap();
    assert_eq!(
        bed.names_of_instances(),
        ["gone", "leases", "meta", "names"].map(|name| format!("distkit:{{bed}}:i:{name}"))
    );
    let left = bed.memory();
    println!("bytes of the keys: {empty} before, {full} with all instances, {left} after");
    // The ids of 1000 that are gone, for as long as their claims are kept; and the hash of names keeps the
    // buckets of its greatest size.
    assert!(left < 100_000 && full > 100_000, "{left} bytes are left of {full}");
}

/// Quick operations renew the key of a lease alone; the set of leases learns of it when somebody looks.
#[tokio::test]
async fn an_expired_lease_is_detected_behind_any_number_of_renewed_ones() {
    const RENEWED_UNKNOWN: &str = "local leases = ARGV[1] .. 'leases' \
        for _, who in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', '(+inf')) do redis.call('ZADD', leases, 1, who) end \
        redis.call('ZADD', leases, 2, ARGV[2]) \
        redis.call('DEL', ARGV[1] .. 'lease:' .. ARGV[2], ARGV[1] .. 'quiet') \
        return redis.call('HSET', ARGV[1] .. 'meta', 'due', 1)";
    let bed = Bed::new().await;
    let dead = bed.join(LONG).await;
    let survivor = bed.join(LONG).await;
    for member in [&dead, &survivor] {
        bed.apply(member, &adds(1)).await;
    }
    for _ in 0..1100 {
        bed.join(LONG).await;
    }
    let dead = dead.incarnation.to_string();
    assert_eq!(bed.server.cli(&["EVAL", RENEWED_UNKNOWN, "0", "distkit:{bed}:i:", &dead]), "0");
    assert_eq!(bed.apply(&survivor, &adds(1)).await[0].total, 2, "the expired one's is gone");
    bed.store.heartbeat(&bed.space, &survivor).await.unwrap();
    assert_eq!(
        bed.server.cli(&["ZCARD", "distkit:{bed}:i:leases"]),
        "1102",
        "the others live, and the mark"
    );
    bed.audit();
}
