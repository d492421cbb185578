//! A server that applies a write and then loses the answer.

mod resp;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use distkit_testkit::Server;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use resp::{next_frame, words};

/// What happens to a connection once a write that came over it has been applied.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fault {
    /// It is closed without an answer.
    Drop,
    /// It stays open and silent for ever.
    Hang,
}

const WRITES: [&str; 4] = ["HINCRBY", "EVALSHA", "EVAL", "UNLINK"];

/// Stands in front of a real server. Says that it is a cluster of one node, to clients that ask.
pub(crate) struct Lossy {
    port: u16,
    faults: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Lossy {
    pub(crate) async fn before(server: &Server, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let faults = Arc::new(AtomicUsize::new(0));
        let (target, armed) = (server.port(), faults.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", target)).await.unwrap();
                tokio::spawn(relay(client, server, port, fault, armed.clone()));
            }
        });
        Self { port, faults, accepting }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Loses the answers of the next `count` writes that are applied.
    pub(crate) fn lose(&self, count: usize) {
        self.faults.store(count, Ordering::SeqCst);
    }

    /// How many answers are still to be lost.
    pub(crate) fn left(&self) -> usize {
        self.faults.load(Ordering::SeqCst)
    }
}

impl Drop for Lossy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn relay(
    mut client: TcpStream,
    mut server: TcpStream,
    port: u16,
    fault: Fault,
    faults: Arc<AtomicUsize>,
) -> Option<()> {
    let (mut commands, mut replies) = (Vec::new(), Vec::new());
    loop {
        let command = next_frame(&mut client, &mut commands).await?;
        let words = words(&command);
        if words[0] == "CLUSTER" {
            let answer = match &*words[1] {
                "SLOTS" => slots(port),
                _ => "$16\r\ncluster_state:ok\r\n".to_owned(),
            };
            client.write_all(answer.as_bytes()).await.ok()?;
            continue;
        }
        server.write_all(&command).await.ok()?;
        let reply = next_frame(&mut server, &mut replies).await?;
        let applied = WRITES.contains(&&*words[0]) && !reply.starts_with(b"-");
        let take_one = |left: usize| left.checked_sub(1);
        if applied && faults.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take_one).is_ok() {
            match fault {
                Fault::Drop => return None,
                Fault::Hang => {
                    // Until the client gives up the connection.
                    while client.read(&mut [0; 4096]).await.ok()? > 0 {}
                    return None;
                }
            }
        }
        client.write_all(&reply).await.ok()?;
    }
}

fn slots(port: u16) -> String {
    let id = "0123456789012345678901234567890123456789";
    format!("*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n$9\r\n127.0.0.1\r\n:{port}\r\n$40\r\n{id}\r\n")
}
