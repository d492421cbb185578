//! Which keys a listing is about.

use std::{fmt, str::Chars, sync::Arc};

use crate::RedisKey;

/// Selects keys by their names: all, those with a prefix, or those that match a glob.
///
/// It compares characters (Unicode scalar values) and distinguishes upper and lower case. It is cheap to clone.
///
/// ```
/// use distkit::{KeyFilter, RedisKey};
///
/// let page = RedisKey::try_from("page 7")?;
/// assert!(KeyFilter::all().matches(&page));
/// assert!(KeyFilter::prefix("page ").matches(&page));
/// assert!(KeyFilter::glob("p*e ?").matches(&page));
/// assert!(!KeyFilter::glob("page").matches(&page));
/// # Ok::<(), distkit::DistkitError>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct KeyFilter(Arc<[Token]>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Literal(char),
    /// Any one character.
    One,
    /// Any number of characters.
    Any,
}

// A matcher of our own: the crates for globs know paths, `[...]` and `{...}` besides, and no escapes; with them a
// filter would mean something else than its text says. The server's own `?` is a byte.
impl KeyFilter {
    /// Selects every key.
    pub fn all() -> Self {
        Self(Arc::new([Token::Any]))
    }

    /// Selects the keys that begin with `prefix`, in which no character is special.
    pub fn prefix(prefix: &str) -> Self {
        Self(prefix.chars().map(Token::Literal).chain([Token::Any]).collect())
    }

    /// Selects the keys of which the whole name matches: `*` stands for any number of characters, `?` for exactly
    /// one, and `\` takes the special meaning from the character after it. A `\` at the end stands for itself.
    ///
    /// ```
    /// # use distkit::{KeyFilter, RedisKey};
    /// assert!(KeyFilter::glob(r"100\*?").matches(&RedisKey::try_from("100*€")?));
    /// # Ok::<(), distkit::DistkitError>(())
    /// ```
    pub fn glob(pattern: &str) -> Self {
        let mut chars = pattern.chars();
        let tokens = std::iter::from_fn(|| {
            Some(match chars.next()? {
                '*' => Token::Any,
                '?' => Token::One,
                '\\' => Token::Literal(chars.next().unwrap_or('\\')),
                other => Token::Literal(other),
            })
        });
        Self(tokens.collect())
    }

    /// Tells whether the key is selected.
    pub fn matches(&self, key: &RedisKey) -> bool {
        matches(&self.0, key)
    }

    /// Returns the text with which every selected key begins, for stores that keep names in order.
    pub fn literal_prefix(&self) -> String {
        self.0.iter().map_while(literal).collect()
    }

    /// The text with which every selected key ends, apart from the beginning; `None` where there is no wildcard.
    #[cfg(any(feature = "redis-rs", feature = "fred"))]
    pub(crate) fn literal_suffix(&self) -> Option<String> {
        let last = self.0.iter().rposition(|token| literal(token).is_none())?;
        Some(self.0[last..].iter().filter_map(literal).collect())
    }
}

fn literal(token: &Token) -> Option<char> {
    match token {
        Token::Literal(char) => Some(*char),
        Token::One | Token::Any => None,
    }
}

/// In at most (length of the pattern) * (length of the name) steps: of several `*` only the last one is tried again.
fn matches(tokens: &[Token], name: &str) -> bool {
    let (mut at, mut rest) = (0, name.chars());
    let mut retry: Option<(usize, Chars<'_>)> = None;
    loop {
        if let Some(Token::Any) = tokens.get(at) {
            at += 1;
            if at == tokens.len() {
                return true;
            }
            retry = Some((at, rest.clone()));
            continue;
        }
        match (tokens.get(at), rest.next()) {
            (None, None) => return true,
            (Some(Token::One), Some(_)) => at += 1,
            (Some(Token::Literal(wanted)), Some(found)) if *wanted == found => at += 1,
            _ => {
                // The last `*` takes one character more.
                let Some((after, from)) = &mut retry else { return false };
                if from.next().is_none() {
                    return false;
                }
                (at, rest) = (*after, from.clone());
            }
        }
    }
}

impl Default for KeyFilter {
    fn default() -> Self {
        Self::all()
    }
}

/// As the glob that means the same.
impl fmt::Display for KeyFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|token| match token {
            Token::Any => f.write_str("*"),
            Token::One => f.write_str("?"),
            Token::Literal(char @ ('*' | '?' | '\\')) => write!(f, "\\{char}"),
            Token::Literal(char) => write!(f, "{char}"),
        })
    }
}

impl fmt::Debug for KeyFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyFilter({:?})", self.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> RedisKey {
        RedisKey::new(name).unwrap()
    }

    /// What a glob means, without regard to time.
    fn means(tokens: &[Token], name: &[char]) -> bool {
        match (tokens, name) {
            ([], name) => name.is_empty(),
            ([Token::Any, tokens @ ..], name) => {
                (0..=name.len()).any(|taken| means(tokens, &name[taken..]))
            }
            ([Token::One, tokens @ ..], [_, name @ ..]) => means(tokens, name),
            ([Token::Literal(wanted), tokens @ ..], [found, name @ ..]) => {
                wanted == found && means(tokens, name)
            }
            _ => false,
        }
    }

    /// All texts over these characters, up to a length.
    fn texts(chars: &[char], longest: usize) -> Vec<String> {
        let mut all = vec![String::new()];
        let mut last = all.clone();
        for _ in 0..longest {
            let longer =
                last.iter().flat_map(|text| chars.iter().map(move |char| format!("{text}{char}")));
            last = longer.collect::<Vec<_>>();
            all.extend(last.iter().cloned());
        }
        all
    }

    #[test]
    fn every_short_glob_agrees_with_its_definition() {
        let names = texts(&['a', 'ü', '*'], 4);
        let mut matched = 0;
        for pattern in texts(&['a', 'ü', '*', '?', '\\'], 4) {
            let filter = KeyFilter::glob(&pattern);
            for name in names.iter().filter(|name| !name.is_empty()) {
                let expected = means(&filter.0, &name.chars().collect::<Vec<_>>());
                assert_eq!(filter.matches(&key(name)), expected, "{pattern:?} on {name:?}");
                matched += usize::from(expected);
            }
        }
        assert!(matched > 1000, "only {matched} pairs match");
    }

    #[test]
    fn a_prefix_is_taken_literally() {
        let filter = KeyFilter::prefix(r"a*?\[");
        assert!(filter.matches(&key(r"a*?\[")));
        assert!(filter.matches(&key(r"a*?\[b]")));
        assert!(!filter.matches(&key(r"ab?\[")));
        assert_eq!(KeyFilter::glob(&filter.to_string()), filter);
        assert_eq!(filter.literal_prefix(), r"a*?\[");
    }

    #[test]
    fn a_glob_of_many_stars_takes_no_exponential_time() {
        let filter = KeyFilter::glob(&format!("{}b", "*a".repeat(100)));
        assert!(!filter.matches(&key(&"a".repeat(255))));
    }

    #[cfg(any(feature = "redis-rs", feature = "fred"))]
    #[test]
    fn the_ends_are_literal() {
        let ends = |glob: &str| {
            let filter = KeyFilter::glob(glob);
            (filter.literal_prefix(), filter.literal_suffix())
        };
        assert_eq!(ends("ab"), ("ab".to_owned(), None));
        assert_eq!(ends(r"a\*?b*c?de"), ("a*".to_owned(), Some("de".to_owned())));
        assert_eq!(ends("*"), (String::new(), Some(String::new())));
    }
}
