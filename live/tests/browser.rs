//! The page in headless Chromium: three processes, one of which is killed and returns.
//!
//! Ignored otherwise, because few machines have a browser: `scripts/test --browser` installs it and runs
//! these tests.

mod support;

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader},
    panic::{AssertUnwindSafe, resume_unwind},
    process::{Child, Stdio},
    time::Duration,
};

use distkit_testkit::{Server, command_tied_to_this_thread};
use fantoccini::{Client, ClientBuilder, Locator};
use futures_util::FutureExt;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};

use support::{Process, SHORT, wait_until};

struct Driver {
    child: Child,
    url: String,
}

impl Driver {
    fn start() -> Self {
        let mut command = command_tied_to_this_thread("chromedriver");
        command.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped());
        let missing = "chromedriver does not start. On Debian: apt-get install chromium chromium-driver; \
                       or let scripts/test --browser do so";
        let mut child = command.spawn().expect(missing);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let port = lines.find_map(|line| {
            let port = line.split_once("started successfully on port ")?.1;
            Some(port.trim_end_matches('.').to_owned())
        });
        let Some(port) = port else {
            let _ = child.kill();
            panic!("{missing} ({:?})", child.wait());
        };
        // It goes on writing.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url: format!("http://127.0.0.1:{port}") }
    }

    async fn browser(&self) -> Client {
        let options = json!({ "goog:chromeOptions": { "args": [
            "--headless=new",
            // Root has no sandbox, nor have most containers. The page is our own.
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            "--force-device-scale-factor=1",
            "--hide-scrollbars",
            // The browser ends with the driver, even if that is killed.
            "--remote-debugging-pipe",
        ] } });
        let Value::Object(options) = options else { unreachable!() };
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(options);
        builder.connect(&self.url).await.expect("a browser: is chromium installed?")
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Page(Client);

/// The page's content at one time.
#[derive(Debug, serde::Deserialize)]
struct Shown {
    status: String,
    total: i64,
    /// Of each living instance.
    instances: BTreeMap<String, i64>,
    /// The marks in the chart, in the order of time, and the lines of the log, the newest first.
    marks: Vec<String>,
    log: Vec<String>,
    bands: Vec<String>,
}

impl Page {
    async fn open(browser: Client, process: &Process) -> Self {
        // A window is larger than its page.
        let script = "return [window.outerWidth - window.innerWidth, window.outerHeight - window.innerHeight]";
        let borders = browser.execute(script, vec![]).await.unwrap();
        let border = |i: usize| u32::try_from(borders[i].as_u64().unwrap()).unwrap();
        browser.set_window_size(1200 + border(0), 700 + border(1)).await.unwrap();
        browser.goto(&process.url).await.unwrap();
        Self(browser)
    }

    async fn shown(&self) -> Shown {
        let script = "
            const number = (text) => Number(text.replaceAll(',', '').replace('–', '-1'));
            const living = [...document.querySelectorAll('#instances li:not(.gone)')];
            const events = (selector) => [...document.querySelectorAll(selector)]
                .map(({ dataset }) => `${dataset.instance} ${dataset.event}`);
            return {
                status: document.getElementById('status').dataset.state,
                total: number(document.getElementById('total').textContent),
                instances: Object.fromEntries(living.map((li) =>
                    [li.dataset.instance, number(li.querySelector('.value').textContent)])),
                marks: events('#chart .mark'),
                log: events('#log li'),
                bands: [...new Set([...document.querySelectorAll('#chart .band')]
                    .map(({ dataset }) => dataset.instance))],
            };";
        let shown = self.0.execute(script, vec![]).await.unwrap();
        serde_json::from_value(shown).unwrap()
    }

    /// Waits until the page shows what is wanted.
    async fn shows(&self, what: &str, wanted: impl Fn(&Shown) -> bool) -> Shown {
        let mut last = None;
        let found = wait_until(what, async || {
            let shown = self.shown().await;
            let found = wanted(&shown);
            last = Some(shown);
            found
        });
        if let Err(panic) = AssertUnwindSafe(found).catch_unwind().await {
            eprintln!("the page shows {last:?}");
            resume_unwind(panic);
        }
        last.unwrap()
    }

    async fn has(&self, expected: &[(&str, i64)]) -> Shown {
        let instances: BTreeMap<_, _> =
            expected.iter().map(|(name, value)| (name.to_string(), *value)).collect();
        let total: i64 = instances.values().sum();
        let what = format!("{expected:?}");
        self.shows(&what, |shown| shown.instances == instances && shown.total == total).await
    }

    async fn click(&self, id: &str) {
        self.0.find(Locator::Id(id)).await.unwrap().click().await.unwrap();
    }
}

/// Closes the browser even if `story` panics.
async fn in_a_browser(story: impl AsyncFnOnce(Client)) {
    let driver = Driver::start();
    let browser = driver.browser().await;
    let told = AssertUnwindSafe(story(browser.clone())).catch_unwind().await;
    let closed = browser.close().await;
    if let Err(panic) = told {
        resume_unwind(panic);
    }
    closed.unwrap();
}

#[tokio::test]
#[ignore = "needs chromium and chromedriver: scripts/test --browser"]
async fn the_page_marks_an_expiry_and_a_return() {
    let server = Server::redis().start();
    let [a, b, c] = ["a", "b", "c"].map(|name| Process::start(&server, name, SHORT, &[]));
    a.opens(10).await;
    b.opens(20).await;
    c.opens(30).await;
    in_a_browser(async |browser| {
        let page = Page::open(browser, &a).await;
        // The page is itself a connection.
        let shown = page.has(&[("a", 11), ("b", 20), ("c", 30)]).await;
        assert_eq!(
            (&*shown.status, shown.bands),
            ("live", vec!["a".into(), "b".into(), "c".into()])
        );
        let name = page.0.find(Locator::Id("name")).await.unwrap().text().await.unwrap();
        let store = page.0.find(Locator::Id("store")).await.unwrap().text().await.unwrap();
        assert_eq!(
            (&*name, store.trim_end_matches('/')),
            ("a", server.url().trim_end_matches('/'))
        );

        b.kill_9();
        let shown = page.has(&[("a", 11), ("c", 30)]).await;
        assert!(shown.marks.contains(&"b expired".into()), "{shown:?}");
        assert!(shown.log.contains(&"b expired".into()), "{shown:?}");

        let b = Process::start(&server, "b", SHORT, &[]);
        b.opens(7).await;
        let shown = page.has(&[("a", 11), ("b", 7), ("c", 30)]).await;
        assert!(shown.marks.contains(&"b returned".into()), "{shown:?}");

        page.click("open").await;
        page.has(&[("a", 21), ("b", 7), ("c", 30)]).await;
        page.click("close").await;
        page.click("close").await;
        page.has(&[("a", 1), ("b", 7), ("c", 30)]).await;

        // The process that serves the page.
        a.kill_9();
        page.shows("that its process is gone", |shown| shown.status == "lost").await;
    })
    .await;
}

#[tokio::test]
#[ignore = "needs chromium and chromedriver: scripts/test --browser"]
async fn the_page_shows_an_outage_of_the_store() {
    let server = Server::redis().append_only_always().start();
    let a = Process::start(&server, "a", support::LONG, &[]);
    a.opens(10).await;
    in_a_browser(async |browser| {
        let page = Page::open(browser, &a).await;
        page.has(&[("a", 11)]).await;
        server.kill_9();
        let shown = page.shows("an outage", |shown| shown.status == "unreachable").await;
        assert_eq!(shown.total, 11, "the last that is known");
        server.restart();
        page.shows("its end", |shown| shown.status == "live").await;
        let shown = page.has(&[("a", 11)]).await;
        assert!(shown.marks.is_empty(), "{shown:?}");
    })
    .await;
}

/// Not a test: makes the picture in the README.
#[tokio::test]
#[ignore = "writes the file that DISTKIT_SCREENSHOT names: scripts/test --browser"]
async fn picture() {
    let path = std::env::var_os("DISTKIT_SCREENSHOT")
        .expect("DISTKIT_SCREENSHOT: where to write the picture");
    let server = Server::redis().start();
    let start =
        |name, load| Process::start(&server, name, "5s", &["--load", load, "--poll", "500ms"]);
    let (a, b, mut c) = (start("api-0", "60"), start("api-1", "45"), start("api-2", "30"));
    in_a_browser(async |browser| {
        let page = Page::open(browser, &a).await;
        let marks = async |mark: &str| {
            page.shows(mark, |shown| shown.marks.iter().any(|found| found == mark)).await;
        };
        // So that the chart has some width between the marks.
        let pause = async |seconds| tokio::time::sleep(Duration::from_secs(seconds)).await;
        pause(15).await;
        b.kill_9();
        marks("api-1 expired").await;
        pause(9).await;
        let _b = start("api-1", "45");
        marks("api-1 returned").await;
        pause(9).await;
        assert!(c.terminate().await.success());
        marks("api-2 left").await;
        pause(6).await;
        let _c = start("api-2", "30");
        marks("api-2 returned").await;
        pause(6).await;
        fs::write(&path, page.0.screenshot().await.unwrap()).unwrap();
    })
    .await;
}
