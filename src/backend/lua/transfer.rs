//! Copies of instance-aware counters as they are stored, through `instance_export.lua` and `instance_import.lua`.

use std::collections::{BTreeMap, HashMap};

use async_trait::async_trait;

use super::{
    Arg, LuaStore, Reply, Script, ScriptRunner,
    instance::{Answer, Args, Kind, number, number_of, script},
    layout, unexpected,
};
use crate::{
    KeyFilter, RedisKey,
    backend::{
        BackendError, Cursor, Epoch, Incarnation, Page, Space,
        transfer::{Export, Held, HeldSlice, Life, Part, Registered, SliceTransfer, differs},
    },
};

static EXPORT: Script = script!("instance_export.lua");
static IMPORT: Script = script!("instance_import.lua");

/// How many members, slices, epochs and ids one script writes: some milliseconds of the server's time at most.
const MEMBERS_AT_ONCE: usize = 100;
const SLICES_AT_ONCE: usize = 200;
const ENTRIES_AT_ONCE: usize = 250;

/// How many fields of a hash are read at once.
const PORTION: usize = 500;

/// The sets in which members are registered, in the order in which they are read.
const LEASES: &str = "leases";
const DEAD: &str = "dead";

#[async_trait]
impl<R: ScriptRunner> SliceTransfer for LuaStore<R> {
    async fn export(&self, space: &Space, what: Export<'_>) -> Result<Part, BackendError> {
        let part = match what {
            Export::Life => self.export_life(space).await.map(Part::Life),
            Export::Members(from) => self.export_members(space, from).await.map(Part::Members),
            Export::Counters(keys) => self.export_counters(space, keys).await.map(Part::Counters),
            Export::Epochs { old, from } => {
                let hash = layout::instance_epochs(space, old);
                let epoch = |key, held: &_| Ok((key, Epoch(number_of(held)?)));
                let all = KeyFilter::all();
                let page = self.page_of(space, &hash, from, &all, PORTION, epoch).await;
                page.map(|page| Part::Epochs { old, page })
            }
            Export::Gone(from) => self.export_gone(space, from).await.map(Part::Gone),
        };
        part.map_err(BackendError::with_nothing_applied)
    }

    async fn import(&self, space: &Space, part: &Part) -> Result<Vec<Incarnation>, BackendError> {
        match part {
            Part::Life(None) => {}
            Part::Life(Some(life)) => {
                let mut args = vec![Arg::Text("l"), Arg::Int(space.shards().into())];
                let epochs = [life.born, life.floor, life.base, life.former, life.latest];
                args.extend(epochs.map(|epoch| number(epoch.0)));
                args.push(number(life.last.0));
                let times = [life.age, life.turned, life.max_absence, life.gone_since];
                args.extend(times.map(number));
                self.imported(space, &args).await?;
            }
            Part::Members(page) => return self.import_members(space, &page.entries).await,
            Part::Counters(counters) => self.import_counters(space, counters).await?,
            Part::Epochs { old, page } => {
                for entries in page.entries.chunks(ENTRIES_AT_ONCE) {
                    let hash = if *old { "tombs:old" } else { "tombs" };
                    let mut args = vec![Arg::Text("e"), Arg::Text(hash)];
                    for (key, epoch) in entries {
                        args.extend([Arg::Text(key), number(epoch.0)]);
                    }
                    self.imported(space, &args).await?;
                }
            }
            Part::Gone(page) => {
                for entries in page.entries.chunks(ENTRIES_AT_ONCE) {
                    let mut args = vec![Arg::Text("g")];
                    for (id, age) in entries {
                        args.extend([Arg::Text(id), number(*age)]);
                    }
                    self.imported(space, &args).await?;
                }
            }
        }
        Ok(Vec::new())
    }
}

impl<R: ScriptRunner> LuaStore<R> {
    async fn export_life(&self, space: &Space) -> Result<Option<Life>, BackendError> {
        let mut answer = self.call(&EXPORT, space, &[Arg::Text("l")], Kind::Look).await?;
        if answer.left() == 0 {
            return Ok(None);
        }
        Ok(Some(Life {
            born: Epoch(answer.number()?),
            floor: Epoch(answer.number()?),
            base: Epoch(answer.number()?),
            former: Epoch(answer.number()?),
            latest: Epoch(answer.number()?),
            last: Incarnation(answer.number()?),
            age: answer.number()?,
            turned: answer.number()?,
            max_absence: answer.number()?,
            gone_since: answer.number()?,
        }))
    }

    /// Those of one set, then of the other: nobody comes or goes meanwhile.
    async fn export_members(
        &self,
        space: &Space,
        from: Option<&Cursor>,
    ) -> Result<Page<Registered>, BackendError> {
        let (set, rank) = match from.map(|place| place.as_str().split_once(' ')) {
            None => (LEASES, "0"),
            Some(Some((set @ (LEASES | DEAD), rank))) => (set, rank),
            Some(_) => return Err(BackendError::not_applied("that is no place in a copy")),
        };
        let args = [Arg::Text("m"), Arg::Text(set), Arg::Text(rank)];
        let mut answer = self.call(&EXPORT, space, &args, Kind::Look).await?;
        let seen = answer.number()?;
        let mut members = Vec::with_capacity(answer.left() / 7);
        while answer.left() > 0 {
            members.push(Registered {
                incarnation: Incarnation(answer.number()?),
                id: answer.text()?.into(),
                name: RedisKey::new(answer.text()?).ok(),
                first: Incarnation(answer.number()?),
                lease: answer.number()?,
                left: answer.number()?,
                late: answer.flag()?,
            });
        }
        let rank: u64 = rank.parse().map_err(|_| unexpected(&rank))?;
        let next = match (seen, set) {
            (1.., set) => Some(format!("{set} {}", rank + seen)),
            (0, LEASES) => Some(format!("{DEAD} 0")),
            (0, _) => None,
        };
        Ok(Page::new(members, next.map(Cursor::new)))
    }

    async fn export_counters(
        &self,
        space: &Space,
        keys: &[RedisKey],
    ) -> Result<Vec<Held>, BackendError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut args = vec![Arg::Text("c")];
        args.extend(keys.iter().map(|key| Arg::Text(key)));
        let mut answer = self.call(&EXPORT, space, &args, Kind::Look).await?;
        let done = usize::try_from(answer.number()?).unwrap_or_default().min(keys.len());
        let mut counters = Vec::with_capacity(done);
        for key in &keys[..done] {
            let epoch = Epoch(answer.number()?);
            let mut slices = Vec::new();
            let number = answer.signed()?;
            if number < 0 {
                slices = self.export_many_slices(space, key).await?;
            }
            for _ in 0..number {
                let owner = Incarnation(answer.number()?);
                let value = answer.signed()?;
                let put_back = match (answer.text()?, answer.text()?) {
                    (epoch, _) if epoch.is_empty() => None,
                    (epoch, value) => match (epoch.parse(), value.parse()) {
                        (Ok(epoch), Ok(value)) => Some((Epoch(epoch), value)),
                        _ => return Err(unexpected(&(epoch, value))),
                    },
                };
                slices.push(HeldSlice { owner, value, put_back });
            }
            counters.push(Held { key: key.clone(), epoch, slices });
        }
        Ok(counters)
    }

    /// All slices of a counter of which no script could read all at once. A field that comes twice is the same.
    async fn export_many_slices(
        &self,
        space: &Space,
        key: &RedisKey,
    ) -> Result<Vec<HeldSlice>, BackendError> {
        let hash = format!("{}k:{key}", layout::instance_names(space));
        let (mut values, mut claims) = (BTreeMap::new(), HashMap::new());
        let mut from = Some(None);
        while let Some(at) = from {
            let (fields, next) = self.fields_of(space, &hash, at.as_ref(), PORTION).await?;
            for (field, value) in &fields {
                let (Ok(field), Reply::Bytes(value)) = (std::str::from_utf8(field), value) else {
                    continue;
                };
                let value = String::from_utf8_lossy(value);
                if let Ok(owner) = field.parse().map(Incarnation) {
                    let value = value.parse::<i64>();
                    values
                        .insert(owner, value.map_err(|_| BackendError::Corrupt(field.to_owned()))?);
                } else if let Some(Ok(owner)) = field.strip_prefix('o').map(str::parse) {
                    let claim = value.split_once(' ');
                    let claim = claim.and_then(|(epoch, value)| {
                        Some((Epoch(epoch.parse().ok()?), value.parse().ok()?))
                    });
                    claims.extend(claim.map(|claim| (Incarnation(owner), claim)));
                }
            }
            from = next.map(Some);
        }
        let slice =
            |(owner, value)| HeldSlice { owner, value, put_back: claims.get(&owner).copied() };
        Ok(values.into_iter().map(slice).collect())
    }

    async fn export_gone(
        &self,
        space: &Space,
        from: Option<&Cursor>,
    ) -> Result<Page<(String, u64)>, BackendError> {
        let hash = layout::instance_gone(space);
        let (fields, next) = self.fields_of(space, &hash, from, PORTION).await?;
        let mut gone = Vec::with_capacity(fields.len());
        for (id, age) in fields.iter().filter(|(id, _)| id != b":") {
            gone.push((String::from_utf8_lossy(id).into_owned(), number_of(age)?));
        }
        Ok(Page::new(gone, next))
    }

    async fn import_members(
        &self,
        space: &Space,
        members: &[Registered],
    ) -> Result<Vec<Incarnation>, BackendError> {
        let mut incarnations = Vec::with_capacity(members.len());
        for members in members.chunks(MEMBERS_AT_ONCE) {
            let mut args = vec![Arg::Text("m")];
            for member in members {
                args.extend([
                    Arg::Text(&member.id),
                    Arg::Text(member.name.as_deref().unwrap_or("")),
                    number(member.first.0),
                    number(member.lease),
                    number(member.left),
                    Arg::Text(if member.late { "1" } else { "" }),
                ]);
            }
            let mut answer = self.imported(space, &args).await?;
            for _ in members {
                incarnations.push(Incarnation(answer.number()?));
            }
        }
        Ok(incarnations)
    }

    async fn import_counters(&self, space: &Space, counters: &[Held]) -> Result<(), BackendError> {
        let mut rows: Vec<(&Held, &HeldSlice)> = Vec::new();
        for counter in counters {
            rows.extend(counter.slices.iter().map(|slice| (counter, slice)));
        }
        for rows in rows.chunks(SLICES_AT_ONCE) {
            let mut args: Args<'_> = vec![Arg::Text("s")];
            for (counter, slice) in rows {
                args.extend([Arg::Text(&counter.key), number(counter.epoch.0)]);
                args.extend([number(slice.owner.0), Arg::Int(slice.value)]);
                args.extend(match slice.put_back {
                    None => [Arg::Text(""), Arg::Text("")],
                    Some((epoch, value)) => [number(epoch.0), Arg::Int(value)],
                });
            }
            self.imported(space, &args).await?;
        }
        Ok(())
    }

    async fn imported(&self, space: &Space, args: &Args<'_>) -> Result<Answer, BackendError> {
        let answer = self.call(&IMPORT, space, args, Kind::Write).await;
        let mut answer = answer.map_err(|error| match error {
            // A part of it is lost.
            BackendError::NotJoined => differs(),
            error => error,
        })?;
        if answer.flag()? { Ok(answer) } else { Err(differs()) }
    }
}
