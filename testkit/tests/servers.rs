//! The servers behave as the other tests rely on.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    panic::{self, AssertUnwindSafe},
    path::Path,
    thread,
    time::Duration,
};

use distkit_testkit::{Cluster, Server, wait_until};

fn runs(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn redis_answers_on_both_addresses() {
    let server = Server::redis().start();
    assert!(server.cli(&["INFO", "server"]).contains(&format!("tcp_port:{}", server.port())));
    assert_eq!(server.url(), format!("redis://127.0.0.1:{}/", server.port()));
    assert!(server.unix_path().exists());

    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    stream.write_all(b"PING\r\nQUIT\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "+PONG\r\n+OK\r\n");
}

#[test]
fn valkey_is_valkey() {
    let server = Server::valkey().start();
    assert!(server.cli(&["INFO", "server"]).contains("server_name:valkey"));
}

#[test]
fn extra_arguments_reach_the_server() {
    let server = Server::redis().arg("--hz").arg("50").args(&["--maxmemory", "10mb"]).start();
    assert_eq!(server.cli(&["CONFIG", "GET", "hz"]), "hz\n50");
    assert_eq!(server.cli(&["CONFIG", "GET", "maxmemory"]), "maxmemory\n10485760");
}

#[test]
fn an_error_reply_is_text() {
    let server = Server::redis().start();
    server.cli(&["SET", "text", "x"]);
    assert!(server.cli(&["INCR", "text"]).contains("not an integer"));
}

#[test]
fn a_password_is_asked_for_and_is_in_the_url() {
    for builder in [Server::redis(), Server::valkey()] {
        let server = builder.password("s3cret").start();
        assert_eq!(server.url(), format!("redis://:s3cret@127.0.0.1:{}/", server.port()));
        assert_eq!(server.cli(&["INCR", "a"]), "1");

        let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        stream.write_all(b"INCR a\r\nQUIT\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("-NOAUTH"), "{answer}");
    }
}

#[test]
fn a_transaction_that_a_kill_tore_never_comes_back() {
    const ADD: &str = "for n = 1, 10 do redis.call('HINCRBY', 'sums', n, 1) end return 'done'";
    for builder in [Server::redis(), Server::valkey()] {
        let server = builder.append_only_always().start();
        assert_eq!(server.cli(&["EVAL", ADD, "0"]), "done");
        server.kill_9();
        let torn = server.dir().join("appendonlydir/appendonly.aof.1.incr.aof");
        let length = fs::metadata(&torn).unwrap().len();
        fs::File::options().write(true).open(torn).unwrap().set_len(length - 100).unwrap();
        server.restart();
        assert_eq!(server.cli(&["EXISTS", "sums"]), "0");
        assert_eq!(server.cli(&["EVAL", ADD, "0"]), "done");
        server.restart();
        assert_eq!(server.cli(&["HVALS", "sums"]).replace('\n', ""), "1111111111");
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9_only_with_append_only() {
    for (builder, survives) in [
        (Server::redis().append_only_always(), true),
        (Server::valkey().append_only_always(), true),
        (Server::redis(), false),
    ] {
        let server = builder.start();
        let (port, first) = (server.port(), server.pid().unwrap());
        assert_eq!(server.cli(&["SET", "a", "1"]), "OK");
        server.kill_9();
        assert!(!runs(first));
        assert_eq!(server.pid(), None);
        assert!(TcpStream::connect(("127.0.0.1", port)).is_err());

        server.restart();
        assert_eq!(server.port(), port);
        assert_ne!(server.pid(), Some(first));
        assert_eq!(server.cli(&["GET", "a"]), if survives { "1" } else { "" });
    }
}

#[test]
fn restart_of_a_running_server_is_a_new_process() {
    let server = Server::redis().start();
    let first = server.pid().unwrap();
    server.restart();
    assert!(!runs(first));
    assert_eq!(server.cli(&["PING"]), "PONG");
}

#[test]
fn stop_ends_the_process_and_may_be_repeated() {
    let server = Server::redis().start();
    let pid = server.pid().unwrap();
    server.stop();
    assert!(!runs(pid));
    server.stop();
    server.kill_9();
}

#[test]
fn a_frozen_server_says_nothing_until_thawed() {
    let server = Server::redis().start();
    server.freeze();
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    stream.write_all(b"PING\r\n").unwrap();
    let mut answer = [0; 7];
    assert!(stream.read(&mut answer).is_err());
    server.thaw();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"+PONG\r\n");
}

#[test]
fn drop_leaves_neither_process_nor_directory() {
    let server = Server::redis().start();
    let (pid, dir) = (server.pid().unwrap(), server.dir().to_owned());
    assert!(runs(pid) && dir.exists());
    drop(server);
    assert!(!runs(pid) && !dir.exists());
}

#[test]
fn a_panic_leaves_no_process() {
    let mut pid = 0;
    let panicked = panic::catch_unwind(AssertUnwindSafe(|| {
        let server = Server::redis().start();
        pid = server.pid().unwrap();
        panic!("on purpose");
    }));
    assert!(panicked.is_err());
    assert_ne!(pid, 0);
    assert!(!runs(pid));
}

/// The kernel's "parent died" is about threads; see `spawn.rs`.
#[test]
fn a_server_outlives_the_thread_that_started_it() {
    let server = thread::spawn(|| Server::redis().start()).join().unwrap();
    assert_eq!(server.cli(&["PING"]), "PONG");
    thread::spawn({
        let pid = server.pid().unwrap();
        move || assert!(runs(pid))
    })
    .join()
    .unwrap();
    assert_eq!(server.cli(&["PING"]), "PONG");
}

#[test]
fn many_start_at_once() {
    let starts: Vec<_> = (0..8).map(|_| thread::spawn(|| Server::redis().start())).collect();
    let servers: Vec<Server> = starts.into_iter().map(|start| start.join().unwrap()).collect();
    for server in &servers {
        let pid = server.pid().unwrap();
        assert!(server.cli(&["INFO", "server"]).contains(&format!("process_id:{pid}")));
    }
}

#[test]
fn a_wrong_argument_is_explained() {
    let panicked = panic::catch_unwind(|| Server::redis().arg("--no-such-option").arg("1").start());
    let message = *panicked.unwrap_err().downcast::<String>().unwrap();
    assert!(
        message.contains("ended while starting") && message.contains("no-such-option"),
        "{message}"
    );
}

#[test]
fn a_cluster_takes_keys_on_every_node() {
    let cluster = Cluster::start();
    assert_eq!(cluster.urls().len(), 3);
    for key in 0..30 {
        assert_eq!(cluster.cli(&["INCR", &format!("key{key}")]), "1");
    }
    for node in cluster.nodes() {
        assert_ne!(node.cli(&["DBSIZE"]), "0");
    }
}

#[test]
fn a_cluster_is_whole_again_after_a_node_restarts() {
    let cluster = Cluster::of(Server::valkey().append_only_always());
    assert_eq!(cluster.cli(&["SET", "a", "1"]), "OK");
    for node in cluster.nodes() {
        node.restart();
    }
    cluster.wait_ok();
    wait_until("the cluster to serve", || cluster.cli(&["GET", "a"]) == "1");
}

/// A test that forgets its server between starts must find it empty.
#[test]
fn nothing_is_saved_by_default() {
    let server = Server::redis().start();
    server.cli(&["SET", "a", "1"]);
    let dir = server.dir().to_owned();
    server.stop();
    let names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| name == "log" || name == "sock"), "{names:?}");
}
