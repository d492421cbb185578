use std::{
    net::{Ipv4Addr, TcpListener},
    process,
    sync::atomic::{AtomicU16, Ordering},
};

/// Below what Linux hands out for outgoing connections, so that none of those sits on a server's port while
/// the server is down for a restart.
const FIRST: u16 = 12_000;
const COUNT: u16 = 20_000;

static NEXT: AtomicU16 = AtomicU16::new(0);

/// A port on which nothing listens. Another process may still take it: whoever uses it must be ready to
/// come back for the next one.
pub(crate) fn free_port() -> u16 {
    // Processes start far from one another, and each goes its own way from there.
    let offset = process::id().wrapping_mul(7_919) % u32::from(COUNT);
    for _ in 0..COUNT {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = FIRST + ((offset + step) % u32::from(COUNT)) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {FIRST} to {}", FIRST + COUNT - 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_not_handed_out() {
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).unwrap();
        let held_port = held.local_addr().unwrap().port();
        assert!((0..200).all(|_| free_port() != held_port));
    }

    #[test]
    fn two_calls_give_two_ports() {
        assert_ne!(free_port(), free_port());
    }
}
