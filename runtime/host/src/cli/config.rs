//! `dualwright config`: the configuration file itself.

use clap::Subcommand;

use super::{FINE, output};
use crate::config::Config;

const SCHEMA_EXAMPLES: &str = "\
Editors that know TOML (Taplo, Even Better TOML) complete and check the file with it:

  dualwright config schema > dualwright.schema.json
  and as the first line of dualwright.toml: #:schema ./dualwright.schema.json

What refers to something else (maps, plugins, columns) is checked by `dualwright map check` and
`dualwright run`.";

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print the JSON Schema of dualwright.toml.
    #[command(after_help = SCHEMA_EXAMPLES)]
    Schema,
}

pub(super) fn config(command: &ConfigCommand) -> anyhow::Result<u8> {
    match command {
        ConfigCommand::Schema => output::print_json(&Config::json_schema())?,
    }
    Ok(FINE)
}
