//! Which prefixes a server has, and all that they hold.

use std::collections::BTreeMap;

use distkit::{
    RedisKey,
    backend::{Space, operator},
};

use super::{
    findings::{Code, Findings},
    instances::InstanceSpace,
    landscape::Landscape,
    plain,
};
use crate::{
    error::{Error, Result},
    server::Server,
};

/// A prefix whose keys are being looked at.
struct Look {
    space: Space,
    /// `None` where its shape is another version's.
    instances: Option<InstanceSpace>,
}

/// Looks at the keys of one prefix, or of all that are there. Gives the prefixes.
pub(super) async fn check(
    landscape: &Landscape,
    only: Option<&Space>,
    found: &mut Findings,
) -> Result<Vec<Space>> {
    match only {
        Some(space) => {
            if let Some(server) = landscape.owner(space).await? {
                let mut looks = BTreeMap::new();
                open(server, space.clone(), &mut looks, found).await?;
                let pattern = format!("{}*", literal(&operator::key_tag(space)));
                walk(server, &pattern, &mut looks, found).await?;
            }
            Ok(vec![space.clone()])
        }
        None => {
            let mut spaces = Vec::new();
            for server in &landscape.nodes {
                let mut looks = BTreeMap::new();
                walk(server, "distkit:{*}:*", &mut looks, found).await?;
                spaces.extend(looks.into_values().map(|look| look.space));
            }
            Ok(spaces)
        }
    }
}

/// A pattern that only `name` itself fits.
fn literal(name: &str) -> String {
    let special = |c| matches!(c, '*' | '?' | '[' | ']' | '\\' | '^');
    name.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}

async fn open(
    server: &Server,
    space: Space,
    looks: &mut BTreeMap<String, Look>,
    found: &mut Findings,
) -> Result<()> {
    let at = space.prefix().to_string();
    let shape = plain::shape(server, &space, &at, found).await?;
    let mut instances = None;
    if let Some(shape) = shape {
        plain::check(server, &space, &at, &shape, found).await?;
        let opened = InstanceSpace::open(server, &space, &at, found).await?;
        opened.check_index(server, found).await?;
        instances = Some(opened);
    }
    looks.insert(operator::key_tag(&space), Look { space, instances });
    Ok(())
}

/// Scans the keyspace, and looks at each key of a prefix.
async fn walk(
    server: &Server,
    pattern: &str,
    looks: &mut BTreeMap<String, Look>,
    found: &mut Findings,
) -> Result<()> {
    let mut cursor = Some("0".to_owned());
    while let Some(at) = cursor {
        let rest = ["MATCH", pattern, "COUNT", "1000"];
        let (names, next) = match server.scan("SCAN", None, &at, &rest).await {
            Err(Error::Refused { code, .. }) => {
                found.unchecked(format!(
                    "{}: which prefixes there are, and keys that belong to nobody: SCAN is turned down ({code})",
                    server.name
                ));
                return Ok(());
            }
            scanned => scanned?,
        };
        let mut portion: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for name in names {
            let Some((space, rest)) = taken_apart(&name) else { continue };
            let tag = operator::key_tag(&space);
            if !looks.contains_key(&tag) {
                open(server, space, looks, found).await?;
            }
            portion.entry(tag).or_default().push(rest.to_owned());
        }
        for (tag, rests) in portion {
            if let Some(look) = looks.get(&tag) {
                check_names(server, look, rests, found).await?;
            }
        }
        cursor = next;
    }
    Ok(())
}

/// The space that a key belongs to, and the rest of its name. None for what is not ours.
fn taken_apart(name: &str) -> Option<(Space, &str)> {
    let (tag, rest) = name.strip_prefix("distkit:{")?.split_once("}:")?;
    let prefix = tag.replace("%7B", "{").replace("%7D", "}").replace("%25", "%");
    // A tag with a colon is reserved for shards.
    let space = Space::new(RedisKey::new(prefix).ok()?);
    (operator::key_tag(&space).len() + rest.len() == name.len()).then_some((space, rest))
}

async fn check_names(
    server: &Server,
    look: &Look,
    rests: Vec<String>,
    found: &mut Findings,
) -> Result<()> {
    let Some(instances) = &look.instances else { return Ok(()) };
    let mut of_instances = Vec::new();
    for rest in rests {
        match rest.split_once(':') {
            Some(("i", rest)) => of_instances.push(rest.to_owned()),
            // Reserved for later versions.
            Some(("w" | "tok", _)) => {}
            _ if ["totals", "shape", "writers", "lanes", "import"].contains(&rest.as_str()) => {}
            _ => {
                let name = format!("{}{rest}", operator::key_tag(&look.space));
                found.add(
                    Code::OrphanKey,
                    look.space.prefix(),
                    format!("{name} belongs to nobody"),
                );
            }
        }
    }
    instances.check_names(server, of_instances, found).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_as_they_were_made() {
        for prefix in ["shop", "a{b}c", "%7B", "50%"] {
            let space = Space::new(RedisKey::new(prefix).unwrap());
            let name = operator::totals(&space);
            assert_eq!(taken_apart(&name), Some((space, "totals")), "{prefix}");
        }
        for foreign in ["distkit:x", "distkit:{a:s.1}:totals", "other:{a}:totals"] {
            assert_eq!(taken_apart(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_prefix_is_no_pattern() {
        assert_eq!(literal("a*[b]?\\"), "a\\*\\[b\\]\\?\\\\");
    }
}
