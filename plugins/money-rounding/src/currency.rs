//! The minor units of ISO 4217: how many digits after the point an amount in a currency can have.

/// In which digits the currencies of a list are paid.
struct List {
    /// None: nothing is paid in it, so there is nothing to round to (metals, funds, test codes).
    digits: Option<u8>,
    codes: &'static str,
}

/// Currencies in use, then those withdrawn since 1990 with the minor unit they had: old records are synchronised too.
const LISTS: &[List] = &[
    List {
        digits: Some(2),
        codes: "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD CDF \
         CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD \
         HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT \
         MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR \
         SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD USN UYU \
         UZS VED VES WST XAD XCD XCG YER ZAR ZMW ZWG",
    },
    List { digits: Some(0), codes: "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF" },
    List { digits: Some(3), codes: "BHD IQD JOD KWD LYD OMR TND" },
    List { digits: Some(4), codes: "CLF UYW" },
    List { digits: None, codes: "XAG XAU XBA XBB XBC XBD XDR XPD XPT XSU XTS XUA XXX" },
    List {
        digits: Some(2),
        codes: "AFA ATS AZM BYB CSD CUC CYP DEM EEK FIM FRF GHC HRK IEP LTL LVL MRO MTL MZM NLG PLZ ROL RUR SDD SIT SKK \
         SLL STD TMM VEB VEF ZMK ZWD ZWL",
    },
    List { digits: Some(0), codes: "ADP BEF BYR ESP GRD ITL LUF MGF PTE TPE TRL" },
];

/// What a currency's amounts look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinorUnit {
    /// That many digits after the point.
    Digits(u8),
    /// The code stands for something that is not paid in.
    None,
}

/// None for a code that ISO 4217 does not have. Upper case only.
#[must_use]
pub fn minor_unit(code: &str) -> Option<MinorUnit> {
    if code.len() != 3 {
        return None;
    }
    let list = LISTS.iter().find(|list| list.codes.as_bytes().chunks(4).any(|entry| &entry[..3] == code.as_bytes()))?;
    Some(list.digits.map_or(MinorUnit::None, MinorUnit::Digits))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_code_stands_once_and_is_found() {
        let mut seen = HashSet::new();
        for list in LISTS {
            for code in list.codes.split(' ') {
                assert!(code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_uppercase()), "{code}");
                assert!(seen.insert(code), "{code} stands twice");
                assert_eq!(minor_unit(code), Some(list.digits.map_or(MinorUnit::None, MinorUnit::Digits)), "{code}");
            }
        }
        assert_eq!(seen.len(), 225);
    }

    #[test]
    fn samples() {
        let table = [
            ("USD", Some(MinorUnit::Digits(2))),
            ("JPY", Some(MinorUnit::Digits(0))),
            ("KWD", Some(MinorUnit::Digits(3))),
            ("CLF", Some(MinorUnit::Digits(4))),
            ("CLP", Some(MinorUnit::Digits(0))),
            ("XAU", Some(MinorUnit::None)),
            ("ITL", Some(MinorUnit::Digits(0))),
            ("usd", None),
            ("SD ", None),
            ("D A", None),
            ("ZZZ", None),
            ("", None),
        ];
        for (code, wanted) in table {
            assert_eq!(minor_unit(code), wanted, "{code}");
        }
    }
}
