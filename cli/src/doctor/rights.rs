//! Whether the user may run what the counters run.

use distkit::backend::{Space, operator, operator::RawReply};

use super::findings::{Code, Findings};
use crate::{
    error::Result,
    server::{Server, text},
};

/// ARGV: for each command the number of its words, and these. Gives what may not be run, or is not known to the
/// server.
const ASK: &str = "#!lua flags=no-writes
local missing, at = {}, 1
while at <= #ARGV do
  local words = {}
  for i = 1, tonumber(ARGV[at]) do words[i] = ARGV[at + i] end
  at = at + #words + 1
  local known, may = pcall(redis.acl_check_cmd, unpack(words))
  if not (known and may) then missing[#missing + 1] = words[1] end
end
return missing
";

pub(super) async fn check(server: &Server, space: &Space, found: &mut Findings) -> Result<()> {
    let at = &server.name;
    let key = operator::totals(space);
    let instance_key = format!("{}meta", operator::instance_names(space));
    for key in [&key, &instance_key] {
        let mut args = Vec::new();
        for words in operator::COMMANDS {
            args.push(words.len().to_string());
            args.extend(words.iter().map(|word| match *word {
                "KEY" => key.clone(),
                word => word.to_owned(),
            }));
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        match server.script(ASK, key, &args).await? {
            RawReply::Array(missing) => {
                for command in missing.iter().filter_map(text) {
                    found.add(
                        Code::RightMissing,
                        at,
                        format!("the user may not run {command} on {key}, or the server lacks it"),
                    );
                }
            }
            RawReply::Error { code, detail } if code == "NOPERM" => {
                found.add(
                    Code::RightMissing,
                    at,
                    format!("the user may not run EVAL on {key}: {detail}"),
                );
                return Ok(());
            }
            RawReply::Error { code, detail } => {
                found.unchecked(format!("{at}: the user's rights: {code} {detail}"));
                return Ok(());
            }
            _ => {}
        }
    }
    Ok(())
}
