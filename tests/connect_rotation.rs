//! Servers that demand client certificates, and certificates that are rotated while counters run.
#![cfg(all(
    feature = "counter",
    feature = "instance-aware-counter",
    feature = "redis-rs-tls",
    feature = "redis-rs-sentinel",
    feature = "fred-tls"
))]
#![allow(clippy::unwrap_used)] // Clippy takes only the functions marked as tests for tests.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering::SeqCst},
    },
    time::Duration,
};

use distkit::{
    DistkitError, RedisKey,
    backend::{BackendError, IntoBackend, ReconnectingConnection, Store, connect},
    counter::{CounterOptions, CounterTrait, LaxCounter, StrictCounter},
    icounter::{
        InstanceAwareCounterTrait, StrictInstanceAwareCounter, StrictInstanceAwareCounterOptions,
    },
    redis,
};
use distkit_testkit::{Certificates, Sentinels, Server, chain};
use tokio::time::Instant;

const CLIENTS: [&str; 2] = ["rediss", "rediss+fred"];

fn key(name: &str) -> RedisKey {
    RedisKey::try_from(name).unwrap()
}

/// The parameters of a client that shows its certificate.
fn shown(certificates: &Certificates) -> String {
    let (cert, key) = certificates.client();
    format!("cacert={}&cert={cert}&key={key}", certificates.ca())
}

async fn refusal(url: &str) -> String {
    let error = connect(url).await.err().unwrap_or_else(|| panic!("{url} was let in"));
    assert!(matches!(error, BackendError::NotApplied(_)), "{url}: {error:?}");
    chain(&error)
}

#[tokio::test]
async fn a_server_lets_in_only_who_shows_its_certificate() {
    let (ours, theirs) = (Arc::new(Certificates::new()), Certificates::new());
    let server = Server::redis().tls(&ours).password("secret").start();
    let (cert, key) = ours.client();
    for client in CLIENTS {
        let url = format!("{client}://:secret@localhost:{}", server.port());
        connect(&format!("{url}?{}", shown(&ours))).await.unwrap();

        let mut refused = vec![
            refusal(&format!("{url}?cacert={}", ours.ca())).await,
            refusal(&format!("{url}?cacert={}&cert={cert}&key={key}", theirs.ca())).await,
        ];
        let (other_cert, other_key) = theirs.client();
        let other = format!("cacert={}&cert={other_cert}&key={other_key}", ours.ca());
        refused.push(refusal(&format!("{url}?{other}")).await);
        for (query, file) in [
            (format!("cacert={}.none", ours.ca()), ".none"),
            (format!("cacert={}&cert={cert}.none&key={key}", ours.ca()), ".none"),
            (format!("cacert={}&cert={cert}&key={key}.none", ours.ca()), ".none"),
        ] {
            let text = refusal(&format!("{url}?{query}")).await;
            assert!(text.contains(file), "{client}: {text}");
            refused.push(text);
        }
        for text in refused {
            assert!(!text.contains("secret"), "{text}");
        }
    }
}

/// What a service may pass in itself, without `connect`.
#[tokio::test]
async fn clients_with_certificates_of_their_own_may_be_passed_in() {
    use distkit::fred::{
        clients::Client,
        interfaces::ClientLike,
        types::config::{Config, ReconnectPolicy, TlsConnector},
    };
    use rustls::{
        ClientConfig, RootCertStore,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    };

    // The clients leave that to the process, and `connect` does it where it is used.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let certificates = Arc::new(Certificates::new());
    let server = Server::valkey().tls(&certificates).start();
    let (cert, private) = certificates.client();
    let count = async |options: CounterOptions| {
        let counter = StrictCounter::new(options);
        counter.inc(&key("n"), 1).await.unwrap()
    };

    let files = redis::TlsCertificates {
        client_tls: Some(redis::ClientTlsConfig {
            client_cert: fs::read(&cert).unwrap(),
            client_key: fs::read(&private).unwrap(),
        }),
        root_cert: Some(fs::read(certificates.ca()).unwrap()),
    };
    let client = redis::Client::build_with_tls(server.url(), files).unwrap();
    let connection = ReconnectingConnection::connect(client).await.unwrap();
    assert_eq!(count(CounterOptions::new(key("p"), connection)).await, 1);

    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificates.ca()).unwrap()).unwrap();
    let chain = vec![CertificateDer::from_pem_file(&cert).unwrap()];
    let private = PrivateKeyDer::from_pem_file(&private).unwrap();
    let tls = ClientConfig::builder().with_root_certificates(roots);
    let tls = tls.with_client_auth_cert(chain, private).unwrap();
    let mut config = Config::from_url(&server.url()).unwrap();
    config.tls = Some(TlsConnector::from(tls).into());
    let client = Client::new(config, None, None, Some(ReconnectPolicy::default()));
    client.init().await.unwrap();
    assert_eq!(count(CounterOptions::new(key("p"), client)).await, 2);
}

/// What one counter did.
#[derive(Default)]
struct Load {
    /// Acknowledged.
    sure: AtomicI64,
    unsure: AtomicI64,
}

impl Load {
    fn note(&self, result: Result<(), DistkitError>) {
        match result {
            Ok(()) => _ = self.sure.fetch_add(1, SeqCst),
            Err(error) => _ = self.unsure.fetch_add(i64::from(error.may_have_happened()), SeqCst),
        }
    }

    /// Polls until another 20 are acknowledged.
    async fn goes_on(&self, what: &str) {
        let (deadline, goal) = (Instant::now() + PATIENCE, self.sure.load(SeqCst) + 20);
        while self.sure.load(SeqCst) < goal {
            assert!(Instant::now() < deadline, "{what}: nothing is acknowledged any longer");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test]
async fn certificates_are_rotated_while_counters_run_over_redis_rs() {
    rotated(async |server, certificates| {
        let url = format!("rediss://localhost:{}?{}", server.port(), shown(certificates));
        connect(&url).await.unwrap()
    })
    .await;
}

#[tokio::test]
async fn certificates_are_rotated_while_counters_run_over_fred() {
    rotated(async |server, certificates| {
        let url = format!("rediss+fred://localhost:{}?{}", server.port(), shown(certificates));
        connect(&url).await.unwrap()
    })
    .await;
}

#[tokio::test]
async fn certificates_are_rotated_while_counters_run_over_a_connection_passed_in() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    rotated(async |server, certificates| {
        let (url, ca, (cert, key)) = (server.url(), certificates.ca(), certificates.client());
        let connection = ReconnectingConnection::from_fn(move || {
            let read = || {
                let files = redis::TlsCertificates {
                    client_tls: Some(redis::ClientTlsConfig {
                        client_cert: fs::read(&cert)?,
                        client_key: fs::read(&key)?,
                    }),
                    root_cert: Some(fs::read(&ca)?),
                };
                redis::Client::build_with_tls(url.as_str(), files)
            };
            std::future::ready(read())
        });
        IntoBackend::<dyn Store>::into_backend(connection)
    })
    .await;
}

async fn rotated(store: impl AsyncFnOnce(&Server, &Certificates) -> Arc<dyn Store>) {
    let certificates = Arc::new(Certificates::new());
    let server = Arc::new(Server::redis().tls(&certificates).start());
    let store = store(&server, &certificates).await;
    let options = CounterOptions::new(key("p"), store.clone());
    let (strict, lax) = (StrictCounter::new(options.clone()), LaxCounter::new(options));
    let shared =
        StrictInstanceAwareCounter::new(StrictInstanceAwareCounterOptions::new(key("p"), store));
    let over = AtomicBool::new(false);
    let loads: [Load; 3] = Default::default();
    // Faster than this, the load would be all that the machine does.
    let pause = || tokio::time::sleep(Duration::from_millis(1));
    let strictly = async {
        while !over.load(SeqCst) {
            loads[0].note(strict.inc(&key("strict"), 1).await.map(drop));
            pause().await;
        }
    };
    let laxly = async {
        while !over.load(SeqCst) {
            loads[1].note(lax.inc(&key("lax"), 1).await.map(drop));
            pause().await;
        }
    };
    let together = async {
        while !over.load(SeqCst) {
            loads[2].note(shared.inc(&key("shared"), 1).await.map(drop));
            pause().await;
        }
    };
    let rotation = async {
        for _ in 0..3 {
            for load in &loads {
                load.goes_on("before a rotation").await;
            }
            // Another authority, another server certificate, another client certificate.
            let (old, port) = (old_files(&certificates), server.port());
            blocking(&server, &certificates, |server, certificates| {
                certificates.rotate();
                server.reload_certificates();
                server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
            })
            .await;
            for load in &loads {
                load.goes_on("after a rotation").await;
            }
            for client in CLIENTS {
                let url = format!("{client}://localhost:{port}?cacert={}", certificates.ca());
                let (cert, key) = (old.path().join("crt"), old.path().join("key"));
                refusal(&format!("{url}&cert={}&key={}", cert.display(), key.display())).await;
            }
        }
        over.store(true, SeqCst);
    };
    tokio::join!(strictly, laxly, together, rotation);

    lax.flush().await.unwrap();
    let totals = [
        strict.get(&key("strict")).await.unwrap(),
        strict.get(&key("lax")).await.unwrap(),
        shared.get(&key("shared")).await.unwrap().0,
    ];
    for ((load, total), what) in loads.iter().zip(totals).zip(["strict", "lax", "shared"]) {
        let (sure, unsure) = (load.sure.load(SeqCst), load.unsure.load(SeqCst));
        assert!((sure..=sure + unsure).contains(&total), "{what}: {total} of {sure} + {unsure}");
    }
}

/// A copy of what a client shows.
fn old_files(certificates: &Certificates) -> tempfile::TempDir {
    let (dir, (cert, key)) = (tempfile::tempdir().unwrap(), certificates.client());
    fs::copy(cert, dir.path().join("crt")).unwrap();
    fs::copy(key, dir.path().join("key")).unwrap();
    dir
}

/// Off the thread on which the counters run.
async fn blocking(
    server: &Arc<Server>,
    certificates: &Arc<Certificates>,
    work: impl FnOnce(&Server, &Certificates) + Send + 'static,
) {
    let (server, certificates) = (server.clone(), certificates.clone());
    tokio::task::spawn_blocking(move || work(&server, &certificates)).await.unwrap();
}

/// Sentinels read their certificates when they start. What clients of theirs show is read for each connection.
#[tokio::test]
async fn behind_sentinel_the_files_are_read_for_each_connection() {
    let certificates = Arc::new(Certificates::new());
    let sentinels = Sentinels::of(Server::redis().tls(&certificates));
    let (cert, _) = certificates.client();
    for scheme in ["rediss-sentinel", "rediss-sentinel+fred"] {
        let store = connect(&format!("{}&{}", sentinels.url(scheme), shown(&certificates))).await;
        let counter = StrictCounter::new(CounterOptions::new(key(scheme), store.unwrap()));
        assert_eq!(counter.inc(&key("n"), 1).await.unwrap(), 1, "{scheme}");

        fs::rename(&cert, format!("{cert}.away")).unwrap();
        for server in sentinels.servers() {
            server.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        }
        // The attempts that fail are over within their time-outs, and so is this.
        let deadline = Instant::now() + PATIENCE;
        while counter.get(&key("n")).await.is_ok() {
            assert!(Instant::now() < deadline, "{scheme}: it needs no certificate");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        fs::rename(format!("{cert}.away"), &cert).unwrap();
        while counter.inc(&key("n"), 1).await.is_err() {
            assert!(Instant::now() < deadline, "{scheme}: the certificate is not read again");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(counter.get(&key("n")).await.unwrap(), 2, "{scheme}");
    }
}
