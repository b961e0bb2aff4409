//! `dualwright compare`: what is only here, only there, or different.

use std::sync::Arc;

use clap::Args;

use super::{ConfigArgument, DIFFERENT, FINE, MISCONFIGURED, output, session};
use crate::engine::EngineError;
use crate::engine::progress::Unwatched;
use crate::report::differences_text;

#[derive(Debug, Args)]
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
        print!("{}", differences_text(&differences));
    }
    Ok(if differences.is_empty() { FINE } else { DIFFERENT })
}
