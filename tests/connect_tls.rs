//! `connect` over TLS. In a process of its own: what it trusts is an environment variable.
#![cfg(all(feature = "redis-rs-tls", feature = "fred-tls", feature = "redis-rs-cluster"))]
#![allow(clippy::unwrap_used)]

use std::{path::Path, process::Command};

use distkit::{
    RedisKey,
    backend::{BackendError, Space, Write, connect},
};
use distkit_testkit::Server;

/// The test that this binary starts itself again for, with the certificate trusted.
const INNER: &str = "DISTKIT_TEST_TLS_PORT";

fn openssl(dir: &Path, args: &[&str]) {
    let output = Command::new("openssl").args(args).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A CA, and a certificate of its for localhost: rustls refuses a CA as the server itself.
fn certificates(dir: &Path) {
    let new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=ca"];
    openssl(dir, &[&new[..], &["-keyout", "ca.key", "-out", "ca.crt"]].concat());
    let new = ["req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"];
    openssl(dir, &[&new[..], &["-keyout", "key", "-out", "csr"]].concat());
    std::fs::write(dir.join("ext"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").unwrap();
    let sign = ["x509", "-req", "-in", "csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-days", "2"];
    let out = ["-CAcreateserial", "-extfile", "ext", "-out", "crt"];
    openssl(dir, &[&sign[..], &out].concat());
}

#[test]
fn both_clients_connect_over_tls_and_trust_only_what_they_should() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let port = port.to_string();
    let mut server = Server::redis().password("secret");
    for (name, value) in [
        ("--tls-port", port.clone()),
        ("--tls-cert-file", file("crt")),
        ("--tls-key-file", file("key")),
        ("--tls-ca-cert-file", file("ca.crt")),
        ("--tls-auth-clients", "no".to_owned()),
    ] {
        server = server.arg(name).arg(&value);
    }
    let _server = server.start();
    for (trusted, expected) in [("ca.crt", "trusted"), ("/dev/null", "refused")] {
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "inner", "--ignored", "--nocapture"])
            .env(INNER, &port)
            .env("SSL_CERT_FILE", dir.path().join(trusted))
            .env("EXPECTED", expected)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{expected}: {text}{errors}");
    }
}

#[tokio::test]
#[ignore = "the other test runs it"]
async fn inner() {
    let Ok(port) = std::env::var(INNER) else { return };
    let trusted = std::env::var("EXPECTED").unwrap() == "trusted";
    let space = Space::new(RedisKey::try_from("p").unwrap());
    let key = RedisKey::try_from("n").unwrap();
    for (sum, scheme) in (1..).zip(["rediss", "rediss+fred", "valkeys", "valkeys+fred"]) {
        let url = format!("{scheme}://:secret@localhost:{port}");
        match connect(&url).await {
            Ok(store) if trusted => {
                let write = [Write::add(key.clone(), 1)];
                let applied = store.apply(&space, &write, None).await.unwrap();
                assert_eq!(applied.outcomes[0].as_ref().unwrap().new, sum, "{scheme}");
            }
            Err(error) if !trusted => {
                assert!(matches!(error, BackendError::NotApplied(_)), "{error:?}");
                let text = distkit_testkit::chain(&error);
                assert!(!text.contains("secret"), "{text}");
                println!("{scheme}: {text}");
            }
            Ok(_) => panic!("{scheme}: connected to a server that nobody vouches for"),
            Err(error) => panic!("{scheme}: {error}"),
        }
    }
}
