//! The instance-aware counters of a space: what must stand beside what.

use std::collections::{HashMap, HashSet};

use distkit::{
    RedisKey,
    backend::{Space, operator, operator::RawReply},
};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    findings::{Code, Findings},
    plain::{is_count, is_sound, shown, strayed},
};
use crate::{
    error::Result,
    members::AT_ONCE,
    server::{PORTION, Server, each_field, text, unexpected},
};

/// Hashes of counters with more slices are not looked into: it would hold the server.
const LONGEST_HASH: i64 = 2000;

#[derive(Debug)]
pub(super) struct InstanceSpace {
    space: Space,
    /// What all names begin with.
    names: String,
    at: String,
    meta: HashMap<String, String>,
    joined: HashSet<String>,
    dead: HashSet<String>,
    /// Nothing can be said of an incarnation.
    unknown_members: bool,
}

impl InstanceSpace {
    pub(super) async fn open(
        server: &Server,
        space: &Space,
        at: &str,
        found: &mut Findings,
    ) -> Result<Self> {
        let names = operator::instance_names(space);
        let mut this = Self {
            space: space.clone(),
            at: at.to_owned(),
            meta: HashMap::new(),
            joined: HashSet::new(),
            dead: HashSet::new(),
            unknown_members: false,
            names,
        };
        let mut sound = HashMap::new();
        for (part, kind) in [
            ("meta", "hash"),
            ("leases", "zset"),
            ("dead", "zset"),
            ("names", "hash"),
            ("gone", "hash"),
            ("index", "hash"),
            ("tombs", "hash"),
            ("tombs:old", "hash"),
        ] {
            sound.insert(part, is_sound(server, at, &this.name(part), kind, found).await?);
        }
        let has = |part: &str| sound.get(part) == Some(&true);
        if has("meta") {
            let meta = &mut this.meta;
            each_field(server, &format!("{}meta", this.names), |field, value| {
                meta.insert(field, value);
            })
            .await?;
        }
        if has("leases") {
            this.joined = zset(server, &this.name("leases")).await?;
        }
        if has("dead") {
            this.dead = zset(server, &this.name("dead")).await?;
        }
        this.check_parts(server, space, &has, found).await?;
        Ok(this)
    }

    fn name(&self, part: &str) -> String {
        format!("{}{part}", self.names)
    }

    fn lost(&self, what: impl Into<String>, found: &mut Findings) {
        found.add(Code::SpaceHalfLost, &self.at, what);
    }

    async fn check_parts(
        &mut self,
        server: &Server,
        space: &Space,
        has: &dyn Fn(&str) -> bool,
        found: &mut Findings,
    ) -> Result<()> {
        let there: Vec<&str> = ["leases", "names", "gone", "index", "dead"]
            .into_iter()
            .filter(|part| has(part))
            .collect();
        if !self.meta.contains_key("born") {
            self.unknown_members = true;
            if !there.is_empty() {
                let what =
                    format!("{} is gone, and {} is there", self.name("meta"), there.join(", "));
                self.lost(what, found);
            }
            return Ok(());
        }
        let shape = self.meta.get("shape").map_or("none", String::as_str);
        let ours = format!("{} {}", operator::LAYOUT, space.shards());
        if shape != ours {
            let what =
                format!("{} has the shape {shape}, and the prefix has {ours}", self.name("meta"));
            found.add(Code::ShapeOther, &self.at, what);
        }
        if server.number("EXISTS", &[&operator::shape(space)]).await? == 0 {
            self.lost(format!("{} is gone", operator::shape(space)), found);
        }
        // Each of these holds a mark, so that it is there even where nobody is.
        let marked = |part: &'static str| (part, self.name(part));
        let mut wanted = vec![marked("names"), marked("gone")];
        if self.meta.contains_key("tombs") {
            wanted.push(marked("tombs"));
        }
        for (part, key) in wanted {
            if server.ask("HGET", &[&key, ":"]).await? == RawReply::Nil {
                self.lost(
                    format!("{key} is gone, or lost its mark: {part} of before are unknown"),
                    found,
                );
            }
        }
        if !self.joined.contains(":") {
            self.unknown_members = true;
            let key = self.name("leases");
            self.lost(format!("{key} is gone, or lost its mark: nobody is known to live"), found);
        }
        // In this order: whoever sweeps the last one removes the field with it.
        if self.meta.contains_key("dead")
            && server.number("EXISTS", &[&self.name("dead")]).await? == 0
            && server.number("HEXISTS", &[&self.name("meta"), "dead"]).await? == 1
        {
            self.unknown_members = true;
            self.lost(
                format!("{} is gone: slices of expired instances may stay", self.name("dead")),
                found,
            );
        }
        for who in self.joined.iter().filter(|who| *who != ":") {
            for (part, command, member) in
                [("inst", "EXISTS", None), ("v", "EXISTS", None), ("keys", "SISMEMBER", Some(":"))]
            {
                let key = self.name(&format!("{part}:{who}"));
                let args: Vec<&str> = [key.as_str()].into_iter().chain(member).collect();
                if server.number(command, &args).await? == 0
                    && self.still_joined(server, who).await?
                {
                    self.lost(format!("{key} of a joined instance is gone"), found);
                }
            }
        }
        Ok(())
    }

    async fn still_joined(&self, server: &Server, who: &str) -> Result<bool> {
        Ok(server.ask("ZSCORE", &[&self.name("leases"), who]).await? != RawReply::Nil)
    }

    fn floor(&self) -> u64 {
        self.meta.get("floor").and_then(|floor| floor.parse().ok()).unwrap_or(0)
    }

    /// Looks at names of this space, without what they all begin with. Some may be gone by now.
    pub(super) async fn check_names(
        &self,
        server: &Server,
        rests: Vec<String>,
        found: &mut Findings,
    ) -> Result<()> {
        let results: Vec<Findings> = stream::iter(rests)
            .map(|rest| async move {
                let mut found = Findings::default();
                self.check_name(server, &rest, &mut found).await.map(|()| found)
            })
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await?;
        results.into_iter().for_each(|more| found.extend(more));
        Ok(())
    }

    async fn check_name(&self, server: &Server, rest: &str, found: &mut Findings) -> Result<()> {
        const PARTS: [&str; 9] =
            ["meta", "leases", "index", "quiet", "dead", "names", "gone", "tombs", "tombs:old"];
        if PARTS.contains(&rest) {
            return Ok(());
        }
        let name = self.name(rest);
        match rest.split_once(':') {
            // Those that the index names are checked by it.
            Some(("k", key)) => return self.check_indexed(server, &name, key, found).await,
            Some(("lease" | "inst" | "v" | "keys", who)) => {
                if self.unknown_members || self.joined.contains(who) || self.dead.contains(who) {
                    return Ok(());
                }
                let registered = self.still_joined(server, who).await?
                    || server.ask("ZSCORE", &[&self.name("dead"), who]).await? != RawReply::Nil;
                if registered {
                    return Ok(());
                }
            }
            _ => {}
        }
        if server.number("EXISTS", &[&name]).await? > 0 {
            found.add(Code::OrphanKey, &self.at, format!("{name} belongs to nobody"));
        }
        Ok(())
    }

    /// One counter, which the index has under `epoch`: its total must be the sum of its slices.
    async fn check_counter(
        &self,
        server: &Server,
        name: &str,
        (key, epoch): (&str, &str),
        found: &mut Findings,
    ) -> Result<()> {
        match server.ask("HLEN", &[name]).await? {
            RawReply::Int(0) => {
                let current = epoch.parse().unwrap_or(0) >= self.floor();
                let named = server.ask("HGET", &[&self.name("index"), key]).await?;
                if current && named != RawReply::Nil {
                    let index = self.name("index");
                    self.lost(format!("{name} is gone, and {index} names it"), found);
                }
                return Ok(());
            }
            RawReply::Int(fields) if fields > LONGEST_HASH => {
                found.unchecked(format!("{name}: {fields} fields are too many to add up at once"));
                return Ok(());
            }
            RawReply::Error { code, .. } if code == "WRONGTYPE" => {
                found.add(Code::WrongType, &self.at, format!("{name} should be a hash"));
                return Ok(());
            }
            _ => {}
        }
        // In one command: a service may be writing.
        let reply = server.command("HGETALL", &[name]).await?;
        let RawReply::Array(items) = &reply else { return Err(unexpected("HGETALL", &reply)) };
        let fields: HashMap<String, String> = items
            .chunks(2)
            .filter_map(|pair| Some((text(&pair[0])?, text(pair.get(1)?)?)))
            .collect();
        if fields.is_empty() {
            return Ok(());
        }
        let disagrees = |what: String, found: &mut Findings| {
            found.add(Code::TotalDisagrees, &self.at, format!("{}: {what}", shown(key)));
        };
        let (Some(total), Some(epoch), true) =
            (fields.get("t"), fields.get("e"), fields.contains_key("c"))
        else {
            disagrees(format!("{name} is incomplete: it lacks t, e or c"), found);
            return Ok(());
        };
        if epoch.parse().unwrap_or(0) < self.floor() {
            // Cleared, and not swept yet.
            return Ok(());
        }
        let mut sum: i128 = 0;
        for (field, value) in
            fields.iter().filter(|(field, _)| field.starts_with(|c: char| c.is_ascii_digit()))
        {
            if !is_count(value) {
                let what = format!("{}: the slice of {field} is {}", shown(key), shown(value));
                found.add(Code::ForeignTotal, &self.at, what);
                return Ok(());
            }
            sum += value.parse::<i128>().unwrap_or(0);
        }
        if !is_count(total) {
            let what = format!("{}: the total is {}", shown(key), shown(total));
            found.add(Code::ForeignTotal, &self.at, what);
        } else if !fields.contains_key("s") && total.parse::<i128>().ok() != Some(sum) {
            disagrees(format!("the total is {total}, and the slices make {sum}"), found);
        }
        Ok(())
    }

    async fn check_indexed(
        &self,
        server: &Server,
        name: &str,
        key: &str,
        found: &mut Findings,
    ) -> Result<()> {
        if server.ask("HGET", &[&self.name("index"), key]).await? != RawReply::Nil {
            return Ok(());
        }
        let epoch = server.ask("HGET", &[name, "e"]).await?;
        let epoch = text(&epoch).and_then(|epoch| epoch.parse().ok());
        // Below the floor: cleared, and not swept yet.
        if !self.meta.is_empty() && epoch.is_some_and(|epoch: u64| epoch >= self.floor()) {
            let index = self.name("index");
            self.lost(format!("{name} is there, and its entry in {index} is gone"), found);
        }
        Ok(())
    }

    /// What the index names must be there.
    pub(super) async fn check_index(&self, server: &Server, found: &mut Findings) -> Result<()> {
        if self.meta.is_empty() {
            return Ok(());
        }
        let index = self.name("index");
        let mut cursor = Some("0".to_owned());
        while let Some(at) = cursor {
            let reply = server.scan("HSCAN", Some(&index), &at, &["COUNT", PORTION]).await?;
            let (items, next) = reply;
            let results: Vec<Findings> = stream::iter(items.chunks(2).map(<[String]>::to_vec))
                .map(|pair| async move {
                    let mut found = Findings::default();
                    self.check_entry(server, pair, &mut found).await.map(|()| found)
                })
                .buffer_unordered(AT_ONCE)
                .try_collect()
                .await?;
            results.into_iter().for_each(|more| found.extend(more));
            cursor = next;
        }
        Ok(())
    }

    async fn check_entry(
        &self,
        server: &Server,
        pair: Vec<String>,
        found: &mut Findings,
    ) -> Result<()> {
        let [key, epoch] = &pair[..] else { return Ok(()) };
        if let Some(strayed) = RedisKey::new(key).ok().and_then(|key| strayed(&self.space, &key)) {
            found.add(Code::ForeignTotal, &self.at, strayed);
        }
        self.check_counter(server, &self.name(&format!("k:{key}")), (key, epoch), found).await
    }
}

/// The members of a sorted set, a portion at a time.
async fn zset(server: &Server, key: &str) -> Result<HashSet<String>> {
    let mut members = HashSet::new();
    for from in (0u64..).step_by(500) {
        let part =
            server.texts("ZRANGE", &[key, &from.to_string(), &(from + 499).to_string()]).await?;
        let count = part.len();
        members.extend(part.into_iter().flatten());
        if count < 500 {
            break;
        }
    }
    Ok(members)
}
