use std::{
    io,
    process::{Child, Command, Stdio},
    sync::{Mutex, OnceLock, mpsc},
    thread,
};

type Request = (Command, mpsc::Sender<io::Result<Child>>);

/// A command that starts `program` so that the kernel kills it when the thread that starts it ends, however that
/// ends, if `setpriv` is there.
pub fn command(program: &str) -> Command {
    if dies_with_us() {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", program]);
        command
    } else {
        Command::new(program)
    }
}

/// Starts a [`command`].
///
/// The kernel counts the end of the *thread* that started the child, and a test's thread ends with its
/// test, while a server in a `static` goes on. So one thread that never ends starts them all.
pub(crate) fn spawn(mut command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Request>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, requests) = mpsc::channel::<Request>();
        thread::Builder::new()
            .name("testkit-spawner".into())
            .spawn(move || {
                for (mut command, reply) in requests {
                    // A failed send is a caller that panicked meanwhile: its child must not stay.
                    if let Err(mpsc::SendError(Ok(mut orphan))) = reply.send(command.spawn()) {
                        let _ = orphan.kill();
                        let _ = orphan.wait();
                    }
                }
            })
            .expect("a thread to start servers from");
        Mutex::new(sender)
    });

    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let (sender, reply) = mpsc::channel();
    let spawner = spawner.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    spawner.send((command, sender)).expect("the spawner never ends");
    drop(spawner);
    reply.recv().expect("the spawner answers")
}

fn dies_with_us() -> bool {
    static SETPRIV: OnceLock<bool> = OnceLock::new();
    *SETPRIV.get_or_init(|| {
        Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "true"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
    })
}
