//! Listings: what is in the pages of several of them, while counters come and go between any two.
//!
//! The hash of a server grows and shrinks meanwhile, and goes and comes again, with another seed after a restart.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use distkit::{
    KeyFilter, RedisKey, Windows,
    backend::{BackendError, Cursor, Outcome, Refusal, Space, Write},
};

use crate::{
    cases::times,
    cast::Who,
    world::{Fault, Simulated, World, runtime},
};

/// The most counters of a page of which a hundred were asked for at most: a server gives all that it finds in one place.
const LARGEST_PAGE: usize = 1000;
/// How many pages a listing has at most during which nothing is written.
const MANY_PAGES: usize = 5000;
/// How many counters there are to write to.
const KEYS: usize = 3000;
const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);

const ODD: [&str; 8] = ["*", "a?b", "[ab]", r"back\slash", "two words", "ünï", "{tag}", "k1?"];

const FILTERS: [&str; 8] = ["*", "k1*", "*7", "k?9*", "*b*", r"a\?b", "ü*", "nothing"];

/// A listing under way, and what it may tell.
struct Scan {
    filter: KeyFilter,
    count: usize,
    from: Option<Cursor>,
    /// Held from its beginning until now, and not listed yet.
    owed: BTreeSet<RedisKey>,
    /// All that counters have held since its beginning.
    held: BTreeMap<RedisKey, Vec<Outcome<i64>>>,
    pages: usize,
}

struct Player<'w, W> {
    world: &'w W,
    dice: fastrand::Rng,
    space: Space,
    names: Vec<RedisKey>,
    model: BTreeMap<RedisKey, Outcome<i64>>,
    scans: Vec<Scan>,
    story: Vec<String>,
    /// How many pages did not end their listing.
    parts: usize,
}

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

/// Plays a history, and gives how many pages were followed by another one.
pub(crate) async fn play(world: &impl World, prefix: &str, seed: u64) -> Result<usize, String> {
    let mut dice = fastrand::Rng::with_seed(seed);
    let whole = match dice.u8(..3) {
        0 => Space::shards_of(key(prefix), 3)[1].clone(),
        _ => Space::new(key(prefix)),
    };
    for who in Who::ALL {
        world.link(who).clear(&whole).await.unwrap();
    }
    let link = world.link(Who::Anna);
    let windowing = link.capabilities().windows.ok_or("no windows")?;
    let now = windowing.time(&whole).await.unwrap();
    let space = match dice.u8(..3) {
        0 => whole.in_window(Windows::every(CENTURY).at(now)),
        _ => whole,
    };
    let names = (0..KEYS).map(|n| key(&format!("k{n}"))).chain(ODD.map(key)).collect();
    let mut player = Player {
        world,
        dice,
        space,
        names,
        model: BTreeMap::new(),
        scans: Vec::new(),
        story: Vec::new(),
        parts: 0,
    };
    let ended = player.run().await;
    ended.map_err(|why| format!("{}\n  ! {why}", player.story.join("\n")))?;
    Ok(player.parts)
}

impl<W: World> Player<'_, W> {
    async fn run(&mut self) -> Result<(), String> {
        self.write_many().await?;
        for _ in 0..60 {
            self.step().await?;
        }
        while !self.scans.is_empty() {
            self.page(0).await?;
        }
        // All of it, in peace: each counter once at least, and nothing else.
        self.begin(KeyFilter::all(), 100);
        while !self.scans.is_empty() {
            self.page(0).await?;
        }
        self.count().await
    }

    async fn step(&mut self) -> Result<(), String> {
        match self.dice.u8(..24) {
            0..2 => {
                let filter = match self.dice.u8(..3) {
                    0 => KeyFilter::all(),
                    1 => KeyFilter::prefix(["k", "k2", "[", ""][self.dice.usize(..4)]),
                    _ => KeyFilter::glob(FILTERS[self.dice.usize(..FILTERS.len())]),
                };
                if self.scans.len() < 3 {
                    let count = [1, 10, 50, 100][self.dice.usize(..4)];
                    self.begin(filter, count);
                }
                Ok(())
            }
            2..15 => {
                for _ in 0..self.dice.u8(1..5) {
                    if !self.scans.is_empty() {
                        let scan = self.dice.usize(..self.scans.len());
                        self.page(scan).await?;
                    }
                }
                Ok(())
            }
            15..18 => self.write_some().await,
            18 | 19 => self.write_many().await,
            20 => self.count().await,
            21 => self.plant().await,
            22 if self.dice.u8(..3) == 0 => {
                self.world.link(self.who()).clear(&self.space).await.unwrap();
                self.story.push("all counters are cleared".to_owned());
                self.lose_all();
                Ok(())
            }
            // While there is something to go on with.
            23 if !self.scans.is_empty() => {
                let keep_data = self.dice.u8(..4) != 0;
                self.world.restart(keep_data).await;
                self.story.push(format!("the store restarts; data kept: {keep_data}"));
                if !keep_data {
                    self.lose_all();
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn who(&mut self) -> Who {
        Who::ALL[self.dice.usize(..Who::ALL.len())]
    }

    fn begin(&mut self, filter: KeyFilter, count: usize) {
        self.story.push(format!("a listing of {filter:?} begins, by {count}"));
        let selected = self.model.keys().filter(|key| filter.matches(key));
        self.scans.push(Scan {
            owed: selected.cloned().collect(),
            held: self.model.iter().map(|(key, held)| (key.clone(), vec![held.clone()])).collect(),
            filter,
            count,
            from: None,
            pages: 0,
        });
    }

    /// The next page of a listing, by anybody.
    async fn page(&mut self, at: usize) -> Result<(), String> {
        let who = self.who();
        let fault = match self.dice.u8(..12) {
            0 => Some(Fault::LosesRequest),
            1 => Some(Fault::LosesReply),
            _ => None,
        };
        let link = self.world.link(who);
        let enumeration = link.capabilities().enumeration.ok_or("no listings")?;
        let scan = &mut self.scans[at];
        if let Some(fault) = fault {
            // A page that does not count: no script is missing then, nor anything that the link knows of the space.
            let warm = enumeration.page(&self.space, None, &scan.filter, scan.count).await;
            warm.map_err(|error| error.to_string())?;
            self.world.fault(who, None, fault);
            let page =
                enumeration.page(&self.space, scan.from.as_ref(), &scan.filter, scan.count).await;
            self.world.fault(who, None, Fault::Restored);
            if !matches!(page, Err(BackendError::NotApplied(_))) {
                return Err(format!("{page:?}, although a message got lost"));
            }
        }
        let page = enumeration.page(&self.space, scan.from.as_ref(), &scan.filter, scan.count);
        let page = page.await.map_err(|error| error.to_string())?;
        scan.pages += 1;
        self.story.push(format!(
            "page {} of {:?} by {who}: {} counters{}",
            scan.pages,
            scan.filter,
            page.entries.len(),
            if page.next.is_some() { "" } else { ", the last one" },
        ));
        if !page.foreign.is_empty() {
            return Err(format!("names that nobody wrote: {:?}", page.foreign));
        }
        if page.entries.len() > LARGEST_PAGE {
            return Err("it is no part of what is there".to_owned());
        }
        for (key, total) in &page.entries {
            if !scan.held.get(key).is_some_and(|held| held.contains(total)) {
                return Err(format!("{key} never held {total:?} during the listing"));
            }
            scan.owed.remove(key);
        }
        if page.next.is_some() {
            self.parts += 1;
            scan.from = page.next;
            return if scan.pages < MANY_PAGES { Ok(()) } else { Err("no end".to_owned()) };
        }
        let scan = self.scans.remove(at);
        match scan.owed.first() {
            None => Ok(()),
            Some(key) => Err(format!("{key}, one of {}, is missing", scan.owed.len())),
        }
    }

    /// What a counter holds from now on, if it is there.
    fn note(&mut self, key: &RedisKey, held: Option<Outcome<i64>>) {
        for scan in &mut self.scans {
            match &held {
                Some(held) => scan.held.entry(key.clone()).or_default().push(held.clone()),
                None => drop(scan.owed.remove(key)),
            }
        }
        match held {
            Some(held) => drop(self.model.insert(key.clone(), held)),
            None => drop(self.model.remove(key)),
        }
    }

    fn lose_all(&mut self) {
        for key in std::mem::take(&mut self.model).into_keys() {
            self.note(&key, None);
        }
    }

    async fn write_some(&mut self) -> Result<(), String> {
        let mut write = || {
            let name = match self.dice.u8(..3) {
                0 => self.names[KEYS + self.dice.usize(..ODD.len())].clone(),
                _ => self.names[self.dice.usize(..self.names.len())].clone(),
            };
            match self.dice.u8(..4) {
                0 => Write::remove(name),
                1 => Write::set(name, self.dice.i64(..)),
                _ => Write::add(name, self.dice.i64(-2..3)),
            }
        };
        let writes: Vec<_> = (0..5).map(|_| write()).collect();
        self.story.push("some counters are written to".to_owned());
        self.write(&writes).await
    }

    /// Many come or go, so that the store rearranges them.
    async fn write_many(&mut self) -> Result<(), String> {
        let number = [50, 400, 1500][self.dice.usize(..3)];
        let first = self.dice.usize(..KEYS - number);
        let goes = self.dice.u8(..3) == 0;
        let total = self.dice.i64(-9..9);
        let write = |name: &RedisKey| match goes {
            true => Write::remove(name.clone()),
            false => Write::set(name.clone(), total),
        };
        let writes: Vec<_> = self.names[first..][..number].iter().map(write).collect();
        let what = if goes { "removed" } else { "set" };
        self.story.push(format!("{number} counters are {what}, from {first} on"));
        self.write(&writes).await
    }

    async fn write(&mut self, writes: &[Write]) -> Result<(), String> {
        let applied = self.world.link(self.who()).apply(&self.space, writes, None).await;
        let outcomes = applied.map_err(|error| error.to_string())?.outcomes;
        for (write, outcome) in writes.iter().zip(outcomes) {
            let held = self.model.get(&write.key);
            match outcome {
                Ok(written) => {
                    let goes = write.change == distkit::backend::Change::Remove;
                    self.note(&write.key, (!goes).then_some(Ok(written.new)));
                }
                Err(Refusal::NotANumber { .. }) if matches!(held, Some(Err(_))) => {
                    if write.change == distkit::backend::Change::Remove {
                        self.note(&write.key, None);
                    }
                }
                Err(Refusal::Overflow) if matches!(held, Some(Ok(_))) => {}
                Err(refusal) => return Err(format!("{write:?} is refused: {refusal}")),
            }
        }
        Ok(())
    }

    /// Text in the place of a counter.
    async fn plant(&mut self) -> Result<(), String> {
        // Into a window that is open.
        self.write(&[Write::set(key("beside"), 1)]).await?;
        let name = self.names[self.dice.usize(..self.names.len())].clone();
        self.world.plant(&self.space, &name, "a lot");
        self.story.push(format!("{name} is text"));
        self.note(&name, Some(Err(Refusal::NotANumber { found: "a lot".to_owned() })));
        Ok(())
    }

    async fn count(&mut self) -> Result<(), String> {
        let link = self.world.link(self.who());
        let enumeration = link.capabilities().enumeration.ok_or("no listings")?;
        let number = enumeration.count(&self.space).await.map_err(|error| error.to_string())?;
        self.story.push(format!("there are {number} counters"));
        let expected = self.model.len();
        if number == expected as u64 { Ok(()) } else { Err(format!("there are {expected}")) }
    }
}

#[test]
fn the_simulator_lists_by_the_rules() {
    let mut parts = 0;
    for seed in 0..300 * u64::from(times()) {
        let played = runtime().block_on(play(&Simulated::new(), "shop", seed));
        parts += played.unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    }
    assert!(parts > 1000, "the listings had {parts} pages that were not their last");
}
