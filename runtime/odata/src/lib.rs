//! OData v4 on the wire, for a client and for a server.
//!
//! Owns the framing of `$batch`, the grammar of URLs, literals and `$filter`, and their escaping. Knows no business
//! system, no table and no HTTP library: bytes and text come in, plain data comes out, and the other way round.
//! Nothing here panics or recurses without a limit, whatever it is given.

pub mod batch;
pub mod escape;
pub mod filter;
pub mod literal;
pub mod url;

pub use literal::Literal;

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls `check` with many small damages of `valid`; always the same ones.
    pub(crate) fn mutate(valid: &[u8], count: usize, mut check: impl FnMut(&[u8])) {
        // SplitMix64: small, and good enough to reach every byte.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |below: usize| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            usize::try_from((mixed ^ (mixed >> 27)) >> 33).unwrap_or(0) % below.max(1)
        };
        const SPICE: &[&[u8]] =
            &[b"\r\n", b"\n", b"'", b"--", b"(", b")", b"%", b"%27", b",", b"\xff", b"\0", "é".as_bytes(), b" "];
        for _ in 0..count {
            let mut bytes = valid.to_vec();
            for _ in 0..=next(4) {
                let at = next(bytes.len());
                let end = at + next(bytes.len().saturating_sub(at).min(40) + 1);
                match next(4) {
                    0 => drop(bytes.drain(at..end)),
                    1 => drop(bytes.splice(at..at, SPICE[next(SPICE.len())].iter().copied())),
                    2 => bytes.extend_from_within(at..end),
                    _ => bytes.truncate(bytes.len() - next(bytes.len().min(20) + 1)),
                }
            }
            check(&bytes);
        }
    }

    #[test]
    fn damaged_urls_filters_and_literals_are_read_or_refused() {
        let valid = "C(a='usmf',b='O''N%2F1',c=2024-01-02T03:04:05Z)/x?$filter=a eq 'b' and not (contains(c,'d') or e in \
                     (1,null,-2.5e3)) and f eq A.B'C' and g ge 6a8f1f3c-5b1d-4f4e-9d0a-0123456789ab&$select=a,b";
        mutate(valid.as_bytes(), 20_000, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            if let Ok(resource) = url::parse(&text) {
                let _ = (resource.list("$select"), resource.order());
            }
            let _ = url::below("/data", &text);
            let filter = text.split_once("$filter=").map_or(&*text, |(_, filter)| filter);
            if let Ok(tree) = filter::parse(filter) {
                filter::matches(&tree, &|name| Literal::text(name));
            }
            for word in text.split(['=', ' ', ',']) {
                if let Some(literal) = Literal::parse(word) {
                    assert!(Literal::parse(&literal.to_string()).is_some(), "{word}");
                }
            }
        });
    }
}
