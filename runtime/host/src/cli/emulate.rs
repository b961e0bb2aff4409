//! `dualwright emulate`: one system alone.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};
use dualwright_emulator::{Dialect, Emulator};

#[derive(Debug, Args)]
pub(super) struct EmulateArguments {
    /// Which system.
    system: SystemName,
    /// Where to listen; port 0 takes a free one and prints it.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Keep the rows in this file, and go on from it; without it they are gone at the end.
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SystemName {
    Finops,
    Dataverse,
}

pub(super) async fn emulate(arguments: EmulateArguments) -> anyhow::Result<u8> {
    let (name, dialect) = match arguments.system {
        SystemName::Finops => ("finops", Dialect::Finops),
        SystemName::Dataverse => ("dataverse", Dialect::Dataverse),
    };
    let emulator = Emulator::open(dialect, arguments.store.as_deref())
        .with_context(|| format!("the {name} emulator cannot open its store"))?;
    let listener = tokio::net::TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("{} cannot be listened on", arguments.listen))?;
    // Whoever started us reads this line to learn the port.
    println!("{name} emulator listening on http://{}", listener.local_addr()?);
    std::io::stdout().flush()?;
    emulator.serve(listener, super::output::interrupted()).await?;
    Ok(super::FINE)
}
