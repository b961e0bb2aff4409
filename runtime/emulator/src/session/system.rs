//! The columns that the platform writes: who and when, the owner, the state, amounts in the base currency (Dataverse).
//!
//! Owns their rules ("Create and update state and status", "Transaction currency (currency) table", "Record ownership"
//! and the table reference on learn.microsoft.com). A table that lacks a column lacks the rule.

use std::borrow::Cow;
use std::str::FromStr;

use rust_decimal::{Decimal, RoundingStrategy};
use uuid::Uuid;

use super::{Refusal, Session};
use crate::catalogue::Table;
use crate::cell::{self, NULL};
use crate::dataverse::system;
use crate::store;

/// Digits after the point of an amount in the base currency, when its column does not say.
const BASE_DIGITS: u32 = 4;

/// For whom a session writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The user whose rights count, and who is said to have written.
    pub user: Uuid,
    /// The user who sent the request, when acting for another one.
    pub delegate: Option<Uuid>,
}

impl Default for Caller {
    fn default() -> Self {
        Self { user: system::user_id(), delegate: None }
    }
}

/// What rows of the platform say that writes of one session ask for again and again.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// An owner, whether it is a team, and its business unit.
    owner: Option<(String, bool, String)>,
    /// A currency, its exchange rate, and the digits of its amounts.
    rate: Option<(String, String, Option<u32>)>,
    /// The currency of the organization, or null.
    base_currency: Option<String>,
}

impl Session<'_> {
    /// Fills in what a new row has without anybody giving it.
    pub(super) fn complete_new(&mut self, table: &Table, cells: &mut [Cow<'_, str>]) -> Result<(), Refusal> {
        let server = table.server;
        let now = self.now.clone();
        if let Some(at) = server.created {
            cells[at] = now.clone();
            // The column then says when the row really came.
            if let Some(overridden) = server.overridden_created
                && cells[overridden] != NULL
            {
                cells[at] = std::mem::replace(&mut cells[overridden], now.clone());
            }
        }
        let user = cell::guid_cell(self.caller.user);
        let delegate = self.caller.delegate.map(cell::guid_cell);
        for (column, value) in [
            (server.created_by, Some(&user)),
            (server.modified_by, Some(&user)),
            (column_named(table, "createdonbehalfby", delegate.is_some()), delegate.as_ref()),
            (column_named(table, "modifiedonbehalfby", delegate.is_some()), delegate.as_ref()),
        ] {
            if let (Some(at), Some(value)) = (column, value) {
                cells[at] = value.clone();
            }
        }
        if let Some(at) = server.organization
            && cells[at] == NULL
        {
            cells[at] = cell::guid_cell(system::organization_id());
        }
        if let Some(at) = server.owner {
            if cells[at] == NULL {
                cells[at] = user;
            }
            self.complete_owner(table, cells)?;
        }
        self.complete_state(table, None, cells, &[])?;
        self.complete_money(table, None, cells)
    }

    /// Fills in what follows from a change.
    pub(super) fn complete_changed(
        &mut self,
        table: &Table,
        before: &[&str],
        cells: &mut [Cow<'_, str>],
        named: &[usize],
    ) -> Result<(), Refusal> {
        let server = table.server;
        if let Some(at) = server.modified_by {
            cells[at] = cell::guid_cell(self.caller.user);
        }
        if let Some(at) = column_named(table, "modifiedonbehalfby", self.caller.delegate.is_some()) {
            cells[at] = self.caller.delegate.map_or(Cow::Borrowed(NULL), cell::guid_cell);
        }
        if let Some(at) = server.owner
            && cells[at] != before[at]
        {
            if cells[at] == NULL {
                cells[at] = Cow::Owned(before[at].to_owned());
            }
            self.complete_owner(table, cells)?;
        }
        self.complete_state(table, Some(before), cells, named)?;
        self.complete_money(table, Some(before), cells)
    }

    /// A row belongs to a user or to a team, and through it to a business unit.
    fn complete_owner(&mut self, table: &Table, cells: &mut [Cow<'_, str>]) -> Result<(), Refusal> {
        let server = table.server;
        let Some(at) = server.owner else { return Ok(()) };
        if self.known.owner.as_ref().is_none_or(|(known, ..)| *known != cells[at]) {
            let owner = cells[at].clone().into_owned();
            let (is_team, unit) = self.owner_facts(&owner)?;
            self.known.owner = Some((owner, is_team, unit));
        }
        let Some((owner, is_team, unit)) = &self.known.owner else { return Ok(()) };
        let (user, team) = if *is_team { (None, Some(owner)) } else { (Some(owner), None) };
        for (column, value) in
            [(server.owning_user, user), (server.owning_team, team), (server.owning_business_unit, Some(unit))]
        {
            if let Some(at) = column {
                cells[at] = value.map_or(Cow::Borrowed(NULL), |value| Cow::Owned(value.clone()));
            }
        }
        Ok(())
    }

    fn owner_facts(&self, owner: &str) -> rusqlite::Result<(bool, String)> {
        for name in [system::USER, system::TEAM] {
            let Some(table) = self.catalogue.by_name(name) else { continue };
            let Some(id) = table.id_of(&owner) else { continue };
            if let Some(row) = store::find(&self.transaction, &table.id_key(id))? {
                let mut cells = Vec::new();
                table.cells(&row.data, &mut cells);
                let unit = table.column("businessunitid").map_or(NULL, |at| cells[at]);
                return Ok((name == system::TEAM, unit.to_owned()));
            }
        }
        Ok((false, cell::guid_cell(system::business_unit_id()).into_owned()))
    }

    /// A status reason belongs to a state: of a state alone follows its first reason, and the two have to fit.
    fn complete_state(
        &self,
        table: &Table,
        before: Option<&[&str]>,
        cells: &mut [Cow<'_, str>],
        named: &[usize],
    ) -> Result<(), Refusal> {
        let Some(state) = table.server.state else { return Ok(()) };
        if cells[state] == NULL {
            cells[state] = before.map_or(Cow::Borrowed("0"), |before| Cow::Owned(before[state].to_owned()));
        }
        let Some(status) = table.server.status else { return Ok(()) };
        let options = &table.columns[status].definition.options;
        let of_state = |wanted: &str| {
            let wanted = wanted.parse().ok()?;
            options.iter().find(|option| option.state == Some(wanted)).map(|option| option.value.to_string())
        };
        let state_changed = before.is_some_and(|before| before[state] != cells[state]);
        let is_given = match before {
            None => cells[status] != NULL,
            Some(_) => named.contains(&status) && cells[status] != NULL,
        };
        if !is_given && (before.is_none() || state_changed || cells[status] == NULL) {
            let usual = match &*cells[state] {
                "0" => Some("1".to_owned()),
                "1" => Some("2".to_owned()),
                _ => None,
            };
            let usual = usual
                .filter(|usual| options.is_empty() || options.iter().any(|option| option.value.to_string() == *usual));
            if let Some(reason) = of_state(&cells[state]).or(usual) {
                cells[status] = Cow::Owned(reason);
            }
            return Ok(());
        }
        let given = cells[status].parse::<i64>().ok();
        let found = options.iter().find(|option| Some(option.value) == given);
        if let Some(belongs) = found.and_then(|option| option.state)
            && belongs.to_string() != *cells[state]
            && (before.is_none() || is_given || state_changed)
        {
            let states = &table.columns[state].definition.options;
            let shown = states.iter().find(|option| option.value.to_string() == *cells[state]);
            return Err(Refusal::Status {
                status: cells[status].to_string(),
                state: shown.map_or_else(|| cells[state].to_string(), |option| option.name.clone()),
                id: table.primary_id.and_then(|at| table.id_of(&cells[at])).unwrap_or_default(),
            });
        }
        Ok(())
    }

    /// An amount in the base currency is the amount divided by the exchange rate of the row's currency.
    fn complete_money(
        &mut self,
        table: &Table,
        before: Option<&[&str]>,
        cells: &mut [Cow<'_, str>],
    ) -> Result<(), Refusal> {
        if table.amounts.is_empty() {
            return Ok(());
        }
        let currency = table.server.currency;
        let differs = |at: usize, cells: &[Cow<'_, str>]| before.is_none_or(|before| before[at] != cells[at]);
        let currency_differs = currency.is_some_and(|at| differs(at, cells));
        if !currency_differs && !table.amounts.iter().any(|(amount, _)| differs(*amount, cells)) {
            return Ok(());
        }
        if let Some(at) = currency
            && cells[at] == NULL
            && table.amounts.iter().any(|(amount, _)| cells[*amount] != NULL)
        {
            cells[at] = Cow::Owned(self.base_currency()?);
        }
        let (rate, digits) = match currency.map(|at| cells[at].clone().into_owned()) {
            Some(currency) if currency != NULL => self.exchange_rate(&currency)?,
            _ => (NULL.to_owned(), None),
        };
        // Without a precision of its own an amount has that of the currency.
        for &(amount, _) in &table.amounts {
            if let (Some(digits), None) = (digits, table.columns[amount].definition.precision)
                && differs(amount, cells)
                && let Ok(value) = Decimal::from_str(&cells[amount])
            {
                let rounded = value.round_dp_with_strategy(digits, RoundingStrategy::MidpointAwayFromZero);
                cells[amount] = Cow::Owned(rounded.normalize().to_string());
            }
        }
        if let Some(at) = table.server.exchange_rate
            && rate != NULL
        {
            cells[at] = Cow::Owned(rate.clone());
        }
        let divisor = Decimal::from_str(&rate).ok().filter(|rate| !rate.is_zero()).unwrap_or(Decimal::ONE);
        for &(amount, base) in &table.amounts {
            if !currency_differs && !differs(amount, cells) {
                continue;
            }
            let digits = table.columns[base].definition.precision.map_or(BASE_DIGITS, u32::from);
            let value = Decimal::from_str(&cells[amount]).ok().and_then(|amount| amount.checked_div(divisor));
            cells[base] = value.map_or(Cow::Borrowed(NULL), |value| {
                let rounded = value.round_dp_with_strategy(digits, RoundingStrategy::MidpointAwayFromZero);
                Cow::Owned(rounded.normalize().to_string())
            });
        }
        Ok(())
    }

    fn base_currency(&mut self) -> rusqlite::Result<String> {
        if let Some(known) = &self.known.base_currency {
            return Ok(known.clone());
        }
        let currency = self.cell_of_row(system::ORGANIZATION, system::organization_id(), "basecurrencyid")?;
        self.known.base_currency = Some(currency.clone());
        Ok(currency)
    }

    /// The exchange rate of a currency, and the digits of its amounts.
    fn exchange_rate(&mut self, currency: &str) -> rusqlite::Result<(String, Option<u32>)> {
        if let Some((known, rate, digits)) = &self.known.rate
            && known == currency
        {
            return Ok((rate.clone(), *digits));
        }
        let id = Uuid::parse_str(currency.trim_matches('"')).unwrap_or_default();
        let rate = self.cell_of_row(system::CURRENCY, id, "exchangerate")?;
        let digits = self.cell_of_row(system::CURRENCY, id, "currencyprecision")?.parse().ok();
        self.known.rate = Some((currency.to_owned(), rate.clone(), digits));
        Ok((rate, digits))
    }

    fn cell_of_row(&self, table: &str, id: Uuid, column: &str) -> rusqlite::Result<String> {
        let found = self.catalogue.by_name(table).and_then(|table| Some((table, table.column(column)?)));
        let Some((table, at)) = found else { return Ok(NULL.to_owned()) };
        let Some(row) = store::find(&self.transaction, &table.id_key(id))? else { return Ok(NULL.to_owned()) };
        let mut cells = Vec::new();
        table.cells(&row.data, &mut cells);
        Ok(cells[at].to_owned())
    }
}

/// The column with that name, when it is wanted at all: it is searched for.
fn column_named(table: &Table, name: &str, is_wanted: bool) -> Option<usize> {
    if is_wanted { table.column(name) } else { None }
}
