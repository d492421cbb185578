//! The service over HTTP: several processes on one server, some of which are killed.

mod support;

use std::{collections::VecDeque, net::TcpListener, process::Stdio};

use distkit_testkit::{Server, command_tied_to_this_thread};
use serde_json::{Value, json};

use support::{LONG, Process, SHORT, client, json};

/// An event stream.
struct Events {
    answer: reqwest::Response,
    text: String,
    ready: VecDeque<Value>,
}

impl Events {
    async fn of(process: &Process) -> Self {
        let answer = client().get(format!("{}/events", process.url)).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        Self { answer, text: String::new(), ready: VecDeque::new() }
    }

    /// The next message, or `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Some(message);
            }
            let chunk = self.answer.chunk().await.unwrap()?;
            self.text.push_str(str::from_utf8(&chunk).unwrap());
            while let Some((message, rest)) = self.text.split_once("\n\n") {
                if let Some(data) = message.strip_prefix("data: ") {
                    self.ready.push_back(serde_json::from_str(data).unwrap());
                }
                self.text = rest.to_owned();
            }
        }
    }

    /// Reads on up to this event; gives its sample.
    async fn until(&mut self, kind: &str, instance: &str) -> Value {
        let wanted = json!({ "kind": kind, "instance": instance });
        while let Some(message) = self.next().await {
            for sample in message["samples"].as_array().unwrap() {
                if sample["events"].as_array().unwrap().contains(&wanted) {
                    return sample.clone();
                }
            }
        }
        panic!("the stream ended before {wanted}");
    }
}

#[tokio::test]
async fn the_total_falls_when_a_process_is_killed_and_rises_when_it_returns() {
    let server = Server::redis().start();
    let [a, b, c] = ["a", "b", "c"].map(|name| Process::start(&server, name, SHORT, &[]));
    a.opens(10).await;
    b.opens(20).await;
    c.opens(30).await;
    for process in [&a, &b, &c] {
        process.shows(json!({ "a": 10, "b": 20, "c": 30 })).await;
    }

    // The viewer is itself a connection.
    let mut events = Events::of(&a).await;
    c.shows(json!({ "a": 11, "b": 20, "c": 30 })).await;
    b.kill_9();
    let sample = events.until("expired", "b").await;
    assert!(sample["slices"].get("b").is_none(), "{sample}");
    c.shows(json!({ "a": 11, "c": 30 })).await;

    let b = Process::start(&server, "b", SHORT, &[]);
    b.opens(7).await;
    let sample = events.until("returned", "b").await;
    assert!(sample["slices"].get("b").is_some(), "{sample}");
    for process in [&a, &b, &c] {
        process.shows(json!({ "a": 11, "b": 7, "c": 30 })).await;
    }

    // A later viewer gets the history.
    let mut late = Events::of(&c).await;
    let first = late.next().await.unwrap();
    assert_eq!(first["about"]["name"], "c");
    let samples = first["samples"].as_array().unwrap();
    let kinds: Vec<_> = samples
        .iter()
        .flat_map(|sample| sample["events"].as_array().unwrap())
        .filter(|event| event["instance"] == "b")
        .map(|event| event["kind"].as_str().unwrap())
        .filter(|kind| *kind != "joined")
        .collect();
    assert_eq!(kinds, ["expired", "returned"]);
    drop(late);
    drop(events);
    a.shows(json!({ "a": 10, "b": 7, "c": 30 })).await;
}

#[tokio::test]
async fn sigterm_ends_streams_and_leaves_at_once() {
    let server = Server::valkey().start();
    let [a, mut b] = ["a", "b"].map(|name| Process::start(&server, name, LONG, &[]));
    b.opens(20).await;
    a.shows(json!({ "a": 0, "b": 20 })).await;
    let mut watching = Events::of(&a).await;
    let mut ending = Events::of(&b).await;
    ending.next().await.unwrap();

    let status = b.terminate().await;
    assert!(status.success(), "{status}");
    while ending.next().await.is_some() {}
    // Without leaving it would be counted for an hour.
    assert_eq!(watching.until("left", "b").await["total"], 1);
}

#[tokio::test]
async fn a_process_whose_name_is_taken_ends() {
    let server = Server::redis().start();
    let mut old = Process::start(&server, "a", LONG, &[]);
    let new = Process::start(&server, "a", LONG, &[]);
    let status = old.ended().await;
    assert_eq!(status.code(), Some(1));
    new.opens(1).await;
    new.shows(json!({ "a": 1 })).await;
}

#[tokio::test]
async fn the_page_is_complete_and_names_no_other_host() {
    let server = Server::redis().start();
    let a = Process::start(&server, "a", LONG, &[]);
    for (path, kind) in [
        ("/", "text/html"),
        ("/page.css", "text/css"),
        ("/page.js", "text/javascript"),
        ("/chart.js", "text/javascript"),
    ] {
        let answer = client().get(format!("{}{path}", a.url)).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        let headers = answer.headers();
        assert!(headers["content-type"].to_str().unwrap().starts_with(kind), "{path}");
        let policy = headers["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.contains("default-src 'none'") && !policy.contains("http"), "{policy}");
        let text = answer.text().await.unwrap().replace("http://www.w3.org/2000/svg", "");
        assert!(!text.contains("://"), "{path} names another host");
    }
}

#[tokio::test]
async fn errors_are_json_with_a_status() {
    let server = Server::redis().start();
    let a = Process::start(&server, "a", LONG, &[]);
    let at = |path: &str| format!("{}{path}", a.url);
    for (request, status, text) in [
        (client().get(at("/nothing")), 404, "no such page"),
        (client().put(at("/connections")), 405, "not with this method"),
        (client().post(at("/connections?n=ten")), 400, "n: invalid digit"),
        (client().post(at("/connections?n=-1")), 400, "n: invalid digit"),
        (client().post(at("/connections?n=99999999999")), 400, "n: number too large"),
        (client().post(at("/connections?n=")), 400, "may be `n=` and a whole number"),
        (client().post(at("/connections?n=1&n=2")), 400, "may be `n=` and a whole number"),
        (client().post(at("/connections?n=0")), 400, "from 1 to 10000"),
        (client().post(at("/connections?n=10001")), 400, "from 1 to 10000"),
        (
            client().post(at("/connections?n=1")).header("sec-fetch-site", "cross-site"),
            403,
            "another site",
        ),
        (
            client().delete(at("/connections?n=1")).header("sec-fetch-site", "same-site"),
            403,
            "another site",
        ),
    ] {
        let (got, answer) = json(request).await;
        assert_eq!(got, status, "{answer}");
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains(text), "{error}");
    }
    assert_eq!(a.get("/connections").await, (200, json!({ "streams": 0, "simulated": 0 })));
}

#[tokio::test]
async fn connections_are_closed_as_far_as_there_are_any_and_opened_up_to_a_limit() {
    let server = Server::redis().start();
    let a = Process::start(&server, "a", LONG, &[]);
    a.opens(15).await;
    let close = async || json(client().delete(format!("{}/connections?n=10", a.url))).await.1;
    assert_eq!(close().await, json!({ "streams": 0, "simulated": 5 }));
    assert_eq!(close().await, json!({ "streams": 0, "simulated": 0 }));
    a.shows(json!({ "a": 0 })).await;

    for _ in 0..100 {
        a.opens(10_000).await;
    }
    let (status, answer) = json(client().post(format!("{}/connections", a.url))).await;
    assert_eq!(
        (status, &answer["error"]),
        (409, &json!("a process holds at most 1000000 simulated connections"))
    );
    a.shows(json!({ "a": 1_000_000 })).await;
}

#[tokio::test]
async fn an_unreachable_store_is_a_gap_and_expires_no_instance() {
    let server = Server::redis().append_only_always().start();
    let a = Process::start(&server, "a", LONG, &[]);
    a.opens(3).await;
    a.shows(json!({ "a": 3 })).await;
    assert_eq!(a.get("/healthz").await, (200, json!({ "status": "ok" })));
    let stats = a.get("/stats").await.1;
    assert_eq!(
        (&stats["stats"]["joins"], &stats["about"]["lease_ms"]),
        (&json!(1), &json!(3_600_000))
    );

    server.kill_9();
    support::wait_until("a poll that fails", async || {
        let latest = &a.get("/stats").await.1["latest"];
        latest["total"].is_null() && latest["error"].is_string()
    })
    .await;
    support::wait_until("a health check that fails", async || {
        let (status, answer) = a.get("/healthz").await;
        status == 503 && answer["error"].as_str().unwrap().contains("the store has not answered")
    })
    .await;
    // Counting needs no store.
    a.opens(4).await;

    server.restart();
    a.shows(json!({ "a": 7 })).await;
    support::wait_until("health", async || a.get("/healthz").await.0 == 200).await;
    let mut events = Events::of(&a).await;
    let seen = events.next().await.unwrap();
    let all = seen["samples"].as_array().unwrap();
    assert!(
        all.iter().all(|sample| sample["events"] == json!([])),
        "no instance expires by an outage"
    );
    assert!(all.iter().any(|sample| sample["total"].is_null()));
}

#[test]
fn a_process_that_cannot_serve_names_the_reason_and_takes_over_no_name() {
    let server = Server::redis().start();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let run = |args: &[&str]| {
        let mut command = command_tied_to_this_thread(env!("CARGO_BIN_EXE_distkit-live"));
        command.env_remove("DISTKIT_URL").args(args).stdin(Stdio::null());
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, text) = run(&["--listen", &address, "--url", &server.url(), "--name", "a"]);
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains(&format!("cannot listen on {address}")), "{text}");
    assert_eq!(server.cli(&["KEYS", "*"]), "");

    let (status, text) = run(&["--listen", "127.0.0.1:0", "--url", "redis://127.0.0.1:1"]);
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("cannot connect to the server"), "{text}");
    let (status, text) = run(&["--listen", "127.0.0.1:0", "--lease", "0s"]);
    assert_eq!(status, Some(2), "{text}");
}

#[tokio::test]
async fn a_load_comes_and_goes_around_its_number() {
    let server = Server::redis().start();
    let a = Process::start(&server, "a", LONG, &["--load", "50"]);
    let mut seen = std::collections::BTreeSet::new();
    support::wait_until("three numbers of connections", async || {
        let (_, held) = a.get("/connections").await;
        seen.insert(held["simulated"].as_u64().unwrap());
        seen.len() >= 3
    })
    .await;
    assert!(seen.iter().all(|held| (1..=150).contains(held)), "{seen:?}");
}
