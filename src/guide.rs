// The guide's pages, which are files of `docs`. Their links lead to files; here they lead to items.
//
// A page defines its links at its end, for readers of the repository. Of two definitions the first one counts, so the
// definitions before a page replace its own. `tests/links.rs` checks that none is forgotten.

macro_rules! pages {
    ($($(#[$links:meta])* $page:ident: $file:literal;)*) => {
        $(
            $(#[$links])*
            #[doc = ""]
            #[doc = include_str!(concat!("../docs/", $file))]
            pub mod $page {}
        )*
    };
}

pages! {
    /// [lag]: crate::counter::CounterOptions::allowed_lag
    /// [key]: crate::RedisKey
    /// [trypema]: crate::trypema
    /// [guarantees]: crate::guide::guarantees
    /// [recipes]: crate::guide::recipes
    /// [keep_tokens]: crate::counter::CounterOptions::keep_tokens
    /// [recipes]: crate::guide::recipes
    choosing: "guide/choosing.md";
    /// [connect]: crate::backend::connect()
    /// [operating]: crate::guide::operating
    connecting: "guide/connecting.md";
    /// [memory]: crate::backend::memory::MemoryBackend
    /// [link]: crate::backend::memory::MemoryLink
    testing: "guide/testing.md";
    /// [error]: crate::DistkitError
    /// [unknown]: crate::counter::CounterOptions::unknown_after
    /// [guarantees]: crate::guide::guarantees
    /// [rights]: crate::guide::production#rights
    errors: "guide/errors.md";
    shutdown: "guide/shutdown.md";
    /// [icounter]: crate::icounter
    instances: "guide/instances.md";
    /// [operating]: crate::guide::operating
    guarantees: "guide/guarantees.md";
    recipes: "recipes.md";
    /// [backend]: crate::backend::Backend
    /// [space]: crate::backend::Space
    /// [around]: crate::backend::Around
    store: "guide/store.md";
    /// [production]: crate::guide::production
    /// [observability]: crate::guide::observability
    /// [tool]: crate::guide::tool
    /// [clusters]: crate::guide::clusters
    /// [connect]: crate::backend::connect()
    operating: "guide/operating.md";
    /// [shutdown]: crate::counter::LaxCounter::shutdown
    /// [connect]: crate::backend::connect()
    /// [reconnecting]: crate::backend::ReconnectingConnection
    /// [from_fn]: crate::backend::ReconnectingConnection::from_fn
    /// [fred_store]: crate::backend::FredStore
    /// [trypema]: crate::trypema
    /// [icounter]: crate::icounter
    /// [guarantees]: crate::guide::guarantees
    /// [tool]: crate::guide::tool#doctor
    production: "production.md";
    /// [clusters]: crate::guide::clusters
    observability: "observability.md";
    /// [clusters]: crate::guide::clusters
    /// [rights]: crate::guide::production#rights
    /// [eviction]: crate::guide::production#eviction
    /// [observability]: crate::guide::observability
    /// [unique_events]: crate::guide::recipes#unique-billing-events
    tool: "cli.md";
    /// [tool]: crate::guide::tool
    clusters: "sharding.md";
    /// [connecting]: crate::guide::connecting
    /// [chain]: crate::guide::errors
    /// [tool]: crate::guide::tool
    migration: "guide/migration.md";
}
