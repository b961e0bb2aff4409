//! The time of an emulated system.
//!
//! Owns the only way to learn what time it is: timestamps of rows, lifetimes of tokens and links, windows of limits and
//! retries all ask this clock and never the machine's. It runs with the machine's clock or stands still, can be moved on,
//! and can be made to lie.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dualwright_odata::literal::format_date;
use tokio::sync::watch;

/// Time of one emulated system, in UTC microseconds since 1970. Clones share it.
#[derive(Debug, Clone)]
pub struct Clock {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Where a clock stands that does not run.
    standing: Option<i64>,
    advanced: AtomicI64,
    skew: AtomicI64,
    /// Moves whenever somebody moves the clock.
    moved: watch::Sender<()>,
}

impl Default for Clock {
    fn default() -> Self {
        Self::running()
    }
}

impl Clock {
    /// Runs with the machine's clock.
    #[must_use]
    pub fn running() -> Self {
        Self::new(None)
    }

    /// Stands at `micros` until it is advanced: what a test wants.
    #[must_use]
    pub fn standing_at(micros: i64) -> Self {
        Self::new(Some(micros))
    }

    fn new(standing: Option<i64>) -> Self {
        let (moved, _) = watch::channel(());
        Self { inner: Arc::new(Inner { standing, advanced: AtomicI64::new(0), skew: AtomicI64::new(0), moved }) }
    }

    /// What the system says the time is: in rows, headers and tokens. Wrong by the skew.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.steady().saturating_add(self.inner.skew.load(Ordering::Relaxed))
    }

    /// The time without the skew, for measuring how long something takes or lasts: it never goes back.
    #[must_use]
    pub fn steady(&self) -> i64 {
        let started = self.inner.standing.unwrap_or_else(machine_micros);
        started.saturating_add(self.inner.advanced.load(Ordering::Relaxed))
    }

    /// [`Clock::now`] in whole seconds.
    #[must_use]
    pub fn now_seconds(&self) -> i64 {
        self.now().div_euclid(MICROS_PER_SECOND)
    }

    /// Moves the clock on, and wakes who waits for that.
    pub fn advance(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        let add = |advanced: i64| Some(advanced.saturating_add(micros));
        let _ = self.inner.advanced.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        self.inner.moved.send_replace(());
    }

    /// Makes the system say a time that is wrong by that much, before or behind; zero is honest again.
    pub fn set_skew_ms(&self, skew_ms: i64) {
        self.inner.skew.store(skew_ms.saturating_mul(1_000), Ordering::Relaxed);
        self.inner.moved.send_replace(());
    }

    #[must_use]
    pub fn skew_ms(&self) -> i64 {
        self.inner.skew.load(Ordering::Relaxed) / 1_000
    }

    /// Resolves once [`Clock::steady`] has reached `micros`, because time passed or because the clock was advanced.
    pub async fn reached(&self, micros: i64) {
        let mut moved = self.inner.moved.subscribe();
        loop {
            moved.mark_unchanged();
            let left = micros.saturating_sub(self.steady());
            let Some(left) = u64::try_from(left).ok().filter(|left| *left > 0) else { return };
            // The sender lives as long as this clock, so waiting for it cannot fail.
            if self.inner.standing.is_some() {
                let _ = moved.changed().await;
            } else {
                let _ = tokio::time::timeout(Duration::from_micros(left), moved.changed()).await;
            }
        }
    }
}

pub(crate) const MICROS_PER_SECOND: i64 = 1_000_000;

fn machine_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7), of seconds since 1970.
pub(crate) fn http_date(seconds: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let days = seconds.div_euclid(86_400);
    let date = format_date(i32::try_from(days).unwrap_or(i32::MAX));
    let mut parts = date.rsplitn(3, '-');
    let (day, month, year) =
        (parts.next().unwrap_or("01"), parts.next().unwrap_or("01"), parts.next().unwrap_or("1970"));
    let month = month.parse().ok().and_then(|month: usize| MONTHS.get(month.wrapping_sub(1))).unwrap_or(&"Jan");
    let weekday = usize::try_from(days.rem_euclid(7)).map_or("Thu", |day| DAYS[day]);
    let of_day = seconds.rem_euclid(86_400);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{weekday}, {day} {month} {year} {hour:02}:{minute:02}:{second:02} GMT")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_http() {
        for (seconds, wanted) in [
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (-1, "Wed, 31 Dec 1969 23:59:59 GMT"),
            (1_709_210_096, "Thu, 29 Feb 2024 12:34:56 GMT"),
        ] {
            assert_eq!(http_date(seconds), wanted);
        }
        http_date(i64::MAX);
        http_date(i64::MIN);
    }

    #[test]
    fn a_standing_clock_moves_when_it_is_told_to() {
        let clock = Clock::standing_at(5_000_000);
        assert_eq!((clock.now(), clock.steady(), clock.now_seconds()), (5_000_000, 5_000_000, 5));
        clock.clone().advance(Duration::from_millis(2_000));
        clock.set_skew_ms(-10_000);
        assert_eq!((clock.now(), clock.steady(), clock.now_seconds()), (-3_000_000, 7_000_000, -3));
        clock.set_skew_ms(i64::MAX);
        clock.advance(Duration::MAX);
        assert_eq!(clock.now(), i64::MAX);
    }

    #[test]
    fn a_running_clock_follows_the_machine() {
        let before = machine_micros();
        let clock = Clock::running();
        let now = clock.now();
        assert!(before <= now && now <= machine_micros());
    }

    #[tokio::test]
    async fn who_waits_is_woken_when_the_clock_is_moved() {
        let clock = Clock::standing_at(0);
        clock.reached(0).await;
        let waiting = tokio::spawn({
            let clock = clock.clone();
            async move { clock.reached(1_000_000).await }
        });
        clock.advance(Duration::from_millis(999));
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        clock.advance(Duration::from_millis(1));
        waiting.await.expect("joins");
        Clock::running().reached(machine_micros() + 1).await;
    }
}
