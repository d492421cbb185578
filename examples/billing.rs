//! Billing: what a program does with a charge whose outcome stays unknown.
//!
//!     cargo run --example billing
//!
//! The ledger, a database in real life, is the record. The counter holds what each customer owes, for all
//! processes that look at the credit limit. A customer is charged by one process at a time.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use distkit::{
    DistkitError, RedisKey,
    backend::memory::MemoryBackend,
    counter::{CounterOptions, CounterTrait, StrictCounter},
};

#[derive(Debug, PartialEq)]
enum Charged {
    /// What the customer owes now.
    Owes(i64),
    /// Certainly not charged: the caller may try again.
    No,
    /// Charged, and in the ledger. The counter may lag behind it until it is settled.
    InTheLedger,
}

struct Billing {
    owed: Arc<StrictCounter>,
    ledger: BTreeMap<RedisKey, i64>,
    /// Customers whose counter may differ from the ledger. In a database this is a mark that is set before a charge
    /// and removed after it, so that it outlives a crash.
    in_doubt: Vec<RedisKey>,
}

impl Billing {
    async fn charge(&mut self, customer: &RedisKey, cents: i64) -> Charged {
        if self.in_doubt.contains(customer) && self.settle().await.is_err() {
            return Charged::No;
        }
        // A lost reply alone is no matter: the request is sent again under a guard, applied once, and answered.
        match self.owed.inc(customer, cents).await {
            Ok(owes) => {
                *self.ledger.entry(customer.clone()).or_default() += cents;
                Charged::Owes(owes)
            }
            // No answer within `unknown_after`. Another `inc` might charge twice, and giving up might charge
            // nothing. So decide: the ledger says yes, and the counter follows.
            Err(error) if error.may_have_happened() => {
                *self.ledger.entry(customer.clone()).or_default() += cents;
                self.in_doubt.push(customer.clone());
                Charged::InTheLedger
            }
            Err(_) => Charged::No,
        }
    }

    /// Makes the counter agree with the ledger. A `set`, unlike an `inc`, may be repeated: it comes to the same
    /// however often it happens, as long as nobody else writes the key.
    async fn settle(&mut self) -> Result<(), DistkitError> {
        while let Some(customer) = self.in_doubt.last() {
            self.owed.set(customer, self.ledger[customer]).await?;
            self.in_doubt.pop();
        }
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), DistkitError> {
    let link = MemoryBackend::new().link();
    let options = CounterOptions::new(RedisKey::try_from("billing")?, link.clone())
        .unknown_after(Duration::from_secs(2));
    let mut billing = Billing {
        owed: StrictCounter::new(options),
        ledger: BTreeMap::new(),
        in_doubt: Vec::new(),
    };
    let alice = RedisKey::try_from("alice")?;

    assert_eq!(billing.charge(&alice, 500).await, Charged::Owes(500));
    println!("500 charged");

    link.lose_next_replies(3);
    assert_eq!(billing.charge(&alice, 250).await, Charged::Owes(750));
    println!("250 charged, once, although three replies were lost");

    link.cut();
    assert_eq!(billing.charge(&alice, 100).await, Charged::No);
    println!("100 not charged: the store is unreachable, and nothing was sent");
    link.restore();

    // Applied, but no answer says so.
    link.lose_next_replies(usize::MAX);
    assert_eq!(billing.charge(&alice, 100).await, Charged::InTheLedger);
    assert_eq!(billing.charge(&alice, 1).await, Charged::No, "not before the doubt is settled");
    println!("100 charged by the ledger; the counter is in doubt");
    link.lose_next_replies(0);
    assert_eq!(billing.charge(&alice, 50).await, Charged::Owes(900));
    println!("settled, and 50 charged");

    // Never applied, and again no answer says so. The program does the same.
    link.lose_next_requests(usize::MAX);
    assert_eq!(billing.charge(&alice, 100).await, Charged::InTheLedger);
    link.lose_next_requests(0);
    billing.settle().await?;
    println!("another 100 charged by the ledger, and settled");

    assert_eq!(billing.owed.get(&alice).await?, 1000);
    assert_eq!(billing.ledger[&alice], 1000);
    println!("counter and ledger agree: {} cents", billing.ledger[&alice]);
    Ok(())
}
