//! A way to a server that loses requests and replies when it is told to.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use super::resp::{next_frame, words};

/// What clients say for themselves, and what shows that a way is open again: never lost.
const OWN: [&str; 6] = ["HELLO", "CLIENT", "AUTH", "SELECT", "PING", "INFO"];
pub(crate) const PROBED: &str = "probe";

#[derive(Default)]
struct Losses {
    requests: AtomicUsize,
    replies: AtomicUsize,
}

/// Listens on a port of its own, for a server on another. A loss closes the connection.
pub(crate) struct Proxy {
    port: u16,
    losses: Arc<Losses>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn before(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let losses = Arc::new(Losses::default());
        let armed = losses.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // The server may be down just now, which closes this connection too.
                if let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await {
                    tokio::spawn(relay(client, server, armed.clone()));
                }
            }
        });
        Self { port, losses, accepting }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn lose_next_requests(&self, count: usize) {
        self.losses.requests.store(count, SeqCst);
    }

    pub(crate) fn lose_next_replies(&self, count: usize) {
        self.losses.replies.store(count, SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn relay(mut client: TcpStream, mut server: TcpStream, losses: Arc<Losses>) -> Option<()> {
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut commands, mut replies) = (Vec::new(), Vec::new());
    loop {
        let command = next_frame(&mut client, &mut commands).await?;
        let words = words(&command);
        let probe = words.iter().any(|word| word.contains(&PROBED.to_uppercase()));
        let counts = !OWN.contains(&&*words[0]) && !probe;
        if counts && take_one(&losses.requests) {
            return None;
        }
        server.write_all(&command).await.ok()?;
        let reply = next_frame(&mut server, &mut replies).await?;
        // The client sends the script itself then, as a part of the same request.
        if counts && !reply.starts_with(b"-NOSCRIPT") && take_one(&losses.replies) {
            return None;
        }
        client.write_all(&reply).await.ok()?;
    }
}

fn take_one(left: &AtomicUsize) -> bool {
    left.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok()
}
