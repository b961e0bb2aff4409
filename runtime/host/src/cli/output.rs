//! What a person and a script see: text that is asked for goes to standard output, everything else to standard error.

use std::io::IsTerminal;

/// Resolves at Ctrl-C or a polite end from outside.
pub(super) async fn interrupted() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}

/// Whether bars and colours are welcome.
pub(super) fn is_for_a_person(json: bool) -> bool {
    !json && std::io::stderr().is_terminal()
}

pub(super) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}
