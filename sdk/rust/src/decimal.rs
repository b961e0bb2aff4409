//! Exact decimals, as amounts cross the boundary: a 128-bit number of units and a scale.
//!
//! Nothing rounds here unless it is asked to.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// Most digits after the point; more do not cross the boundary.
pub const SCALE_MAX: u8 = 28;

/// `units` times 10 to the power of minus `scale`. Compares by value: `1.50` equals `1.5`.
#[derive(Debug, Clone, Copy)]
pub struct Decimal {
    units: i128,
    scale: u8,
}

/// What becomes of a half when digits are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// To the even neighbour, as banks do: 0.125 becomes 0.12.
    HalfEven,
    /// Away from zero, as invoices do: 0.125 becomes 0.13.
    HalfUp,
}

impl Decimal {
    pub const ZERO: Self = Self { units: 0, scale: 0 };

    /// None when `scale` is over [`SCALE_MAX`].
    #[must_use]
    pub const fn new(units: i128, scale: u8) -> Option<Self> {
        if scale <= SCALE_MAX { Some(Self { units, scale }) } else { None }
    }

    #[must_use]
    pub const fn units(self) -> i128 {
        self.units
    }

    #[must_use]
    pub const fn scale(self) -> u8 {
        self.scale
    }

    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.units == 0
    }

    #[must_use]
    pub const fn is_negative(self) -> bool {
        self.units < 0
    }

    /// The same value with that many digits after the point; None if digits would be lost or it does not fit.
    #[must_use]
    pub fn with_scale(self, scale: u8) -> Option<Self> {
        match scale.cmp(&self.scale) {
            Ordering::Equal => Some(self),
            Ordering::Greater => {
                let units = self.units.checked_mul(power_of_ten(scale - self.scale)?)?;
                Self::new(units, scale)
            }
            Ordering::Less => {
                let divisor = power_of_ten(self.scale - scale)?;
                (self.units % divisor == 0).then_some(Self { units: self.units / divisor, scale })
            }
        }
    }

    /// Rounded to at most that many digits after the point. The scale stays as it was, so that the cell does.
    #[must_use]
    pub fn round(self, digits: u8, rounding: Rounding) -> Self {
        let Some(divisor) = self.scale.checked_sub(digits).filter(|&dropped| dropped > 0).and_then(power_of_ten) else {
            return self;
        };
        let (quotient, rest) = (self.units / divisor, self.units % divisor);
        if rest == 0 {
            return self;
        }
        // Half of a power of ten is exact, and twice the rest could overflow.
        let up = match rest.abs().cmp(&(divisor / 2)) {
            Ordering::Less => false,
            Ordering::Greater => true,
            Ordering::Equal => rounding == Rounding::HalfUp || quotient % 2 != 0,
        };
        let quotient = if up { quotient + self.units.signum() } else { quotient };
        match quotient.checked_mul(divisor) {
            Some(units) => Self { units, scale: self.scale },
            // Only within one step of the largest number there is; the smaller scale holds it.
            None => Self { units: quotient, scale: digits },
        }
    }

    /// None when the result does not fit.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        let scale = self.scale.max(other.scale);
        let units = self.with_scale(scale)?.units.checked_add(other.with_scale(scale)?.units)?;
        Some(Self { units, scale })
    }

    /// None when the result does not fit.
    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.checked_add(Self { units: other.units.checked_neg()?, scale: other.scale })
    }

    /// None when the result does not fit.
    #[must_use]
    pub fn checked_mul(self, other: Self) -> Option<Self> {
        let (a, b) = (self.shortest(), other.shortest());
        Self::new(a.units.checked_mul(b.units)?, a.scale + b.scale)
    }

    /// The same value without trailing zeros after the point.
    #[must_use]
    pub fn shortest(self) -> Self {
        let Self { mut units, mut scale } = self;
        while scale > 0 && units % 10 == 0 {
            units /= 10;
            scale -= 1;
        }
        Self { units, scale }
    }
}

const fn power_of_ten(exponent: u8) -> Option<i128> {
    10_i128.checked_pow(exponent as u32)
}

impl From<i64> for Decimal {
    fn from(value: i64) -> Self {
        Self { units: i128::from(value), scale: 0 }
    }
}

impl Default for Decimal {
    fn default() -> Self {
        Self::ZERO
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let scale = self.scale.max(other.scale);
        match (self.with_scale(scale), other.with_scale(scale)) {
            (Some(a), Some(b)) => a.units.cmp(&b.units),
            // The one that does not fit at the larger scale is the larger in magnitude, so its sign decides. Only the
            // one with the smaller scale can fail to fit.
            (None, _) => self.units.cmp(&0),
            (_, None) => 0.cmp(&other.units),
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Decimal {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Decimal {}

impl fmt::Display for Decimal {
    /// All digits of the scale: `1.50` at scale 2.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.units.unsigned_abs().to_string();
        let sign = if self.units < 0 { "-" } else { "" };
        let scale = usize::from(self.scale);
        if scale == 0 {
            write!(f, "{sign}{digits}")
        } else if digits.len() > scale {
            let (whole, fraction) = digits.split_at(digits.len() - scale);
            write!(f, "{sign}{whole}.{fraction}")
        } else {
            write!(f, "{sign}0.{digits:0>scale$}")
        }
    }
}

/// The text is not a decimal number, or has too many digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotADecimal;

impl fmt::Display for NotADecimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a decimal number such as -12.50")
    }
}

impl std::error::Error for NotADecimal {}

impl FromStr for Decimal {
    type Err = NotADecimal;

    fn from_str(text: &str) -> Result<Self, NotADecimal> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.is_empty() || (digits.contains('.') && fraction.is_empty()) {
            return Err(NotADecimal);
        }
        let scale = u8::try_from(fraction.len()).map_err(|_| NotADecimal)?;
        let mut units = 0_i128;
        for byte in whole.bytes().chain(fraction.bytes()) {
            if !byte.is_ascii_digit() {
                return Err(NotADecimal);
            }
            units = units
                .checked_mul(10)
                .and_then(|units| units.checked_add(i128::from(byte - b'0')))
                .ok_or(NotADecimal)?;
        }
        Self::new(if negative { -units } else { units }, scale).ok_or(NotADecimal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        text.parse().unwrap_or_else(|_| panic!("{text} should be a decimal"))
    }

    #[test]
    fn text_there_and_back() {
        for text in
            ["0", "1.50", "-0.05", "123456789012345678901234567890.12345678", "-7", "0.0000000000000000000000000001"]
        {
            assert_eq!(decimal(text).to_string(), text);
        }
        for text in [
            "",
            "-",
            ".5",
            "5.",
            "1,5",
            "1e3",
            "+1",
            " 1",
            "1.2.3",
            "9".repeat(40).as_str(),
            "0.00000000000000000000000000001",
        ] {
            assert_eq!(text.parse::<Decimal>(), Err(NotADecimal), "{text}");
        }
    }

    #[test]
    fn rounding() {
        //         value     digits  half-even   half-up
        let table = [
            ("0.125", 2, "0.120", "0.130"),
            ("0.135", 2, "0.140", "0.140"),
            ("-0.125", 2, "-0.120", "-0.130"),
            ("0.1251", 2, "0.1300", "0.1300"),
            ("0.1249", 2, "0.1200", "0.1200"),
            ("2.5", 0, "2.0", "3.0"),
            ("-2.5", 0, "-2.0", "-3.0"),
            ("3.5", 0, "4.0", "4.0"),
            ("1.25", 2, "1.25", "1.25"),
            ("1.25", 4, "1.25", "1.25"),
            ("0.004", 2, "0.000", "0.000"),
        ];
        for (value, digits, even, up) in table {
            assert_eq!(decimal(value).round(digits, Rounding::HalfEven).to_string(), even, "{value} half-even");
            assert_eq!(decimal(value).round(digits, Rounding::HalfUp).to_string(), up, "{value} half-up");
        }
    }

    #[test]
    fn order_is_by_value_even_where_scales_cannot_be_aligned() {
        let huge = Decimal::new(i128::MAX, 0).expect("scale 0 is allowed");
        let least = Decimal::new(i128::MIN, 0).expect("scale 0 is allowed");
        let one = decimal("1.0000000000000000000000000000");
        let table = [
            (decimal("1.50"), decimal("1.5"), Ordering::Equal),
            (decimal("1.49"), decimal("1.5"), Ordering::Less),
            (decimal("-1"), decimal("0.5"), Ordering::Less),
            (huge, one, Ordering::Greater),
            (least, one, Ordering::Less),
            (huge, decimal("-1.0000000000000000000000000000"), Ordering::Greater),
            (least, decimal("-1.0000000000000000000000000000"), Ordering::Less),
        ];
        for (a, b, wanted) in table {
            assert_eq!(a.cmp(&b), wanted, "{a} to {b}");
            assert_eq!(b.cmp(&a), wanted.reverse(), "{b} to {a}");
        }
    }

    #[test]
    fn arithmetic_is_exact_or_nothing() {
        assert_eq!(decimal("0.1").checked_add(decimal("0.25")), Some(decimal("0.35")));
        assert_eq!(decimal("0.1").checked_sub(decimal("0.25")), Some(decimal("-0.15")));
        assert_eq!(decimal("1.10").checked_mul(decimal("-2.50")), Some(decimal("-2.75")));
        assert_eq!(Decimal::new(i128::MAX, 0).and_then(|huge| huge.checked_mul(decimal("2"))), None);
        assert_eq!(decimal("1.50").with_scale(1), Some(decimal("1.5")));
        assert_eq!(decimal("1.55").with_scale(1), None);
    }
}
