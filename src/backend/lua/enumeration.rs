//! Listings, through HSCAN.

use async_trait::async_trait;

use super::{
    Arg, Command, LuaStore, Reply, Script, ScriptRunner, Takes, layout, reply, unexpected, windows,
};
use crate::{
    KeyFilter, RedisKey,
    backend::{BackendError, Cursor, Enumeration, Outcome, Page, SliceEnumeration, Space},
};

static PAGE: Script = Script::new(include_str!("page.lua"));
static WINDOW_PAGE: Script = Script::new(concat!(
    include_str!("window_look.lua"),
    "if gone then return { '', '0', {} } end\n",
    include_str!("page.lua")
));
/// Without the field of the window itself.
static WINDOW_LENGTH: Script = Script::new(concat!(
    include_str!("window_look.lua"),
    "return gone and 0 or redis.call('HLEN', KEYS[1]) - 1"
));

/// Of how many fields a page is at most: about half a millisecond of the server's time.
const LARGEST: usize = 500;

/// How often a listing begins anew because another server answers, before it fails. Where each request goes to
/// another one, no place means anything.
const RESTARTS: u32 = 16;

#[async_trait]
impl<R: ScriptRunner> Enumeration for LuaStore<R> {
    async fn page(
        &self,
        space: &Space,
        from: Option<&Cursor>,
        filter: &KeyFilter,
        count: usize,
    ) -> Result<Page<(RedisKey, Outcome<i64>)>, BackendError> {
        let total = |key, held: &Reply| Ok((key, reply::held(held)?));
        self.page_of(space, &layout::totals(space), from, filter, count, total).await
    }

    async fn count(&self, space: &Space) -> Result<u64, BackendError> {
        self.length_of(space, &layout::totals(space)).await
    }
}

#[async_trait]
impl<R: ScriptRunner> SliceEnumeration for LuaStore<R> {
    async fn page_on(
        &self,
        space: &Space,
        from: Option<&Cursor>,
        filter: &KeyFilter,
        count: usize,
    ) -> Result<Page<RedisKey>, BackendError> {
        let index = layout::instance_index(space);
        self.page_of(space, &index, from, filter, count, |key, _| Ok(key)).await
    }

    async fn count_on(&self, space: &Space) -> Result<u64, BackendError> {
        self.length_of(space, &layout::instance_index(space)).await
    }
}

impl<R: ScriptRunner> LuaStore<R> {
    pub(super) async fn page_of<T>(
        &self,
        space: &Space,
        hash: &str,
        from: Option<&Cursor>,
        filter: &KeyFilter,
        count: usize,
        entry: impl Fn(RedisKey, &Reply) -> Result<T, BackendError>,
    ) -> Result<Page<T>, BackendError> {
        self.check(space).await?;
        let from = from.map_or(Ok(Place::default()), Place::read)?;
        let pattern = superset(filter);
        let count = i64::try_from(count.clamp(1, LARGEST)).unwrap_or(1);
        let window = windows::argument(space, Takes::Open);
        let index = layout::window_index(space);
        let args = [
            Arg::Text(&from.cursor),
            Arg::Text(&from.run),
            Arg::Int(count),
            Arg::Text(&pattern),
            Arg::Text(&window),
        ];
        let keys = [Arg::Text(hash), Arg::Text(&index)];
        // Without a window the last of each means nothing.
        let (script, shown) = match space.window() {
            Some(_) => (&WINDOW_PAGE, 0),
            None => (&PAGE, 1),
        };
        let (keys, args) = (&keys[..keys.len() - shown], &args[..args.len() - shown]);
        let request = || self.runner.script(script, keys, args);
        let answer = self.read_fresh(&layout::totals(space), request).await;
        let reply = answer.map_err(|error| self.failed_to_read(error, &[hash, &index]))?;
        from.page(reply, filter, entry).map_err(BackendError::with_nothing_applied)
    }

    /// Some fields of a hash of the space, whatever their names are, and where the next ones begin.
    pub(super) async fn fields_of(
        &self,
        space: &Space,
        hash: &str,
        from: Option<&Cursor>,
        count: usize,
    ) -> Result<(Fields, Option<Cursor>), BackendError> {
        self.check(space).await?;
        let from = from.map_or(Ok(Place::default()), Place::read)?;
        let count = i64::try_from(count.clamp(1, LARGEST)).unwrap_or(1);
        let all = Arg::Text("*");
        let args = [Arg::Text(&from.cursor), Arg::Text(&from.run), Arg::Int(count), all];
        let answer = self.runner.script(&PAGE, &[Arg::Text(hash)], &args).await;
        from.fields(answer.map_err(|error| self.failed_to_read(error, &[hash]))?)
    }

    async fn length_of(&self, space: &Space, hash: &str) -> Result<u64, BackendError> {
        self.check(space).await?;
        let (index, window) = (layout::window_index(space), windows::argument(space, Takes::Open));
        let keys = [Arg::Text(hash), Arg::Text(&index)];
        let request = || async {
            match space.window() {
                Some(_) => self.runner.script(&WINDOW_LENGTH, &keys, &[Arg::Text(&window)]).await,
                None => self.runner.run(Command::keyed("HLEN", &keys[..1])).await,
            }
        };
        let answer = self.read_fresh(&layout::totals(space), request).await;
        match answer.map_err(|error| self.failed_to_read(error, &[hash, &index]))? {
            Reply::Int(length) => Ok(u64::try_from(length).unwrap_or_default()),
            other => Err(unexpected(&other).with_nothing_applied()),
        }
    }
}

/// A pattern for the server, which finds what the filter selects and more. Of one `*` only: a server takes
/// exponential time for many, or gives up and finds nothing. And its `?` is a byte.
fn superset(filter: &KeyFilter) -> String {
    let mut pattern = escaped(&filter.literal_prefix());
    if let Some(suffix) = filter.literal_suffix() {
        pattern.push('*');
        pattern.push_str(&escaped(&suffix));
    }
    pattern
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        if matches!(char, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
            escaped.push('\\');
        }
        escaped.push(char);
    }
    escaped
}

/// Fields of a hash and their values.
type Fields = Vec<(Vec<u8>, Reply)>;

/// Where a page begins.
struct Place {
    cursor: String,
    /// The run of the server that gave the cursor.
    run: String,
    restarts: u32,
}

impl Default for Place {
    fn default() -> Self {
        Self { cursor: "0".to_owned(), run: String::new(), restarts: 0 }
    }
}

impl Place {
    fn read(cursor: &Cursor) -> Result<Self, BackendError> {
        let mut words = cursor.as_str().split(' ');
        let (Some(cursor), Some(restarts), Some(run), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(foreign_cursor(cursor));
        };
        match (cursor.parse::<u64>(), restarts.parse()) {
            (Ok(_), Ok(restarts)) => {
                Ok(Self { cursor: cursor.to_owned(), run: run.to_owned(), restarts })
            }
            _ => Err(foreign_cursor(&Cursor::new(cursor))),
        }
    }

    /// The page that a server gave for this place.
    fn page<T>(
        &self,
        reply: Reply,
        filter: &KeyFilter,
        entry: impl Fn(RedisKey, &Reply) -> Result<T, BackendError>,
    ) -> Result<Page<T>, BackendError> {
        let (fields, next) = self.fields(reply)?;
        let mut page = Page::new(Vec::with_capacity(fields.len()), next);
        for (name, value) in &fields {
            match std::str::from_utf8(name).ok().and_then(|name| RedisKey::new(name).ok()) {
                Some(key) if filter.matches(&key) => page.entries.push(entry(key, value)?),
                Some(_) => {}
                // Reserved.
                None if name.starts_with(b":") => {}
                None => page.foreign.push(reply::shortened(name)),
            }
        }
        Ok(page)
    }

    /// The fields that a server gave for this place, and the next one.
    fn fields(&self, reply: Reply) -> Result<(Fields, Option<Cursor>), BackendError> {
        let Reply::Array(parts) = reply else { return Err(unexpected(&reply)) };
        let (run, cursor, fields) = match <[Reply; 3]>::try_from(parts) {
            Ok([Reply::Bytes(run), Reply::Bytes(cursor), Reply::Array(fields)]) => {
                (run, cursor, fields)
            }
            Ok(parts) => return Err(unexpected(&parts)),
            Err(parts) => return Err(unexpected(&parts)),
        };
        let run = String::from_utf8_lossy(&run).into_owned();
        let begun_anew = self.cursor != "0" && self.run != run;
        let restarts = self.restarts + u32::from(begun_anew);
        if restarts > RESTARTS {
            let text = "each request of the listing was answered by another server";
            return Err(BackendError::not_applied(text));
        }
        let cursor = String::from_utf8_lossy(&cursor);
        let next = (cursor != "0").then(|| Cursor::new(format!("{cursor} {restarts} {run}")));
        let mut named = Vec::with_capacity(fields.len() / 2);
        let mut fields = fields.into_iter();
        while let Some(name) = fields.next() {
            match (name, fields.next()) {
                (Reply::Bytes(name), Some(value)) => named.push((name, value)),
                (name, _) => return Err(unexpected(&name)),
            }
        }
        Ok((named, next))
    }
}

fn foreign_cursor(cursor: &Cursor) -> BackendError {
    BackendError::not_applied(format!("{:?} is no place in a listing", cursor.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_asked_for_a_superset() {
        for (glob, pattern) in [
            ("*", "*"),
            ("page *", "page *"),
            (r"[a]\*", r"\[a\]\*"),
            ("a*b*c", "a*c"),
            ("ü?x", "ü*x"),
            ("*-eu", r"*\-eu"),
        ] {
            assert_eq!(superset(&KeyFilter::glob(glob)), pattern);
        }
    }

    #[test]
    fn a_foreign_cursor_is_refused() {
        for place in ["", "7", "x 0 run", "7 0 run more"] {
            let error = Place::read(&Cursor::new(place)).map(drop).unwrap_err();
            assert!(matches!(error, BackendError::NotApplied(_)), "{place:?}: {error:?}");
        }
        assert_eq!(Place::read(&Cursor::new("7 0 ")).unwrap().cursor, "7");
    }
}
