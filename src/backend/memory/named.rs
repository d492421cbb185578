use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::MemoryBackend;

static NAMED: Mutex<BTreeMap<String, MemoryBackend>> = Mutex::new(BTreeMap::new());

impl MemoryBackend {
    /// Returns the store of that name, one for the whole process, made when it is first asked for. It lives as
    /// long as the process. Its time is tokio's.
    ///
    /// ```
    /// use distkit::{RedisKey, backend::{Backend, Space, Write, memory::MemoryBackend}};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let space = Space::new(RedisKey::try_from("shop")?);
    /// let write = Write::add(RedisKey::try_from("hits")?, 1);
    /// MemoryBackend::named("orders").apply(&space, &[write], None).await?;
    ///
    /// assert_eq!(MemoryBackend::named("orders").len(&space), 1);
    /// assert_eq!(MemoryBackend::named("users").len(&space), 0);
    /// # Ok(()) }
    /// ```
    pub fn named(name: &str) -> Self {
        NAMED.lock().entry(name.to_owned()).or_default().clone()
    }
}
