//! `dualwright emulate`: one system alone.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, ValueEnum};
use dualwright_emulator::{Dialect, Emulator, LimitSettings, ThrottleSettings, read_tables};

use crate::demo::DataSource;

#[derive(Debug, Args)]
#[command(after_long_help = TABLES)]
pub(super) struct EmulateArguments {
    /// Which system.
    system: SystemName,
    /// Where to listen; port 0 takes a free one and prints it.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Keep the rows in this file, and go on from it; without it they are gone at the end.
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
    /// Add the tables that this file defines. A store remembers its tables.
    #[arg(long, value_name = "FILE")]
    tables: Option<PathBuf>,
    /// Add the tables of the demo, and its rows when this is F&O and it has none yet.
    #[arg(long)]
    demo: bool,
    /// Rows of the demo from a folder with the AdventureWorks CSV files.
    #[arg(long, value_name = "DIR", requires = "demo")]
    data: Option<PathBuf>,
    /// Refuse nothing for being too much. Otherwise callers are held to the limits of the real system.
    #[arg(long)]
    no_limits: bool,
}

const TABLES: &str = "\
A file of tables is JSON:
  {\"tables\": [{\"name\": \"msdyn_customergroup\", \"set\": \"msdyn_customergroups\",
    \"alternateKeys\": [{\"name\": \"groupid\", \"columns\": [\"msdyn_company\", \"msdyn_groupid\"]}],
    \"columns\": [{\"name\": \"msdyn_groupid\", \"type\": \"text\", \"maxLength\": 10, \"required\": true},
      {\"name\": \"msdyn_company\", \"type\": \"lookup\", \"targets\": [{\"table\": \"cdm_company\"}]}]}]}
Types: text memo int bigint decimal money double boolean datetime date guid choice lookup (Dataverse) enum (F&O).
An F&O table has \"key\": [\"dataAreaId\", \"CustomerGroupId\"] instead of alternate keys; \"enums\" stand beside \"tables\".

What was written to a system: GET /_emulator/audit. Faults on demand: POST /_emulator/faults.";

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
    if let Some(file) = &arguments.tables {
        let text = std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))?;
        let tables = read_tables(&text).with_context(|| format!("{} does not define tables", file.display()))?;
        emulator.define(&tables.tables)?;
    }
    if arguments.demo {
        load_demo(&emulator, arguments.data.as_deref())?;
    }
    if !arguments.no_limits {
        match dialect {
            Dialect::Finops => {
                emulator.set_throttling(ThrottleSettings { enabled: true, ..ThrottleSettings::default() });
            }
            Dialect::Dataverse => emulator.set_limits(LimitSettings { enabled: true, ..LimitSettings::default() }),
        }
    }
    let listener = tokio::net::TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("{} cannot be listened on", arguments.listen))?;
    // Whoever started us reads this line to learn the port.
    super::output::print(&format!("{name} emulator listening on http://{}\n", listener.local_addr()?))?;
    emulator.serve(listener, super::output::interrupted()).await?;
    Ok(super::FINE)
}

fn load_demo(emulator: &Emulator, data: Option<&std::path::Path>) -> anyhow::Result<()> {
    let source = match data {
        Some(folder) => DataSource::folder(folder)?,
        None => DataSource::embedded()?,
    };
    if emulator.dialect() == Dialect::Dataverse {
        return emulator.define(&source.tables().dataverse);
    }
    emulator.define(&source.tables().finops)?;
    let sets = source.finops_rows()?;
    // Each set is loaded as a whole, so a set with rows is complete.
    let is_loaded = sets.iter().all(|set| emulator.count(set.set).is_ok_and(|count| count > 0));
    if !is_loaded {
        for set in sets {
            emulator.seed(set.set, set.rows)?;
        }
    }
    Ok(())
}
