//! What an emulator says it applied: "nothing twice" is read from there, never from the end state.

use std::collections::HashMap;

use anyhow::Context;
use serde_json::Value;

use crate::systems::SystemClient;

/// One write of the audit.
#[derive(Debug, Clone)]
pub struct AuditEntry {
    pub sequence: i64,
    /// The change set it was part of.
    pub transaction: String,
    /// The receipt in that change set; empty when a user wrote.
    pub receipt: String,
    pub set: String,
    pub key: String,
    pub operation: String,
    /// The row had that content already.
    pub equal_before: bool,
}

impl AuditEntry {
    /// A row of the business, written by the runtime.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        !self.receipt.is_empty() && !self.is_bookkeeping()
    }

    /// A receipt or a fence.
    #[must_use]
    pub fn is_bookkeeping(&self) -> bool {
        self.set.to_ascii_lowercase().starts_with("dualwright")
    }
}

/// The audit after a place in it.
pub async fn read(system: &SystemClient, after: i64) -> anyhow::Result<Vec<AuditEntry>> {
    let mut entries = Vec::new();
    let mut after = after;
    loop {
        let page = system.get(&format!("/_emulator/audit?after={after}")).await?;
        let page = page.as_array().context("the audit is not a list")?;
        for entry in page {
            entries.push(entry_of(entry).with_context(|| format!("an entry of the audit: {entry}"))?);
        }
        // A server may answer in pages; an empty one is the end.
        match entries.last() {
            Some(last) if !page.is_empty() && last.sequence > after => after = last.sequence,
            _ => return Ok(entries),
        }
    }
}

fn entry_of(entry: &Value) -> anyhow::Result<AuditEntry> {
    let text = |name: &str| match entry.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    };
    Ok(AuditEntry {
        sequence: entry.get("seq").and_then(Value::as_i64).context("no seq")?,
        transaction: text("transaction"),
        receipt: text("receipt"),
        set: text("set"),
        key: text("key"),
        operation: text("operation"),
        equal_before: entry.get("equalBefore").and_then(Value::as_bool).context("no equalBefore")?,
    })
}

/// Everything in an audit that must not be there: a receipt that was applied twice, a write of ours that repeats the
/// content that was there.
#[must_use]
pub fn violations(entries: &[AuditEntry]) -> Vec<String> {
    let mut found = Vec::new();
    let mut transactions: HashMap<&str, &str> = HashMap::new();
    for entry in entries.iter().filter(|entry| !entry.receipt.is_empty()) {
        let first = transactions.entry(&entry.receipt).or_insert(&entry.transaction);
        if *first != entry.transaction {
            found.push(format!("receipt {} was applied in {first} and in {}", entry.receipt, entry.transaction));
        }
    }
    for entry in entries.iter().filter(|entry| entry.is_ours() && entry.equal_before) {
        found.push(format!(
            "{} {} {} wrote what was there (receipt {})",
            entry.operation, entry.set, entry.key, entry.receipt
        ));
    }
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_found() {
        let entry = |transaction: &str, receipt: &str, set: &str, equal_before| AuditEntry {
            sequence: 1,
            transaction: transaction.to_owned(),
            receipt: receipt.to_owned(),
            set: set.to_owned(),
            key: "k".to_owned(),
            operation: "Update".to_owned(),
            equal_before,
        };
        for (entries, wanted) in [
            (vec![entry("1", "r", "accounts", false), entry("1", "r", "accounts", false)], 0),
            (vec![entry("1", "r", "accounts", false), entry("2", "r", "accounts", false)], 1),
            (vec![entry("1", "r", "accounts", true)], 1),
            // A user may write what was there, and so may a fence.
            (vec![entry("1", "", "accounts", true), entry("1", "r", "dualwright_fences", true)], 0),
        ] {
            assert_eq!(violations(&entries).len(), wanted, "{entries:?}");
        }
    }
}
