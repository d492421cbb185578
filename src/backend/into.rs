use std::sync::Arc;

use super::{Backend, InstanceBackend, Layered, memory::MemoryBackend};

/// A store that can do all that this version of the crate knows of: what [`connect`](super::connect)
/// gives.
///
/// It may gain supertraits in a minor version, so only this crate implements it. Write functions that
/// take a store against [`Backend`] or [`InstanceBackend`].
pub trait Store: InstanceBackend + sealed::Sealed {}

mod sealed {
    pub trait Sealed {}
}

use sealed::Sealed;

impl Sealed for MemoryBackend {}
impl Store for MemoryBackend {}
#[cfg(any(feature = "redis-rs", feature = "fred"))]
impl<R: super::lua::ScriptRunner> Sealed for super::lua::LuaStore<R> {}
#[cfg(any(feature = "redis-rs", feature = "fred"))]
impl<R: super::lua::ScriptRunner> Store for super::lua::LuaStore<R> {}
impl<B: Store + ?Sized, A: super::Around> Sealed for Layered<B, A> {}
impl<B: Store + ?Sized, A: super::Around> Store for Layered<B, A> {}

/// What the options of a counter take as their store, `T` being what they need of it: any store that
/// can do that, one in an [`Arc`], or a connection of a Redis client that a service already has.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the store of these counters",
    label = "not a store that can do what these counters need",
    note = "plain counters take any `Backend`, instance-aware ones an `InstanceBackend`: by value, in an `Arc`, or as a connection of redis-rs or fred"
)]
pub trait IntoBackend<T: ?Sized = dyn Backend> {
    /// Returns the store behind this. No I/O.
    ///
    /// ```
    /// # use distkit::{RedisKey, backend::{*, memory::MemoryBackend}};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let store = MemoryBackend::new();
    /// # let space = Space::new(RedisKey::try_from("shop")?);
    /// # let key = RedisKey::try_from("apples")?;
    /// use std::sync::Arc;
    ///
    /// let shared: Arc<dyn Backend> = store.into_backend();
    /// assert_eq!(shared.read(&space, &[key]).await?, [Ok(0)]);
    /// # Ok(())
    /// # }
    /// ```
    fn into_backend(self) -> Arc<T>;
}

// By value.
impl<B: Backend> IntoBackend<dyn Backend> for B {
    fn into_backend(self) -> Arc<dyn Backend> {
        Arc::new(self)
    }
}

impl<B: InstanceBackend> IntoBackend<dyn InstanceBackend> for B {
    fn into_backend(self) -> Arc<dyn InstanceBackend> {
        Arc::new(self)
    }
}

impl<B: Store> IntoBackend<dyn Store> for B {
    fn into_backend(self) -> Arc<dyn Store> {
        Arc::new(self)
    }
}

// Shared, of a known type.
impl<B: Backend> IntoBackend<dyn Backend> for Arc<B> {
    fn into_backend(self) -> Arc<dyn Backend> {
        self
    }
}

impl<B: InstanceBackend> IntoBackend<dyn InstanceBackend> for Arc<B> {
    fn into_backend(self) -> Arc<dyn InstanceBackend> {
        self
    }
}

// Shared, as it is.
impl<T: ?Sized> IntoBackend<T> for Arc<T> {
    fn into_backend(self) -> Arc<T> {
        self
    }
}

// Shared, of which less is asked than it can do.
impl IntoBackend<dyn Backend> for Arc<dyn InstanceBackend> {
    fn into_backend(self) -> Arc<dyn Backend> {
        self
    }
}

impl IntoBackend<dyn Backend> for Arc<dyn Store> {
    fn into_backend(self) -> Arc<dyn Backend> {
        self
    }
}

impl IntoBackend<dyn InstanceBackend> for Arc<dyn Store> {
    fn into_backend(self) -> Arc<dyn InstanceBackend> {
        self
    }
}

/// A client's connection is whatever its store is.
#[cfg(any(feature = "redis-rs", feature = "fred"))]
macro_rules! connection {
    ($connection:ty => $store:ty, $new:expr) => {
        impl<T: ?Sized> $crate::backend::IntoBackend<T> for $connection
        where
            $store: $crate::backend::IntoBackend<T>,
        {
            fn into_backend(self) -> std::sync::Arc<T> {
                $new(self).into_backend()
            }
        }
    };
}
#[cfg(any(feature = "redis-rs", feature = "fred"))]
pub(crate) use connection;
