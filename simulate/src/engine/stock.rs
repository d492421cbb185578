//! Work on the counters that everybody sets, deletes and clears.

use distkit::{DistkitError, icounter::InstanceAwareCounterTrait};
use fastrand::Rng;

use super::{
    process::Process,
    reference::{Contended, Step},
    world::{Family, Parts, STOCK_KEYS, World, key},
};

/// A write that takes everybody's part of one key, or of all. When its task is ended, or its outcome is
/// unknown, everybody's part may be gone or not.
struct Sweep<'w> {
    world: &'w World,
    id: &'w str,
    name: Option<&'static str>,
    /// What the caller's own part is afterwards.
    own: i64,
    happened: Option<bool>,
}

impl Drop for Sweep<'_> {
    fn drop(&mut self) {
        let Some(happened) = self.happened.map_or(Some(false), |happened| happened.then_some(true))
        else {
            return;
        };
        for (id, member) in &mut self.world.model().members {
            let Parts::Contended(parts) = &mut member.parts else { continue };
            for (name, part) in parts {
                if self.name.is_some_and(|swept| swept != *name) {
                    continue;
                }
                match (happened, id == self.id) {
                    (true, true) => part.is(self.own),
                    // In the store it was one moment, perhaps before this instance was last collected.
                    (false, true) => {
                        part.step(Step::MaybeReplace(self.own));
                        part.wipe(false);
                    }
                    (certainly, false) => part.wipe(certainly),
                }
            }
        }
    }
}

impl Process {
    pub(crate) async fn trade(&self, world: &World, dice: &mut Rng) {
        let name = dice.choice(STOCK_KEYS).unwrap_or(STOCK_KEYS[0]);
        let lax = dice.bool();
        match dice.u32(0..100) {
            0..55 => self.buy(world, name, lax, dice.i64(-5..=9)).await,
            55..70 => self.correct(world, name, lax, dice).await,
            _ => self.sweep(world, name, lax, dice).await,
        }
    }

    fn counter(&self, lax: bool) -> &dyn InstanceAwareCounterTrait {
        if lax { &*self.lax_stock } else { &*self.strict_stock }
    }

    /// An addition.
    async fn buy(&self, world: &World, name: &'static str, lax: bool, count: i64) {
        let Ok(_gate) = world.stock_gate.try_read() else { return };
        let counter = self.counter(lax);
        let answer = counter.inc(&key(name), count).await;
        self.told(world, &format!("{} {name} {count:+}", kind(lax)), &answer);
        match answer {
            Ok((_, slice)) if !lax => {
                let mut right = true;
                self.part(world, name, lax, |part| {
                    right = part.adopts || part.values().contains(&(slice - count));
                    part.is(slice);
                });
                if !right && !world.model().stock_adrift {
                    let who = &self.name;
                    world
                        .broken(format!("{who} was told of an impossible slice {slice} of {name}"));
                }
            }
            Ok(_) => self.part(world, name, lax, |part| part.step(Step::Add(count))),
            Err(error) if error.may_have_happened() => {
                self.part(world, name, lax, |part| part.step(Step::MaybeAdd(count)));
            }
            Err(_) => {}
        }
    }

    /// A write to the own part alone.
    async fn correct(&self, world: &World, name: &'static str, lax: bool, dice: &mut Rng) {
        let Ok(_gate) = world.stock_gate.try_read() else { return };
        let counter = self.counter(lax);
        let deletes = dice.bool();
        let value = if deletes { 0 } else { dice.i64(0..50) };
        let (what, answer) = if deletes {
            ("del_on_instance", counter.del_on_instance(&key(name)).await.map(drop))
        } else {
            ("set_on_instance", counter.set_on_instance(&key(name), value).await.map(drop))
        };
        self.told(world, &format!("{} {what} {name} {value}", kind(lax)), &answer);
        match answer {
            // A buffered one may reach the store after somebody else's `set`.
            Ok(()) if lax && !deletes => {
                self.part(world, name, lax, |part| part.step(Step::Replace(value)));
            }
            Ok(()) => self.part(world, name, lax, |part| part.is(value)),
            Err(error) if error.may_have_happened() => {
                self.part(world, name, lax, |part| {
                    part.step(Step::MaybeReplace(value));
                    part.wipe(false);
                });
            }
            Err(_) => {}
        }
    }

    /// `set`, `del` or `clear`.
    async fn sweep(&self, world: &World, name: &'static str, lax: bool, dice: &mut Rng) {
        let Ok(_gate) = world.stock_gate.try_write() else { return };
        let counter = self.counter(lax);
        let choice = dice.u32(0..10);
        let own = if choice < 5 { dice.i64(0..200) } else { 0 };
        let mut sweep = Sweep {
            world,
            id: counter.instance_id(),
            name: (choice < 9).then_some(name),
            own,
            happened: None,
        };
        let key = key(name);
        let (what, answer) = match choice {
            0..5 => ("set", counter.set(&key, own).await.map(drop)),
            5..9 => ("del", counter.del(&key).await.map(drop)),
            _ => ("clear", counter.clear().await),
        };
        sweep.happened = match &answer {
            Ok(()) => Some(true),
            Err(error) => not_known(error),
        };
        drop(sweep);
        self.part(world, name, lax, |_| {});
        self.told(world, &format!("{} {what} {name} {own}", kind(lax)), &answer);
    }

    fn part(&self, world: &World, name: &str, lax: bool, change: impl FnOnce(&mut Contended)) {
        let now = world.now();
        let mut model = world.model();
        let member = model.member(self.counter(lax).instance_id());
        debug_assert_eq!(member.family, Family::Stock);
        if let Parts::Contended(parts) = &mut member.parts
            && let Some(part) = parts.get_mut(name)
        {
            part.used_at = now;
            change(part);
        }
    }
}

fn kind(lax: bool) -> &'static str {
    if lax { "lax" } else { "strict" }
}

fn not_known(error: &DistkitError) -> Option<bool> {
    (!error.may_have_happened()).then_some(false)
}
