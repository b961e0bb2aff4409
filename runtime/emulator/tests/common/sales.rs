//! An F&O with customers, orders and lines, related to each other, in the companies `usmf`, `ussi` and `dat`.

#![allow(dead_code, reason = "every test file uses its own part")]

use dualwright_emulator::{Clock, Dialect, Emulator, read_tables};
use serde_json::{Value, json};

use crate::common::System;

/// 2026-01-02T03:04:05Z.
pub const START_MICROS: i64 = 1_767_323_045_000_000;

pub fn emulator() -> Emulator {
    let emulator = Emulator::open_with_clock(Dialect::Finops, None, Clock::standing_at(START_MICROS)).expect("opens");
    emulator.define(&read_tables(include_str!("sales.json")).expect("definitions").tables).expect("defines");
    for (set, rows) in [
        (
            "LegalEntities",
            vec![json!({"LegalEntityId": "USMF"}), json!({"LegalEntityId": "ussi"}), json!({"LegalEntityId": "dat"})],
        ),
        ("Currencies", vec![json!({"CurrencyCode": "EUR"}), json!({"CurrencyCode": "USD"})]),
        (
            "CustomerGroups",
            ["dat", "usmf", "ussi"].map(|company| json!({"dataAreaId": company, "CustomerGroupId": "10"})).to_vec(),
        ),
    ] {
        seed(&emulator, set, rows);
    }
    emulator
}

pub fn seed(emulator: &Emulator, set: &str, rows: Vec<Value>) {
    let rows = rows.into_iter().map(|row| row.as_object().expect("an object").clone()).collect();
    emulator.seed(set, rows).expect("seeds");
}

pub async fn started() -> System {
    System::serve(emulator()).await
}

/// `Authorization` of an application; the claims are all that is looked at.
pub fn as_application(id: &str) -> String {
    format!("Authorization: Bearer e30.{}.x", base64_url(&json!({"appid": id}).to_string()))
}

fn base64_url(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut out = String::new();
    for group in text.as_bytes().chunks(3) {
        let bits = group.iter().fold(0_usize, |bits, byte| (bits << 8) | usize::from(*byte)) << (8 * (3 - group.len()));
        for digit in 0..=group.len() {
            out.push(char::from(DIGITS[(bits >> (18 - 6 * digit)) & 63]));
        }
    }
    out
}

/// What the body of a refusal says: what X++ says where it was asked, and the message otherwise.
pub fn said(text: &str) -> String {
    let body: Value = serde_json::from_str(text).unwrap_or_default();
    let message = body["error"]["message"].as_str().unwrap_or_default();
    let inner = body["error"]["innererror"]["message"].as_str().unwrap_or_default();
    if message == "An error has occurred." || message == "The request is invalid." { inner } else { message }.to_owned()
}
