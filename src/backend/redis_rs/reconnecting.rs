//! A connection that comes back after every failure.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use backon::ExponentialBackoff;
use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use parking_lot::{Mutex, RwLock};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ErrorKind, Pipeline, ProtocolVersion,
    PushInfo, PushKind, RedisError, RedisFuture, RedisResult, Value,
    aio::{ConnectionLike, MultiplexedConnection},
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};
use tokio::time::Instant;

use super::origin::Origin;
use crate::{
    backend::{
        progress,
        silence::{Sent, Silence},
    },
    backoff::doubling,
};

/// How long connecting, and an answer, may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The delays between attempts to connect. A command in between fails at once.
const FIRST_DELAY: Duration = Duration::from_millis(20);
const LONGEST_DELAY: Duration = Duration::from_secs(1);

/// How often the sentinels are asked for the primary.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// A connection of redis-rs to one server that is replaced after every failure. Recommended over
/// `ConnectionManager`, and what [`connect`](crate::backend::connect()) makes.
///
/// - Any failure to connect is followed by another attempt: a refused connection, a refused password, a
///   server that is loading its data, TLS. Attempts are 20 ms to 1 s apart, and start with the next
///   command.
/// - A command that finds no connection waits for the attempt in flight, at most 5 s, and otherwise
///   fails at once. It was not sent then: counters answer
///   [`NotApplied`](crate::DistkitError::NotApplied).
/// - A connection on which commands got no answer for 5 s, be it that their callers gave up before, and
///   nothing else was answered meanwhile, is replaced. Stores replace one whose server was demoted to a replica.
/// - It speaks RESP3 where the server has it. A connection that the server closed is then replaced before
///   the next command is sent; over RESP2 only a failing command shows it.
/// - `TCP_NODELAY` and TCP keepalive are on, unless the client's own `TcpSettings` turn the former on and
///   so take charge of both.
///
/// No command is sent a second time. Clones share the connection.
///
/// ```no_run
/// use distkit::{RedisKey, backend::ReconnectingConnection, counter::CounterOptions};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = redis::Client::open("redis://127.0.0.1/")?;
/// let connection = ReconnectingConnection::connect(client).await?;
/// let options = CounterOptions::new(RedisKey::try_from("shop")?, connection);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ReconnectingConnection(Arc<Inner>);

struct Inner {
    origin: Origin,
    /// The database of the latest client.
    db: AtomicI64,
    /// Without RESP3, which the server does not have or nobody wants.
    falls_back: AtomicBool,
    response_timeout: Duration,
    live: RwLock<Option<Arc<Live>>>,
    attempts: Mutex<Attempts>,
    /// When the sentinels were last asked.
    checked: Mutex<Option<Instant>>,
}

/// A connection that was made.
struct Live {
    connection: MultiplexedConnection,
    address: ConnectionAddr,
    silence: Silence,
    closed: Arc<AtomicBool>,
}

/// A command that was sent, until it is answered or given up.
struct Awaited<'c> {
    connection: &'c Inner,
    live: &'c Arc<Live>,
    sent: Sent,
    ended: bool,
}

type Attempt = Shared<BoxFuture<'static, RedisResult<Arc<Live>>>>;

#[derive(Default)]
struct Attempts {
    current: Option<Attempt>,
    /// Why the latest failed, and when the next may start.
    failed: Option<(RedisError, Instant)>,
    delays: Option<ExponentialBackoff>,
    /// Where the last one that succeeded went.
    last: Option<ConnectionAddr>,
}

impl ReconnectingConnection {
    /// Creates a connection that connects with its first command. No I/O.
    pub fn new(client: Client) -> Self {
        Self::with_response_timeout(client, PATIENCE)
    }

    /// Does as [`new`](Self::new), with another bound than 5 s on how long an answer may take. No I/O.
    pub fn with_response_timeout(client: Client, timeout: Duration) -> Self {
        let db = client.get_connection_info().redis_settings().db();
        let connection = Self::of(Origin::Fixed(client), timeout);
        connection.0.db.store(db, Relaxed);
        connection
    }

    /// Creates a connection that asks `make` for the client before each attempt to connect: for certificates and
    /// passwords that are rotated. No I/O.
    ///
    /// A connection that is in use stays as it is; the rotated ones are used from the next connection on. An error
    /// of `make` is a failed attempt, followed by others. What `make` does must end within 5 s.
    ///
    /// ```no_run
    /// use distkit::{RedisKey, backend::ReconnectingConnection, counter::CounterOptions};
    ///
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// let connection = ReconnectingConnection::from_fn(|| async {
    ///     // Written by whatever rotates it.
    ///     let password = std::fs::read_to_string("/run/secrets/redis")?;
    ///     let info: redis::ConnectionInfo = "redis://127.0.0.1/".parse()?;
    ///     let settings = info.redis_settings().clone().set_password(password.trim());
    ///     redis::Client::open(info.set_redis_settings(settings))
    /// });
    /// let options = CounterOptions::new(RedisKey::try_from("shop")?, connection);
    /// # Ok(()) }
    /// ```
    pub fn from_fn<F, Fut>(make: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = RedisResult<Client>> + Send + 'static,
    {
        Self::of(Origin::Asked(Box::new(move || make().boxed())), PATIENCE)
    }

    /// Creates a connection to the primary that Redis Sentinel names. Each attempt to connect asks the sentinels, and
    /// so does each second in which commands are sent: a failover is followed within about a second. No I/O.
    ///
    /// The client must ask for the `Master`. [`connect`](crate::backend::connect()) makes one from a
    /// `redis-sentinel://` URL.
    #[cfg(feature = "redis-rs-sentinel")]
    #[cfg_attr(docsrs, doc(cfg(feature = "redis-rs-sentinel")))]
    pub fn of_sentinel(sentinels: redis::sentinel::SentinelClient) -> Self {
        let sentinels = tokio::sync::Mutex::new(sentinels);
        Self::of(Origin::Sentinel { sentinels, renew: None }, PATIENCE)
    }

    /// The same, with sentinels that are made anew for each attempt to connect.
    #[cfg(feature = "redis-rs-sentinel")]
    pub(crate) fn of_sentinels(
        make: impl Fn() -> RedisResult<redis::sentinel::SentinelClient> + Send + Sync + 'static,
    ) -> RedisResult<Self> {
        let sentinels = tokio::sync::Mutex::new(make()?);
        Ok(Self::of(Origin::Sentinel { sentinels, renew: Some(Box::new(make)) }, PATIENCE))
    }

    fn of(origin: Origin, timeout: Duration) -> Self {
        Self(Arc::new(Inner {
            origin,
            db: AtomicI64::new(0),
            falls_back: AtomicBool::new(false),
            response_timeout: timeout,
            live: RwLock::new(None),
            attempts: Mutex::default(),
            checked: Mutex::default(),
        }))
    }

    /// Connects to a server that answers now. Cancel-safe.
    ///
    /// # Errors
    ///
    /// Why it cannot be made, or why the server does not take commands: it wants a password, or is still
    /// loading its data.
    pub async fn connect(client: Client) -> RedisResult<Self> {
        Self::new(client).connected().await
    }

    /// This connection, speaking the protocol that its client asks for and no newer one.
    pub(crate) fn without_resp3(self) -> Self {
        self.0.falls_back.store(true, Relaxed);
        self
    }

    /// This connection, once a server answers on it.
    pub(crate) async fn connected(self) -> RedisResult<Self> {
        self.live().await?;
        Ok(self)
    }

    /// [`live`](Self::live), for a command that is sent next.
    async fn live_for_a_command(&self) -> RedisResult<Arc<Live>> {
        progress::waits();
        let live = self.live().await?;
        progress::is_sent();
        Ok(live)
    }

    /// The connection in use, or the next one.
    async fn live(&self) -> RedisResult<Arc<Live>> {
        if let Some(live) = self.usable() {
            self.check_origin(&live);
            return Ok(live);
        }
        let attempt = {
            let mut attempts = self.0.attempts.lock();
            // Somebody may have made it since.
            if let Some(live) = self.usable() {
                return Ok(live);
            }
            match (&attempts.current, &attempts.failed) {
                (Some(attempt), _) => attempt.clone(),
                (None, Some((error, next))) if Instant::now() < *next => return Err(error.clone()),
                (None, _) => {
                    let attempt = self.attempt();
                    attempts.current = Some(attempt.clone());
                    attempt
                }
            }
        };
        attempt.await
    }

    /// Asks the sentinels, once a second while commands are sent, whether the server still is the primary. The
    /// old primary of a failover takes writes for seconds, all of which are lost.
    fn check_origin(&self, live: &Arc<Live>) {
        if !self.0.origin.may_move() {
            return;
        }
        {
            let Some(mut checked) = self.0.checked.try_lock() else { return };
            if checked.is_some_and(|checked: Instant| checked.elapsed() < CHECK_EVERY) {
                return;
            }
            *checked = Some(Instant::now());
        }
        let (connection, live) = (self.clone(), live.clone());
        tokio::spawn(async move {
            let moved = connection.0.origin.has_moved_from(&live.address);
            if tokio::time::timeout(PATIENCE, moved).await.unwrap_or(false) {
                connection.0.retire(&live);
            }
        });
    }

    fn usable(&self) -> Option<Arc<Live>> {
        let live = self.0.live.read();
        live.as_ref().filter(|live| !live.closed.load(Relaxed)).cloned()
    }

    /// One attempt to connect, in a task of its own: it goes on although the caller gives up.
    fn attempt(&self) -> Attempt {
        let connection = self.clone();
        let task = tokio::spawn(async move {
            let made = tokio::time::timeout(PATIENCE, connection.0.make()).await;
            let made =
                made.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
            connection.0.note(made.map(Arc::new).map_err(not_connected))
        });
        let connection = self.clone();
        async move {
            // The task fails to end only with its runtime.
            task.await.unwrap_or_else(|error| {
                connection.0.note(Err(not_connected(io::Error::other(error).into())))
            })
        }
        .boxed()
        .shared()
    }
}

impl Inner {
    async fn make(&self) -> RedisResult<Live> {
        let client = with_socket_options(self.origin.client().await?);
        self.db.store(client.get_connection_info().redis_settings().db(), Relaxed);
        let (client, fallback) = with_resp3(client);
        let Some(fallback) = fallback else { return self.make_with(&client).await };
        if !self.falls_back.load(Relaxed) {
            match self.make_with(&client).await {
                Err(error) if lacks_resp3(&error) => self.falls_back.store(true, Relaxed),
                made => return made,
            }
        }
        self.make_with(&fallback).await
    }

    async fn make_with(&self, client: &Client) -> RedisResult<Live> {
        let closed = Arc::new(AtomicBool::new(false));
        let mut config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(self.response_timeout));
        if client.get_connection_info().redis_settings().protocol() == ProtocolVersion::RESP3 {
            let closed = closed.clone();
            config = config.set_push_sender(move |push: PushInfo| {
                if push.kind == PushKind::Disconnection {
                    closed.store(true, Relaxed);
                }
                Ok::<(), ()>(())
            });
        }
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        // A server that wants a password, or is loading, takes the connection but no commands. One whose disk is full
        // turns PING down with the writes, and answers everything else.
        let ping = connection.req_packed_command(&redis::cmd("PING")).await;
        match ping.and_then(redis::Value::extract_error) {
            Err(error) if error.code() != Some("MISCONF") => return Err(error),
            _ => {}
        }
        let address = client.get_connection_info().addr().clone();
        Ok(Live { connection, address, silence: Silence::default(), closed })
    }

    fn note(&self, made: RedisResult<Arc<Live>>) -> RedisResult<Arc<Live>> {
        let mut attempts = self.attempts.lock();
        attempts.current = None;
        match &made {
            Ok(live) => {
                *self.live.write() = Some(live.clone());
                // Behind Sentinel: that a failover happened is nowhere else to be seen.
                let from = attempts.last.replace(live.address.clone());
                if let Some(from) = from.filter(|from| *from != live.address) {
                    tracing::info!(
                        target: "distkit::connection",
                        %from, to = %live.address,
                        "connected to another server than before"
                    );
                }
                attempts.failed = None;
                attempts.delays = None;
            }
            Err(error) => {
                let delay = attempts.delays.get_or_insert_with(delays).next();
                let next = Instant::now() + delay.unwrap_or(LONGEST_DELAY);
                attempts.failed = Some((error.clone(), next));
            }
        }
        made
    }

    /// The next command makes another connection.
    fn retire(&self, live: &Arc<Live>) {
        let mut current = self.live.write();
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, live)) {
            *current = None;
        }
    }

    /// Looks at the answer on `live` to what was sent.
    fn judge(&self, live: &Arc<Live>, sent: Sent, answer: Result<&Value, &RedisError>) {
        let replace = match answer {
            Ok(_) => false,
            Err(error) if error.is_timeout() => live.silence.given_up(sent, self.response_timeout),
            Err(error) => match error.kind() {
                ErrorKind::Server(_) => {
                    live.silence.answered();
                    error.code() == Some("NOAUTH")
                }
                ErrorKind::Io | ErrorKind::Parse => true,
                _ => error.is_unrecoverable_error(),
            },
        };
        if answer.is_ok() {
            live.silence.answered();
        }
        if replace {
            self.retire(live);
        }
    }
}

impl<'c> Awaited<'c> {
    fn on(connection: &'c Inner, live: &'c Arc<Live>) -> Self {
        Self { connection, live, sent: live.silence.sent(), ended: false }
    }

    /// It has an answer or an error.
    fn ended(mut self) -> Sent {
        self.ended = true;
        self.sent
    }
}

impl Drop for Awaited<'_> {
    /// Who gives up before the time-out must not keep a connection that has gone silent.
    fn drop(&mut self) {
        let limit = self.connection.response_timeout;
        if !self.ended && self.live.silence.given_up(self.sent, limit) {
            self.connection.retire(self.live);
        }
    }
}

impl ConnectionLike for ReconnectingConnection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        async move {
            let live = self.live_for_a_command().await?;
            let awaited = Awaited::on(&self.0, &live);
            let answer = live.connection.clone().req_packed_command(cmd).await;
            self.0.judge(&live, awaited.ended(), answer.as_ref());
            answer
        }
        .boxed()
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        async move {
            let live = self.live_for_a_command().await?;
            let awaited = Awaited::on(&self.0, &live);
            let mut connection = live.connection.clone();
            let answer = connection.req_packed_commands(pipeline, offset, count).await;
            let sent = awaited.ended();
            match &answer {
                Ok(values) => {
                    self.0.judge(&live, sent, Ok(values.first().unwrap_or(&Value::Nil)));
                }
                Err(error) => self.0.judge(&live, sent, Err(error)),
            }
            answer
        }
        .boxed()
    }

    fn get_db(&self) -> i64 {
        self.0.db.load(Relaxed)
    }
}

impl std::fmt::Debug for ReconnectingConnection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The client holds a password.
        f.debug_struct("ReconnectingConnection").finish_non_exhaustive()
    }
}

fn delays() -> ExponentialBackoff {
    doubling(FIRST_DELAY, LONGEST_DELAY)
}

/// An error that says that nothing was sent.
fn not_connected(error: RedisError) -> RedisError {
    io::Error::new(io::ErrorKind::ConnectionRefused, error).into()
}

fn lacks_resp3(error: &RedisError) -> bool {
    error.kind() == ErrorKind::RESP3NotSupported || error.code() == Some("NOPROTO")
}

fn with_socket_options(client: Client) -> Client {
    let info = client.get_connection_info();
    if info.tcp_settings().nodelay() {
        return client;
    }
    let keepalive = TcpKeepalive::new().with_time(PATIENCE).with_interval(PATIENCE);
    let settings = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    let info = info.clone().set_tcp_settings(settings);
    Client::open(info).unwrap_or(client)
}

/// The client for RESP3, and the one that was given, for servers that do not know it.
fn with_resp3(client: Client) -> (Client, Option<Client>) {
    let info = client.get_connection_info();
    if info.redis_settings().protocol() == ProtocolVersion::RESP3 {
        return (client, None);
    }
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    let info = info.clone().set_redis_settings(settings);
    match Client::open(info) {
        Ok(resp3) => (resp3, Some(client)),
        Err(_) => (client, None),
    }
}
