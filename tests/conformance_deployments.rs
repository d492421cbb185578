//! The stores that `connect` makes keep the `Backend` contract on servers as they are deployed: with client
//! certificates, over RESP3, as a cluster and behind Sentinel.
#![cfg(all(
    feature = "conformance",
    feature = "redis-rs-tls",
    feature = "redis-rs-cluster",
    feature = "redis-rs-sentinel",
    feature = "fred-tls"
))]
#![allow(clippy::unwrap_used)]

#[path = "common/servers.rs"]
#[allow(dead_code, reason = "no clock is moved here")]
mod servers;

use std::sync::{Arc, LazyLock};

use distkit::{backend::connect, conformance::Fixture};
use distkit_testkit::{Certificates, Cluster, Sentinels, Server};
use servers::{Cli, Shared, fixture};

static VALKEY: Shared<Server> = Shared::new();
static TLS: Shared<Server> = Shared::new();
static CLUSTER: Shared<Cluster> = Shared::new();
static SENTINELS: Shared<Sentinels> = Shared::new();

static CERTIFICATES: LazyLock<Arc<Certificates>> = LazyLock::new(|| Arc::new(Certificates::new()));

/// The parameters of a client that shows its certificate.
fn shown() -> String {
    let (cert, key) = CERTIFICATES.client();
    format!("cacert={}&cert={cert}&key={key}", CERTIFICATES.ca())
}

async fn connected<S: Cli>(server: Arc<S>, url: String) -> Fixture {
    fixture(server, connect(&url).await.unwrap())
}

async fn tls(scheme: &str) -> Fixture {
    let server = TLS.get(|| Server::redis().tls(&CERTIFICATES).start());
    let url = format!("{scheme}://localhost:{}?{}", server.port(), shown());
    connected(server, url).await
}

async fn tls_over_redis_rs() -> Fixture {
    tls("rediss").await
}

async fn tls_over_fred() -> Fixture {
    tls("rediss+fred").await
}

async fn resp3(scheme: &str) -> Fixture {
    let server = VALKEY.get(|| Server::valkey().start());
    let url = format!("{scheme}://127.0.0.1:{}?protocol=resp3", server.port());
    connected(server, url).await
}

async fn resp3_over_redis_rs() -> Fixture {
    resp3("valkey").await
}

async fn resp3_over_fred() -> Fixture {
    resp3("valkey+fred").await
}

/// With TLS and RESP3 too.
async fn cluster(scheme: &str) -> Fixture {
    let cluster = CLUSTER.get(|| Cluster::of(Server::valkey().tls(&CERTIFICATES)));
    let [first, others @ ..] = cluster.nodes() else { panic!("no nodes") };
    let nodes: String =
        others.iter().map(|node| format!("&node=127.0.0.1:{}", node.port())).collect();
    let url = format!("{scheme}://127.0.0.1:{}?protocol=resp3&{}{nodes}", first.port(), shown());
    connected(cluster.clone(), url).await
}

async fn cluster_over_redis_rs() -> Fixture {
    cluster("valkeys-cluster").await
}

async fn cluster_over_fred() -> Fixture {
    cluster("valkeys-cluster+fred").await
}

/// With TLS too, between the servers as well.
async fn sentinel(scheme: &str) -> Fixture {
    let sentinels = SENTINELS.get(|| Sentinels::of(Server::valkey().tls(&CERTIFICATES)));
    let url = format!("{}&{}", sentinels.url(scheme), shown());
    connected(sentinels, url).await
}

async fn sentinel_over_redis_rs() -> Fixture {
    sentinel("valkeys-sentinel").await
}

async fn sentinel_over_fred() -> Fixture {
    sentinel("valkeys-sentinel+fred").await
}

/// Rules that are about quantity, which costs the same in every deployment. The suites of each client have them.
const BULK: [&str; 2] = ["big_", "many_"];

/// One test for all other rules, or for those of the plain half, over one store: setting these
/// servers up, and connecting, takes longer than a rule.
macro_rules! deployment {
    ($test:ident, $fixture:path) => {
        distkit::conformance_rules! { [deployment] @test $test $fixture: }
    };
    (plain $test:ident, $fixture:path) => {
        distkit::plain_conformance_rules! { [deployment] @test $test $fixture: }
    };
    (@test $test:ident $fixture:path: $($rule:ident)+) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            let fixture = $fixture().await;
            $(
                if !BULK.iter().any(|bulk| stringify!($rule).contains(bulk)) {
                    // Shown when it fails.
                    println!(stringify!($rule));
                    Box::pin(distkit::conformance::$rule(&fixture)).await;
                }
            )+
        }
    };
}

deployment!(client_certificates_over_redis_rs, tls_over_redis_rs);
deployment!(client_certificates_over_fred, tls_over_fred);
deployment!(resp3_on_valkey_over_redis_rs, resp3_over_redis_rs);
deployment!(resp3_on_valkey_over_fred, resp3_over_fred);
deployment!(plain cluster_with_tls_over_redis_rs, cluster_over_redis_rs);
deployment!(cluster_with_tls_over_fred, cluster_over_fred);
deployment!(sentinel_with_tls_over_redis_rs, sentinel_over_redis_rs);
deployment!(plain sentinel_with_tls_over_fred, sentinel_over_fred);

/// What each connection of a client speaks, by the server's account.
fn spoken(server: &Server) -> Vec<String> {
    let list = server.cli(&["CLIENT", "LIST", "TYPE", "normal"]);
    let field = |line: &str| {
        // The one that asks is not meant.
        let asks = line.contains("cmd=client|list");
        let resp = line.split(' ').find(|field| field.starts_with("resp="));
        resp.filter(|_| !asks).map(str::to_owned)
    };
    list.lines().filter_map(field).collect()
}

#[tokio::test]
async fn the_protocol_of_the_url_is_spoken() {
    for (url, expected) in [
        ("redis", "resp=3"),
        ("redis?protocol=resp2", "resp=2"),
        ("redis?protocol=3", "resp=3"),
        ("redis+unix", "resp=3"),
        ("redis+unix?protocol=resp2", "resp=2"),
        ("redis+fred", "resp=2"),
        ("redis+fred?protocol=resp3", "resp=3"),
        ("redis+fred?protocol=2", "resp=2"),
    ] {
        let server = Server::redis().start();
        let (scheme, query) = url.split_once('?').unwrap_or((url, ""));
        let place = match scheme {
            "redis+unix" => server.unix_path().display().to_string(),
            _ => format!("127.0.0.1:{}", server.port()),
        };
        let address = format!("{scheme}://{place}?{query}");
        let store = connect(address.trim_end_matches('?')).await.unwrap();
        let resp = spoken(&server);
        assert!(!resp.is_empty() && resp.iter().all(|resp| resp == expected), "{url}: {resp:?}");
        drop(store);
    }
}
