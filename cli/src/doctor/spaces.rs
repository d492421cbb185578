//! Which prefixes there are, and all that they hold.

use std::collections::{BTreeMap, HashMap};

use distkit::{
    RedisKey,
    backend::{Space, operator, operator::RawReply},
};

use super::{
    expiry,
    findings::{Code, Findings},
    instances::InstanceSpace,
    landscape::Landscape,
    plain, tokens,
};
use crate::{
    error::{Error, Result},
    server::Server,
    shards::{self, Shape, side_by_side},
};

/// What is under one tag.
struct Place {
    space: Space,
    holds: Holds,
}

enum Holds {
    /// The counters of a prefix, or of one shard.
    Counters(Box<InstanceSpace>),
    /// The shape of a prefix of several shards, and its markers.
    Shape,
    /// What cannot be understood, or looked at.
    Unknown,
}

struct Looks<'a> {
    landscape: &'a Landscape,
    /// How many shards each prefix has; `None` where that is not known.
    prefixes: BTreeMap<RedisKey, Option<u16>>,
    /// By what their names begin with.
    places: BTreeMap<String, Place>,
}

/// Looks at the keys of one prefix, or of all that are there. Gives the prefixes, and the places of each.
pub(super) async fn check(
    landscape: &Landscape,
    only: Option<&Space>,
    found: &mut Findings,
) -> Result<Vec<Vec<Space>>> {
    let mut looks = Looks { landscape, prefixes: BTreeMap::new(), places: BTreeMap::new() };
    let pattern = match only {
        Some(space) => {
            // Its shards can be looked at also by a user who may not scan.
            looks.open(space.prefix().clone(), found).await?;
            of_prefix(space)
        }
        None => "distkit:{*}:*".to_owned(),
    };
    for server in &landscape.nodes {
        looks.walk(server, &pattern, found).await?;
    }
    let places = |(prefix, shards): (RedisKey, Option<u16>)| {
        let mut places = vec![Space::new(prefix.clone())];
        if let Some(shards @ 2..) = shards {
            places.extend(Space::shards_of(prefix, shards));
        }
        places
    };
    Ok(looks.prefixes.into_iter().map(places).collect())
}

/// The pattern of the names of a prefix and of its shards, whose tags go on with a colon.
fn of_prefix(space: &Space) -> String {
    let tag = operator::key_tag(space);
    format!("{}[}}:]*", literal(tag.strip_suffix("}:").unwrap_or(&tag)))
}

/// A pattern that only `name` itself fits.
fn literal(name: &str) -> String {
    let special = |c| matches!(c, '*' | '?' | '[' | ']' | '\\' | '^');
    name.chars().flat_map(|c| special(c).then_some('\\').into_iter().chain([c])).collect()
}

impl Looks<'_> {
    /// Looks at a prefix and at all of its shards.
    async fn open(&mut self, prefix: RedisKey, found: &mut Findings) -> Result<()> {
        let own = Space::new(prefix.clone());
        let landscape = self.landscape;
        let Some(server) = landscape.owner(&own) else {
            found.unchecked(format!("{prefix}: no node that answers has its slot"));
            self.prefixes.insert(prefix, None);
            return Ok(());
        };
        let shape = self.shape(server, &own, found).await?;
        let shards = shape.shards();
        let holds = match shards {
            None => {
                let what = format!(
                    "the prefix has layout {} and {} shards; this tool knows layout {} and up to {} shards, and \
                     looks no further into it",
                    shape.layout,
                    shape.shards,
                    operator::LAYOUT,
                    Space::MAX_SHARDS
                );
                found.add(Code::ShapeOther, &prefix, what);
                Holds::Unknown
            }
            Some(1) => counters(server, &own, found).await?,
            Some(shards) => {
                let all = Space::shards_of(prefix.clone(), shards);
                let places = side_by_side(all, |space| shard(landscape, space)).await;
                for place in places {
                    let (place, more) = place?;
                    found.extend(more);
                    self.places.insert(operator::key_tag(&place.space), place);
                }
                markers(server, &own, &shape, found).await?
            }
        };
        self.places.insert(operator::key_tag(&own), Place { space: own, holds });
        self.prefixes.insert(prefix, shards);
        Ok(())
    }

    /// The shape of a prefix: what it says, or what tells it where it is lost.
    async fn shape(&self, server: &Server, own: &Space, found: &mut Findings) -> Result<Shape> {
        let prefix = own.prefix();
        let fields = plain::shape(server, own, prefix, found).await?;
        if !fields.is_empty() {
            return Ok(of_fields(&fields));
        }
        let shards = Space::shards_of(prefix.clone(), 2);
        let first = shards.first().and_then(|first| self.landscape.owner(first)).unwrap_or(server);
        let Some(shape) = shards::left(server, own, first).await? else {
            // Nothing is there, or counters of one shard, whose check tells what is lost.
            return Ok(Shape::new(Some(&operator::LAYOUT.to_string()), Some("1")));
        };
        let key = operator::shape(own);
        let what = format!("{key} is gone, and the prefix has {} shards", shape.shards);
        found.add(Code::SpaceHalfLost, prefix, what);
        Ok(shape)
    }

    /// Scans the keyspace, and looks at each key of a prefix.
    async fn walk(&mut self, server: &Server, pattern: &str, found: &mut Findings) -> Result<()> {
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
                let Some((prefix, tag, rest)) = taken_apart(&name) else { continue };
                if !self.prefixes.contains_key(&prefix) {
                    self.open(prefix.clone(), found).await?;
                }
                if self.places.contains_key(tag) {
                    portion.entry(tag.to_owned()).or_default().push(rest.to_owned());
                } else if let Some(Some(shards)) = self.prefixes.get(&prefix) {
                    let what = format!(
                        "{name} is in no shard of the prefix, which has {shards}: processes disagree on the number, \
                         or its shape is lost"
                    );
                    found.add(Code::ShapeOther, &prefix, what);
                }
            }
            for (tag, rests) in portion {
                // While a slot is moved its names are in two nodes, and one answers.
                if let Some(place) = self.places.get(&tag)
                    && self.landscape.owner(&place.space).is_some_and(|own| own.name == server.name)
                {
                    check_names(server, place, rests, found).await?;
                }
            }
            cursor = next;
        }
        Ok(())
    }
}

fn of_fields(fields: &HashMap<String, String>) -> Shape {
    let field = |name: &str| fields.get(name).map(String::as_str);
    Shape::new(field("layout"), field("shards"))
}

/// Looks at one of several shards.
async fn shard(landscape: &Landscape, space: Space) -> Result<(Place, Findings)> {
    let mut found = Findings::default();
    let prefix = space.prefix();
    let holds = match landscape.owner(&space) {
        None => {
            found.unchecked(format!("{prefix}: the shards in slots that no node has that answers"));
            Holds::Unknown
        }
        Some(server) => match counters(server, &space, &mut found).await {
            // The other shards may be open to the user, and the missing right is a finding of its own.
            Err(error @ Error::Refused { .. }) => {
                found.unchecked(format!("the shards of {prefix}: {error}"));
                Holds::Unknown
            }
            holds => holds?,
        },
    };
    Ok((Place { space, holds }, found))
}

/// Looks at the counters of a prefix, or of one shard.
async fn counters(server: &Server, space: &Space, found: &mut Findings) -> Result<Holds> {
    let at = space.prefix();
    let fields = plain::shape(server, space, at, found).await?;
    let shape = of_fields(&fields);
    if !fields.is_empty() && shape.shards() != Some(space.shards()) {
        let what = format!(
            "{} has layout {} and {} shards, and the prefix layout {} and {}; nothing else was looked at in this shard",
            operator::shape(space),
            shape.layout,
            shape.shards,
            operator::LAYOUT,
            space.shards()
        );
        found.add(Code::ShapeOther, at, what);
        return Ok(Holds::Unknown);
    }
    plain::check(server, space, at, &fields, found).await?;
    expiry::check(server, at, &operator::totals(space), found).await?;
    tokens::check(server, space, at, fields.get("tokens"), found).await?;
    let instances = InstanceSpace::open(server, space, at, found).await?;
    instances.check_index(server, found).await?;
    Ok(Holds::Counters(Box::new(instances)))
}

/// Looks at what keeps processes of one shard away from a prefix of several.
async fn markers(
    server: &Server,
    own: &Space,
    shape: &Shape,
    found: &mut Findings,
) -> Result<Holds> {
    let (at, wanted) = (own.prefix(), shape.marker());
    let mut holds = Holds::Shape;
    for key in shards::markers(own) {
        match server.ask("GET", &[&key]).await? {
            RawReply::Nil => {
                let what = format!(
                    "{key} is gone, which tells processes of one shard that the prefix has {}; the next process that \
                     starts makes it",
                    shape.shards
                );
                found.add(Code::SpaceHalfLost, at, what);
            }
            RawReply::Bytes(text) if text == wanted.as_bytes() => {
                plain::is_lasting(server, at, &key, found).await?;
            }
            RawReply::Error { code, detail } if code != "WRONGTYPE" => {
                found.unchecked(format!("{key}: {code} {detail}"));
            }
            _ => {
                let what = format!(
                    "{key} should be the text {wanted:?}: a process with another number of shards counts there, or \
                     did; nothing else was looked at under this tag"
                );
                found.add(Code::ShapeOther, at, what);
                holds = Holds::Unknown;
            }
        }
    }
    Ok(holds)
}

/// A key's prefix, what its name begins with, and the rest of it. None for what is not ours.
fn taken_apart(name: &str) -> Option<(RedisKey, &str, &str)> {
    let (tag, rest) = name.strip_prefix("distkit:{")?.split_once("}:")?;
    // A shard's tag is the prefix's, a colon, its number, a point and a salt. No prefix has a colon.
    let (own, shard) = tag.split_once(':').map_or((tag, None), |(own, shard)| (own, Some(shard)));
    if let Some(shard) = shard {
        let (number, salt) = shard.split_once('.')?;
        number.parse::<u16>().ok()?;
        salt.parse::<u32>().ok()?;
    }
    let prefix = own.replace("%7B", "{").replace("%7D", "}").replace("%25", "%");
    let prefix = RedisKey::new(prefix).ok()?;
    let begins = operator::key_tag(&Space::new(prefix.clone()));
    let same = begins.strip_prefix("distkit:{")?.strip_suffix("}:")? == own;
    same.then(|| (prefix, &name[..name.len() - rest.len()], rest))
}

async fn check_names(
    server: &Server,
    place: &Place,
    rests: Vec<String>,
    found: &mut Findings,
) -> Result<()> {
    let instances = match &place.holds {
        Holds::Counters(instances) => Some(instances),
        Holds::Shape => None,
        Holds::Unknown => return Ok(()),
    };
    let (mut of_instances, mut of_tokens) = (Vec::new(), Vec::new());
    for rest in rests {
        let known: &[&str] = match instances {
            Some(_) => &["totals", "shape", "writers", "lanes", "tok", "import"],
            None => &["totals", "shape", "i:meta"],
        };
        match rest.split_once(':') {
            _ if known.contains(&rest.as_str()) => {}
            Some(("i", rest)) if instances.is_some() => of_instances.push(rest.to_owned()),
            Some(("w", _)) => {
                let name = format!("{}{rest}", operator::key_tag(&place.space));
                expiry::check(server, place.space.prefix(), &name, found).await?;
            }
            Some(("tok", rest)) if instances.is_some() => of_tokens.push(rest.to_owned()),
            _ => {
                let name = format!("{}{rest}", operator::key_tag(&place.space));
                let what = format!("{name} belongs to nobody");
                found.add(Code::OrphanKey, place.space.prefix(), what);
            }
        }
    }
    for rest in tokens::orphans(server, &place.space, of_tokens).await? {
        let what =
            format!("{}:{rest} belongs to no bucket of tokens", operator::tokens(&place.space));
        found.add(Code::OrphanKey, place.space.prefix(), what);
    }
    match instances {
        Some(instances) => instances.check_names(server, of_instances, found).await,
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_as_they_were_made() {
        for prefix in ["shop", "a{b}c", "%7B", "50%"] {
            let prefix = RedisKey::new(prefix).unwrap();
            for space in [1, 6].into_iter().flat_map(|n| Space::shards_of(prefix.clone(), n)) {
                let (tag, name) = (operator::key_tag(&space), operator::totals(&space));
                assert_eq!(taken_apart(&name), Some((prefix.clone(), &*tag, "totals")), "{name}");
            }
        }
        for foreign in [
            "distkit:x",
            "distkit:{a:s.1}:totals",
            "distkit:{a:1}:totals",
            "distkit:{%}:a",
            "other:{a}:totals",
        ] {
            assert_eq!(taken_apart(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn a_prefix_is_no_pattern() {
        assert_eq!(literal("a*[b]?\\"), "a\\*\\[b\\]\\?\\\\");
        let space = Space::new(RedisKey::new("a*").unwrap());
        assert_eq!(of_prefix(&space), "distkit:{a\\*[}:]*");
    }
}
