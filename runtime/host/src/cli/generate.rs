//! `dualwright generate`: rows of an invented company, for the maps of the catalogue.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use dualwright_core::SystemKind;
use serde_json::json;

use super::output::counted;
use super::{ConfigArgument, FINE, MISCONFIGURED, output, session};
use crate::catalogue::generate::{Sizes, all, companies, master_data, sales_orders};
use crate::connect::System;
use crate::demo::FinopsSet;

/// Rows of master data that go together: short enough to be answered soon.
const CHANGE_SET_ROWS: usize = 200;
const TIMEOUT: Duration = Duration::from_secs(120);

const EXAMPLES: &str = "\
Legal entities, currencies, ledgers, customers, vendors, products, stock, projects and sales
orders, which fit together and follow from sizes and seed: the same on every machine. Sets that
have rows are left alone; sales orders are always added, each with its lines in one transaction.
The legal entities are usmf, demf, gbsi and jpmf.

  dualwright generate --customers 200                         into the F&O of ./dualwright.toml
  dualwright generate --customers 200 --orders --seed 8       more orders for those customers
  dualwright generate --size sales-orders=5000 --into rows/   files for `emulate --rows`
  dualwright emulate finops --catalogue --generate 200        an emulator that begins with them

Sizes: customers vendors products sales-orders projects on-hand-requests.";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct GenerateArguments {
    /// Customers; with them comes as much of the rest as goes with so many.
    #[arg(long, value_name = "ROWS", default_value_t = 100)]
    customers: usize,
    #[command(flatten)]
    sizes: SizeArguments,
    /// Only sales orders.
    #[arg(long)]
    orders: bool,
    /// Write files `SET.json` into this folder, and ask no system.
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigArgument,
    /// One JSON object with the rows of each set.
    #[arg(long)]
    json: bool,
}

/// What else is said of generated rows.
#[derive(Debug, Args)]
pub(super) struct SizeArguments {
    /// Another size for one kind of row; once for each.
    #[arg(long, value_name = "NAME=ROWS", value_parser = size)]
    size: Vec<(String, usize)>,
    /// The same seed gives the same rows.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub seed: u64,
}

fn size(text: &str) -> Result<(String, usize), String> {
    let (name, rows) = text.split_once('=').ok_or("it has to be NAME=ROWS")?;
    let rows = rows.parse().map_err(|_| format!("{rows} is not a number of rows"))?;
    Sizes::of(0).set(name, rows)?;
    Ok((name.to_owned(), rows))
}

impl SizeArguments {
    pub(super) fn sizes(&self, customers: usize) -> anyhow::Result<Sizes> {
        let mut sizes = Sizes::of(customers);
        for (name, rows) in &self.size {
            sizes.set(name, *rows).map_err(anyhow::Error::msg)?;
        }
        Ok(sizes)
    }

    /// Everything, set by set.
    pub(super) fn rows(&self, customers: usize) -> anyhow::Result<Vec<FinopsSet>> {
        Ok(all(&self.sizes(customers)?, self.seed))
    }
}

pub(super) async fn generate(arguments: GenerateArguments) -> anyhow::Result<u8> {
    let sizes = arguments.sizes.sizes(arguments.customers)?;
    let seed = arguments.sizes.seed;
    let written = match &arguments.into {
        Some(folder) => {
            let sets = all(&sizes, seed).into_iter();
            write_files(folder, sets.filter(|set| !arguments.orders || set.set.starts_with("CDSSalesOrder")))?
        }
        None => {
            let Some(config) = session::read_config(&arguments.config.config)? else { return Ok(MISCONFIGURED) };
            let missing = companies().into_iter().filter(|company| !config.link.companies.contains(*company));
            let missing = missing.collect::<Vec<_>>();
            if !missing.is_empty() {
                eprintln!("note: the link does not carry the legal entities {}", missing.join(", "));
            }
            let finops = System::new(SystemKind::Finops, config.link.finops.clone())?;
            let mut written = Vec::new();
            if !arguments.orders {
                write_master_data(&finops, master_data(&sizes, seed), &mut written).await?;
            }
            written.extend(write_orders(&finops, &sizes, seed).await?);
            written
        }
    };
    if arguments.json {
        let rows = written.iter().map(|(set, rows)| ((*set).to_owned(), json!(rows)));
        output::print_json(&rows.collect::<serde_json::Map<_, _>>())?;
    } else {
        let lines = written.iter().map(|(set, rows)| match rows {
            Some(rows) => format!("{:<30}{}\n", set, counted(*rows as u64, "row", "rows")),
            None => format!("{set:<30}has rows already\n"),
        });
        output::print(&lines.collect::<String>())?;
    }
    Ok(FINE)
}

/// A set, and how many rows of it were written; `None` where it was left alone.
type Written = (&'static str, Option<usize>);

fn write_files(folder: &Path, sets: impl Iterator<Item = FinopsSet>) -> anyhow::Result<Vec<Written>> {
    fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let mut written = Vec::new();
    for (number, FinopsSet { set, rows }) in sets.enumerate() {
        // Numbered, because an emulator that is given them one by one wants parents first as well.
        let file = folder.join(format!("{:02}-{set}.json", number + 1));
        let json = serde_json::to_string(&json!({ set: rows }))?;
        fs::write(&file, json).with_context(|| format!("{} cannot be written", file.display()))?;
        written.push((set, Some(rows.len())));
    }
    Ok(written)
}

async fn write_master_data(finops: &System, sets: Vec<FinopsSet>, written: &mut Vec<Written>) -> anyhow::Result<()> {
    for FinopsSet { set, rows } in sets {
        if finops.has_rows(set, TIMEOUT).await? {
            written.push((set, None));
            continue;
        }
        for rows in rows.chunks(CHANGE_SET_ROWS) {
            let together = rows.iter().map(|row| (set, row)).collect::<Vec<_>>();
            finops.create_together(&together, TIMEOUT).await?;
        }
        written.push((set, Some(rows.len())));
    }
    Ok(())
}

async fn write_orders(finops: &System, sizes: &Sizes, seed: u64) -> anyhow::Result<[Written; 2]> {
    ensure!(
        sizes.sales_orders == 0 || finops.has_rows("CustomersV3", TIMEOUT).await?,
        "F&O has no customers who could order; write them first, without --orders"
    );
    let (mut orders, mut lines) = (0, 0);
    for order in sales_orders(sizes, seed) {
        let together = order.iter().map(|(set, row)| (*set, row)).collect::<Vec<_>>();
        finops.create_together(&together, TIMEOUT).await.with_context(|| {
            format!("after {orders} orders; orders that are there already have the same seed: take another with --seed")
        })?;
        orders += 1;
        lines += together.len() - 1;
    }
    Ok([("CDSSalesOrderHeaders", Some(orders)), ("CDSSalesOrderLines", Some(lines))])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_hold_the_sets_in_their_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let sets = || all(&Sizes::of(8), 1).into_iter();
        let written = write_files(folder.path(), sets()).expect("written");
        assert_eq!(written.len(), sets().count());
        let mut names =
            fs::read_dir(folder.path()).expect("a folder").map(|entry| entry.expect("an entry").file_name());
        assert!(names.any(|name| name == "01-LegalEntities.json"));
        let text = fs::read_to_string(folder.path().join("02-Currencies.json")).expect("a file");
        let rows: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(rows["Currencies"][0]["CurrencyCode"], "USD");
    }

    #[test]
    fn a_size_is_checked_when_it_is_given() {
        for (text, fits) in [("vendors=9", true), ("vendors", false), ("vendors=x", false), ("people=9", false)] {
            assert_eq!(size(text).is_ok(), fits, "{text}");
        }
    }
}
