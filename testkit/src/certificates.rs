use std::{fs, path::Path, process::Command};

use tempfile::TempDir;

/// Certificates for servers and their clients, from an authority of a test's own; gone when dropped.
///
/// The servers are `localhost` and `127.0.0.1`.
#[derive(Debug)]
pub struct Certificates {
    dir: TempDir,
}

const FILES: [&str; 5] = ["ca.crt", "server.crt", "server.key", "client.crt", "client.key"];

impl Certificates {
    /// Makes all of them, with openssl.
    ///
    /// # Panics
    ///
    /// When it fails.
    #[allow(clippy::new_without_default, reason = "it runs a program")]
    pub fn new() -> Self {
        let new = Self { dir: temporary() };
        issue(new.dir.path());
        new
    }

    /// Puts others in the place of all of them, from another authority. Who has trusted the old one does not trust
    /// these.
    ///
    /// # Panics
    ///
    /// When openssl fails.
    pub fn rotate(&self) {
        let next = temporary();
        issue(next.path());
        for file in FILES {
            // Whole, as whatever rotates certificates sees to.
            let staged = self.dir.path().join("next");
            fs::copy(next.path().join(file), &staged).expect("a copy of a file");
            fs::rename(staged, self.dir.path().join(file)).expect("a file renamed");
        }
    }

    /// The certificate of the authority.
    pub fn ca(&self) -> String {
        self.file("ca.crt")
    }

    /// The client's certificate and its key.
    pub fn client(&self) -> (String, String) {
        (self.file("client.crt"), self.file("client.key"))
    }

    pub(crate) fn server_files(&self) -> [(&'static str, String); 3] {
        [
            ("tls-ca-cert-file", self.ca()),
            ("tls-cert-file", self.file("server.crt")),
            ("tls-key-file", self.file("server.key")),
        ]
    }

    /// What the command line clients take to connect.
    pub(crate) fn cli_args(&self) -> [String; 7] {
        let (cert, key) = self.client();
        ["--tls", "--cacert", &self.ca(), "--cert", &cert, "--key", &key].map(str::to_owned)
    }

    fn file(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().expect("a path of Unicode").to_owned()
    }
}

fn temporary() -> TempDir {
    tempfile::Builder::new().prefix("distkit-").tempdir().expect("a temporary directory")
}

/// A CA, and a certificate of its for each side: rustls refuses a CA as the server itself.
fn issue(dir: &Path) {
    const KEY: [&str; 5] = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let ca =
        ["req", "-x509", "-days", "2", "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.crt"];
    openssl(dir, &[&ca[..], &KEY].concat());
    fs::write(dir.join("ext"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").expect("a file");
    for side in ["server", "client"] {
        let [key, request, crt] = ["key", "csr", "crt"].map(|kind| format!("{side}.{kind}"));
        let subject = format!("/CN={side}");
        openssl(
            dir,
            &[&["req", "-subj", &subject, "-keyout", &key, "-out", &request], &KEY[..]].concat(),
        );
        let sign = ["x509", "-req", "-in", &request, "-CA", "ca.crt", "-CAkey", "ca.key"];
        let out = ["-CAcreateserial", "-days", "2", "-extfile", "ext", "-out", &crt];
        openssl(dir, &[&sign[..], &out].concat());
    }
}

fn openssl(dir: &Path, args: &[&str]) {
    let output = Command::new("openssl").args(args).current_dir(dir).output();
    let output = output.expect("openssl, which apt-get installs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
