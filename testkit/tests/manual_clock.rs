//! A server whose clock the test moves.

use std::time::Duration;

use distkit_testkit::{Server, ServerBuilder};

const MS: Duration = Duration::from_millis(1);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn on_both(test: impl Fn(ServerBuilder)) {
    test(Server::redis().manual_clock());
    test(Server::valkey().manual_clock());
}

/// What the server says the time is.
fn time(server: &Server, command: &[&str]) -> Duration {
    let answer = server.cli(command);
    let (seconds, micros) = answer.split_once('\n').unwrap();
    Duration::new(seconds.parse().unwrap(), 1000 * micros.parse::<u32>().unwrap())
}

const IN_A_SCRIPT: [&str; 3] = ["EVAL", "return redis.call('TIME')", "0"];

#[test]
fn time_moves_by_exactly_the_step() {
    on_both(|server| {
        let server = server.start();
        let mut expected = server.now();
        let micro = Duration::from_micros(1);
        for step in [Duration::ZERO, micro, MS, 30_000 * MS, 300 * DAY, micro] {
            server.advance(step);
            expected += step;
            assert_eq!(server.now(), expected);
            assert_eq!(time(&server, &["TIME"]), expected);
            assert_eq!(time(&server, &IN_A_SCRIPT), expected);
        }
        for _ in 0..300 {
            server.advance(MS);
        }
        assert_eq!(time(&server, &IN_A_SCRIPT), expected + 300 * MS);
    });
}

/// Servers keep the time for a while, and need not ask for it before each command.
#[test]
fn the_first_command_after_a_step_sees_it() {
    on_both(|server| {
        let server = server.start();
        for n in 1..=50 {
            let ttl = n * 10;
            let key = format!("key {n}");
            assert_eq!(server.cli(&["SET", &key, "x", "PX", &ttl.to_string()]), "OK");
            server.advance(ttl * MS);
            assert_eq!(server.cli(&["PTTL", &key]), "0");
            server.advance(MS);
            assert_eq!(server.cli(&["GET", &key]), "");
        }
    });
}

#[test]
fn keys_expire_by_the_clock() {
    on_both(|server| {
        let server = server.start();
        for key in ["read", "in a script", "counted"] {
            server.cli(&["SET", key, "x"]);
            assert_eq!(server.cli(&["PEXPIRE", key, "86400000"]), "1");
        }
        // To the last millisecond, and through it.
        server.advance(DAY);
        assert_eq!(server.cli(&["EXISTS", "read", "in a script", "counted"]), "3");
        server.advance(MS);
        assert_eq!(server.cli(&["GET", "read"]), "");
        let script = "return redis.call('EXISTS', KEYS[1])";
        assert_eq!(server.cli(&["EVAL", script, "1", "in a script"]), "0");
        assert_eq!(server.cli(&["EXISTS", "counted"]), "0");
    });
}

#[test]
fn the_clock_stands_over_a_restart() {
    on_both(|server| {
        let server = server.append_only_always().start();
        assert_eq!(server.cli(&["SET", "a", "1", "PX", "1000"]), "OK");
        server.advance(900 * MS);
        server.kill_9();
        server.advance(50 * MS);
        server.restart();
        assert_eq!(time(&server, &["TIME"]), server.now());
        assert_eq!(server.cli(&["PTTL", "a"]), "50");
    });
}

#[test]
#[should_panic(expected = "a server with a clock to move")]
fn an_ordinary_server_has_no_clock_to_move() {
    Server::redis().start().advance(MS);
}
