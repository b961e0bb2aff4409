//! `export` and `import`: the link as a connection set.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde::Serialize;

use super::super::{ConfigArgument, FINE, MISCONFIGURED, output, session};
use super::{record_of, scope_of};
use crate::config::Config;
use crate::config::edit::{self, LinkEdit};
use crate::setup::connection_set::{ConnectionSet, config_text, slug_of};

const EXPORT_EXAMPLES: &str = "\
The JSON of a connection set, as the Data Integrator behind Dual-write keeps it: environments, legal
entities on both sides, and whose value stands in a conflict. It holds no secret.

  dualwright link export                        to standard output
  dualwright link export contoso.json";

const IMPORT_EXAMPLES: &str = "\
Reads a connection set: one environment with targetType AX (F&O), one with CRM (Dataverse), and the
legal entities between them. Where there is no configuration yet, one is written, to which maps and
credentials are added by hand; in one that is there, addresses, companies and conflict_winner are
replaced, and everything else stays. What dualwright has no place for is named.

  dualwright link import contoso.json
  dualwright link import contoso.json --config contoso/dualwright.toml --slug contoso

Exit codes: 0 imported; 2 it is no connection set, or the configuration would be refused.";

#[derive(Debug, Args)]
#[command(after_help = EXPORT_EXAMPLES)]
pub(in super::super) struct ExportArguments {
    /// Where to write it; standard output when left out.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgument,
    /// Say in JSON what was written, where a file is named. The set itself is JSON in any case.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = IMPORT_EXAMPLES)]
pub(in super::super) struct ImportArguments {
    /// A connection set.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Name of the link in a new configuration; made from the set's name when left out.
    #[arg(long, value_name = "SLUG")]
    slug: Option<String>,
    /// Tenant in a new configuration.
    #[arg(long, value_name = "TENANT", default_value = "default")]
    tenant: String,
    #[command(flatten)]
    config: ConfigArgument,
    /// One JSON object with what was taken, and what was left out.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct ImportReport {
    config: String,
    /// The configuration was not there before.
    created: bool,
    finops_url: String,
    dataverse_url: String,
    companies: Vec<String>,
    /// Members of the set that a link has no place for.
    left_out: Vec<String>,
}

pub(super) async fn export(arguments: ExportArguments) -> anyhow::Result<u8> {
    let Some(config) = session::read_config_without_secrets(&arguments.config.config)? else {
        return Ok(MISCONFIGURED);
    };
    let record = record_of(&config.state, &scope_of(&config)).await?;
    let set = ConnectionSet::of(&config, record.as_ref(), &BTreeMap::new());
    let Some(file) = arguments.file else {
        output::print(&set.to_json())?;
        return Ok(FINE);
    };
    edit::replace(&file, &set.to_json()).with_context(|| format!("{} cannot be written", file.display()))?;
    let companies = config.link.companies.len();
    if arguments.json {
        output::print_json(&serde_json::json!({"file": file.display().to_string(), "companies": companies}))?;
    } else {
        let companies = output::counted(companies as u64, "legal entity", "legal entities");
        output::print(&format!("{}: two environments, {companies}\n", file.display()))?;
    }
    Ok(FINE)
}

pub(super) fn import(arguments: ImportArguments) -> anyhow::Result<u8> {
    let file = arguments.file.display();
    let text = std::fs::read_to_string(&arguments.file).with_context(|| format!("{file} cannot be read"))?;
    let set: ConnectionSet = serde_json::from_str(&text).with_context(|| format!("{file} is no connection set"))?;
    let told = match set.told() {
        Ok(told) => told,
        Err(problems) => {
            for problem in problems {
                eprintln!("error: {file}, {problem}");
            }
            return Ok(MISCONFIGURED);
        }
    };
    let path = &arguments.config.config;
    let created = !path.exists();
    let after = if created {
        let slug = arguments.slug.unwrap_or_else(|| slug_of(&told.name));
        config_text(&told, &arguments.tenant, &slug)
    } else {
        let before = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let edit = LinkEdit {
            companies: Some(told.companies.clone()),
            conflict_winner: told.conflict_winner.map(|winner| winner.name().to_owned()),
            finops_url: Some(told.finops_url.clone()),
            dataverse_url: Some(told.dataverse_url.clone()),
        };
        edit::edited(&before, &edit).map_err(|error| anyhow::anyhow!("{} has no [link]: {error}", path.display()))?
    };
    let folder = path.parent().unwrap_or(Path::new("."));
    if let Err(problems) = Config::parse(&path.display().to_string(), &after, folder, &|_| Some(String::new())) {
        // A new one has no maps yet.
        let problems = problems.into_iter().filter(|problem| !(created && problem.place == "map")).collect::<Vec<_>>();
        for problem in &problems {
            eprintln!("{problem}");
        }
        if !problems.is_empty() {
            eprintln!("nothing was changed");
            return Ok(MISCONFIGURED);
        }
    }
    edit::replace(path, &after).with_context(|| format!("{} cannot be written", path.display()))?;
    let report = ImportReport {
        config: path.display().to_string(),
        created,
        finops_url: told.finops_url,
        dataverse_url: told.dataverse_url,
        companies: told.companies.into_iter().collect(),
        left_out: told.left_out,
    };
    if arguments.json {
        output::print_json(&report)?;
        return Ok(FINE);
    }
    let what = if created { "written; add maps and credentials to it" } else { "changed" };
    let mut said = format!(
        "{} was {what}\n  F&O {}, Dataverse {}\n  companies {}\n",
        report.config,
        report.finops_url,
        report.dataverse_url,
        report.companies.join(", ")
    );
    if !report.left_out.is_empty() {
        said.push_str(&format!("  left out: {}\n", report.left_out.join(", ")));
    }
    output::print(&said)?;
    Ok(FINE)
}
