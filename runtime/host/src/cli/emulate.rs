//! `dualwright emulate`: one system alone.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use clap::{Args, Subcommand, ValueEnum};
use dualwright_core::SystemKind;
use dualwright_emulator::{
    Dialect, Emulator, FaultPlan, LimitSettings, SeedPlan, SeedReport, ServeOptions, ThrottleSettings, TlsIdentity,
    TokenCheck, TokenClient, ca_path,
};

use super::generate::SizeArguments;
use crate::catalogue;
use crate::demo::DataSource;

#[derive(Debug, Args)]
#[command(after_long_help = MORE, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct EmulateArguments {
    #[command(subcommand)]
    command: Option<EmulateCommand>,
    /// Which system.
    #[arg(required = true)]
    system: Option<SystemName>,
    /// Where to listen; port 0 takes a free one and prints it.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Keep the rows in this file, and go on from it; without it they are gone at the end.
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
    #[command(flatten)]
    seed: SeedFiles,
    /// Add the tables of the demo, and its rows when this is F&O and it has none yet.
    #[arg(long)]
    demo: bool,
    /// Rows of the demo from a folder with the AdventureWorks CSV files.
    #[arg(long, value_name = "DIR", requires = "demo")]
    data: Option<PathBuf>,
    /// Refuse nothing for being too much. Otherwise callers are held to the limits of the real system.
    #[arg(long)]
    no_limits: bool,
    /// Serve HTTPS, with a certificate made on the spot; the path of what clients have to trust is printed. It is kept
    /// beside the store.
    #[arg(long)]
    tls: bool,
    /// A further DNS name or IP address for the certificate, beside localhost and the address listened on.
    #[arg(long, value_name = "NAME", requires = "tls")]
    tls_name: Vec<String>,
    /// Ask nobody for a token.
    #[arg(long, conflicts_with_all = ["tenant", "client"])]
    no_auth: bool,
    /// The directory of the token endpoint: an id or a domain name; made up and printed when not given.
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// A client that gets tokens: ID (its secret is made up and printed), ID=SECRET, or ID=env:NAME for a secret in an
    /// environment variable. Without one, a client is made up.
    #[arg(long, value_name = "CLIENT")]
    client: Vec<String>,
    /// Put these faults in force: the JSON that POST /_emulator/faults takes.
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum EmulateCommand {
    /// Put tables and rows into a store, and serve nothing.
    Seed(SeedArguments),
}

#[derive(Debug, Args)]
#[command(after_long_help = TABLES)]
struct SeedArguments {
    /// Which system.
    system: SystemName,
    /// The store; made when it is not there.
    #[arg(long, value_name = "FILE")]
    store: PathBuf,
    #[command(flatten)]
    seed: SeedFiles,
    /// Say what was added in JSON.
    #[arg(long)]
    json: bool,
}

/// Where tables and rows come from.
#[derive(Debug, Args)]
struct SeedFiles {
    /// Add the tables on which the maps of `dualwright map catalogue` stand.
    #[arg(long)]
    catalogue: bool,
    /// Add rows for all of them, of an invented company with this many customers, to F&O sets that have none yet.
    #[arg(long, value_name = "CUSTOMERS", requires = "catalogue")]
    generate: Option<usize>,
    #[command(flatten)]
    sizes: SizeArguments,
    /// Add the tables that this file defines. A store remembers its tables.
    #[arg(long, value_name = "FILE")]
    tables: Vec<PathBuf>,
    /// Add the tables of a schema file, or of all schema files of the system in a folder.
    #[arg(long, value_name = "PATH")]
    schemas: Vec<PathBuf>,
    /// Add the rows of this file: {"set": [{"property": value, ...}, ...], ...}.
    #[arg(long, value_name = "FILE")]
    rows: Vec<PathBuf>,
    /// Add the rows of a CSV file to a set; its first line names properties.
    #[arg(long, value_name = "SET=FILE", value_parser = set_and_file)]
    csv: Vec<(String, PathBuf)>,
}

fn set_and_file(text: &str) -> Result<(String, PathBuf), String> {
    let (set, file) = text.split_once('=').ok_or("it has to be SET=FILE")?;
    Ok((set.to_owned(), file.into()))
}

const TABLES: &str = "\
A file of tables is JSON:
  {\"tables\": [{\"name\": \"msdyn_customergroup\", \"set\": \"msdyn_customergroups\",
    \"alternateKeys\": [{\"name\": \"groupid\", \"columns\": [\"msdyn_company\", \"msdyn_groupid\"]}],
    \"columns\": [{\"name\": \"msdyn_groupid\", \"type\": \"text\", \"maxLength\": 10, \"required\": true},
      {\"name\": \"msdyn_company\", \"type\": \"lookup\", \"targets\": [{\"table\": \"cdm_company\"}]}]}]}
Types: text memo int bigint decimal money double boolean datetime date guid choice, and lookup
(Dataverse) or enum (F&O).
An F&O table has \"key\": [\"dataAreaId\", \"CustomerGroupId\"] instead of alternate keys; \"enums\"
stand beside \"tables\".
A schema file is JSON with \"system\", \"name\", \"entitySet\" or \"publicCollection\", \"keys\" and \"fields\".
A seeded row whose key is there already gets the columns that are named.";

const MORE: &str = "\
The service is at /api/data/v9.2 (Dataverse) or /data (F&O). Without --no-auth it wants a bearer
token, which the token endpoint gives for the client's id and secret, as Microsoft Entra ID does:
  curl -d grant_type=client_credentials -d client_id=ID -d client_secret=SECRET \\
    -d scope=http://HOST/.default http://HOST/TENANT/oauth2/v2.0/token

Both systems with the tables of the catalogue, and a company of 200 customers in F&O:
  dualwright emulate finops --catalogue --generate 200 --listen 127.0.0.1:8081
  dualwright emulate dataverse --catalogue --listen 127.0.0.1:8082

For people: http://HOST/_emulator/ shows tables, rows, requests, the audit and the faults in force.
For tests: GET /_emulator/audit, POST /_emulator/faults, /_emulator/clock, /_emulator/seed.
`dualwright emulate seed --help` says how tables and rows are written down.";

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SystemName {
    Finops,
    Dataverse,
}

impl SystemName {
    const fn dialect(self) -> Dialect {
        match self {
            Self::Finops => Dialect::Finops,
            Self::Dataverse => Dialect::Dataverse,
        }
    }
}

pub(super) async fn emulate(arguments: EmulateArguments) -> anyhow::Result<u8> {
    if let Some(EmulateCommand::Seed(arguments)) = arguments.command {
        return seed(&arguments);
    }
    let dialect = arguments.system.context("which system is not said")?.dialect();
    let emulator = open(dialect, arguments.store.as_deref())?;
    arguments.seed.apply(&emulator)?;
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
    if let Some(file) = &arguments.faults {
        let json = std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
        let plan = FaultPlan::from_json(&json).with_context(|| format!("{} is no plan of faults", file.display()))?;
        emulator.add_fault_plan(plan);
    }
    let listener = tokio::net::TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("{} cannot be listened on", arguments.listen))?;
    let address = listener.local_addr()?;
    let scheme = if arguments.tls { "https" } else { "http" };
    // Whoever started us reads the first line to learn the port.
    let mut said = format!("{} emulator listening on {scheme}://{address}\n", dialect.name());
    let mut options = ServeOptions::default();
    // A temporary folder goes at the end, with what is in it.
    let mut temporary = None;
    if arguments.tls {
        let folder = match &arguments.store {
            Some(store) => beside(store),
            None => temporary.insert(tempfile::tempdir().context("no place for a certificate")?).path().to_owned(),
        };
        let mut names = arguments.tls_name.clone();
        if !address.ip().is_unspecified() {
            names.push(address.ip().to_string());
        }
        options.tls = Some(TlsIdentity::kept_in(&folder, &names).context("no certificate could be made")?);
        said.push_str(&format!("certificate to trust: {}\n", ca_path(&folder).display()));
    }
    if !arguments.no_auth {
        let (check, described) = token_check(&arguments)?;
        said.push_str(&format!("token endpoint: {scheme}://{address}/{}/oauth2/v2.0/token\n{described}", check.tenant));
        options.tokens = Some(check);
    }
    // Written at once: who reads only the first line may close its end then.
    super::output::print(&said)?;
    emulator.serve_with(options, listener, super::output::interrupted()).await?;
    Ok(super::FINE)
}

fn seed(arguments: &SeedArguments) -> anyhow::Result<u8> {
    let dialect = arguments.system.dialect();
    let emulator = open(dialect, Some(&arguments.store))?;
    let report = arguments.seed.apply(&emulator)?;
    let mut said = String::new();
    if arguments.json {
        said = serde_json::to_string(&report)? + "\n";
    } else {
        said.push_str(&format!("{} tables\n", report.tables));
        for (set, rows) in &report.rows {
            said.push_str(&format!("{rows} rows of {set}\n"));
        }
    }
    super::output::print(&said)?;
    Ok(super::FINE)
}

fn open(dialect: Dialect, store: Option<&Path>) -> anyhow::Result<Emulator> {
    Emulator::open(dialect, store).with_context(|| format!("the {} emulator cannot open its store", dialect.name()))
}

impl SeedFiles {
    /// What comes with the program first, then what the files say.
    fn apply(&self, emulator: &Emulator) -> anyhow::Result<SeedReport> {
        let dialect = emulator.dialect();
        let plan = self.plan(dialect)?;
        let mut tables = 0;
        if self.catalogue {
            let built_in = catalogue::tables(kind_of(dialect))?;
            tables = built_in.len();
            emulator.define(&built_in)?;
        }
        let mut report = emulator.apply_seed(&plan)?;
        report.tables += tables;
        match (self.generate, dialect) {
            (Some(customers), Dialect::Finops) => {
                for set in self.sizes.rows(customers)? {
                    if emulator.count(set.set)? == 0 {
                        *report.rows.entry(set.set.to_owned()).or_default() += emulator.seed(set.set, set.rows)?;
                    }
                }
            }
            // Its rows come over the link.
            (Some(_), Dialect::Dataverse) | (None, _) => {}
        }
        Ok(report)
    }

    fn plan(&self, dialect: Dialect) -> anyhow::Result<SeedPlan> {
        let mut plan = SeedPlan::default();
        for path in &self.schemas {
            plan.schemas(dialect, path)?;
        }
        for path in &self.tables {
            plan.tables_file(path)?;
        }
        for path in &self.rows {
            plan.rows_file(path)?;
        }
        for (set, path) in &self.csv {
            plan.csv_file(set, path)?;
        }
        Ok(plan)
    }
}

const fn kind_of(dialect: Dialect) -> SystemKind {
    match dialect {
        Dialect::Finops => SystemKind::Finops,
        Dialect::Dataverse => SystemKind::Dataverse,
    }
}

/// The folder of a certificate: beside the store, under its name.
fn beside(store: &Path) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push(".tls");
    name.into()
}

/// Who gets tokens, and the lines that say what was made up.
fn token_check(arguments: &EmulateArguments) -> anyhow::Result<(TokenCheck, String)> {
    let tenant = arguments.tenant.clone().unwrap_or_else(|| uuid::Uuid::new_v4().to_string());
    ensure!(
        !tenant.is_empty() && tenant.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte)),
        "a tenant is an id or a domain name, and not {tenant:?}"
    );
    let mut clients = Vec::new();
    let mut described = String::new();
    let written = arguments.client.iter().map(|text| Some(text.as_str()));
    let made_up = arguments.client.is_empty().then_some(None);
    for text in written.chain(made_up) {
        let (id, secret) = match text.map(|text| text.split_once('=').ok_or(text)) {
            None => (None, None),
            Some(Err(id)) => (Some(id), None),
            Some(Ok((id, secret))) => (Some(id), Some(secret)),
        };
        let client = match (id, secret) {
            (Some(id), Some(secret)) => {
                let secret = match secret.strip_prefix("env:") {
                    Some(name) => std::env::var(name)
                        .with_context(|| format!("the environment variable {name} is not set, for client {id}"))?,
                    None => secret.to_owned(),
                };
                ensure!(!secret.is_empty(), "the secret of client {id} is empty");
                described.push_str(&format!("client id: {id}\n"));
                TokenClient { id: id.to_owned(), secret }
            }
            (id, _) => {
                let client = TokenClient::generate(id.map(str::to_owned));
                described.push_str(&format!("client id: {}\nclient secret: {}\n", client.id, client.secret));
                client
            }
        };
        ensure!(!client.id.is_empty(), "a client needs an id");
        clients.push(client);
    }
    Ok((TokenCheck::new(tenant, clients), described))
}

fn load_demo(emulator: &Emulator, data: Option<&Path>) -> anyhow::Result<()> {
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
