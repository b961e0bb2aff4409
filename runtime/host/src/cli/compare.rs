//! `dualwright compare`: what is only here, only there, or different.

use std::sync::Arc;

use clap::Args;

use super::{ConfigArgument, DIFFERENT, FINE, MISCONFIGURED, output, session};
use crate::engine::EngineError;
use crate::engine::progress::Unwatched;
use crate::report::differences_text;

const EXAMPLES: &str = "\
Reads both systems and writes to neither. Every row of a map is carried over in thought, plugins
included, and held against what the other side has. Rows with a failed record are left out: `status`
lists them. No runtime may be at work on the same state meanwhile.

  dualwright compare                            under the maps of ./dualwright.toml
  dualwright compare --json | jq '.differences[].key'

Exit codes: 0 equal; 1 differences; 2 wrong configuration, or a system does not answer.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CompareArguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// One JSON object with every difference.
    #[arg(long)]
    json: bool,
}

pub(super) async fn compare(arguments: CompareArguments) -> anyhow::Result<u8> {
    let Some(config) = session::read_config(&arguments.config.config)? else { return Ok(MISCONFIGURED) };
    let Some(engine) = session::open_engine(&config, Arc::new(Unwatched), arguments.json).await? else {
        return Ok(MISCONFIGURED);
    };
    let compared = engine.compare().await;
    session::close(&engine).await?;
    let differences = match compared {
        Ok(differences) => differences,
        Err(EngineError::Fault(fault)) => {
            eprintln!("error: {fault}\n  {}", fault.code.remedy());
            return Ok(MISCONFIGURED);
        }
        Err(EngineError::Stopped) => return Ok(MISCONFIGURED),
    };
    if arguments.json {
        output::print_json(&serde_json::json!({ "equal": differences.is_empty(), "differences": differences }))?;
    } else {
        output::print(&differences_text(&differences))?;
    }
    Ok(if differences.is_empty() { FINE } else { DIFFERENT })
}
