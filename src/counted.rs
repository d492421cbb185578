//! Numbers with their nouns, for texts that people read.

/// "1 key", "2 keys".
pub(crate) fn counted(number: impl TryInto<u64>, noun: &str) -> String {
    match number.try_into() {
        Ok(1) => format!("1 {noun}"),
        Ok(number) => format!("{number} {noun}s"),
        Err(_) => format!("very many {noun}s"),
    }
}
