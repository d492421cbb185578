//! Hashes that hold up the server when they expire.

use distkit::backend::operator::RawReply;

use super::{
    findings::{Code, Findings},
    node::setting,
};
use crate::{error::Result, server::Server};

/// A server frees so many fields in some 6 ms.
const MANY: i64 = 10_000;

/// Whether the server would stop to free what is under this name, once it expires.
pub(super) async fn check(
    server: &Server,
    at: &str,
    key: &str,
    found: &mut Findings,
) -> Result<()> {
    let fields = match server.ask("HLEN", &[key]).await? {
        RawReply::Int(fields) if fields > MANY => fields,
        // Another type is not ours.
        _ => return Ok(()),
    };
    if server.number("PTTL", &[key]).await? < 0 {
        return Ok(());
    }
    match setting(server, "lazyfree-lazy-expire").await?.as_deref() {
        Some("no") => {
            let what = format!(
                "{key} has {fields} fields and a TTL, and lazyfree-lazy-expire is no: the server stops for about {} ms \
                 if it expires by itself",
                fields * 7 / 10_000
            );
            found.add(Code::LazyExpire, at, what);
        }
        Some(_) => {}
        None => found.unchecked(format!(
            "{}: lazyfree-lazy-expire, for CONFIG GET is denied (grant +config|get)",
            server.name
        )),
    }
    Ok(())
}
