//! Measured times and rates, with the machine and their spread beside them.
//!
//! Wall-clock figures are bench output and never a test's verdict. Ratios come from rounds in one run, in which both
//! sides take turns, so that whatever slows the machine down slows both.

use std::fmt::Write;
use std::time::{Duration, Instant};

/// Numbers of one thing, measured again and again.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    pub fn add(&mut self, sample: f64) {
        self.0.push(sample);
    }

    pub fn add_time(&mut self, time: Duration) {
        self.add(time.as_secs_f64());
    }

    /// The sample below which this share of all lies; 0 when there is none.
    #[must_use]
    pub fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let place = (share * sorted.len().saturating_sub(1) as f64).round() as usize;
        sorted.get(place).copied().unwrap_or_default()
    }

    #[must_use]
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// `1.20 (1.10 to 1.35)`: the median, and what nine of ten samples lie between.
    #[must_use]
    pub fn shown(&self, unit: impl Fn(f64) -> String) -> String {
        format!("{} ({} to {})", unit(self.median()), unit(self.quantile(0.05)), unit(self.quantile(0.95)))
    }

    /// This by that, round by round.
    #[must_use]
    pub fn ratio(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(own, other)| own / other).collect())
    }
}

/// Lets two ways of doing the same take turns, after a round that does not count. Times per call, in seconds.
pub fn take_turns(rounds: usize, calls: usize, mut a: impl FnMut(), mut b: impl FnMut()) -> (Samples, Samples) {
    let timed = |way: &mut dyn FnMut(), samples: &mut Samples, counts: bool| {
        let started = Instant::now();
        for _ in 0..calls {
            way();
        }
        if counts {
            samples.add(started.elapsed().as_secs_f64() / calls as f64);
        }
    };
    let (mut of_a, mut of_b) = (Samples::default(), Samples::default());
    for round in 0..=rounds {
        timed(&mut a, &mut of_a, round > 0);
        timed(&mut b, &mut of_b, round > 0);
    }
    (of_a, of_b)
}

/// A time in the unit that reads best.
#[must_use]
pub fn time(seconds: f64) -> String {
    match seconds {
        ..1e-6 => format!("{:.0} ns", seconds * 1e9),
        ..1e-3 => format!("{:.1} µs", seconds * 1e6),
        ..1.0 => format!("{:.2} ms", seconds * 1e3),
        _ => format!("{seconds:.2} s"),
    }
}

/// Rows per second.
#[must_use]
pub fn rate(rows_per_second: f64) -> String {
    format!("{rows_per_second:.0}/s")
}

#[must_use]
pub fn times(ratio: f64) -> String {
    format!("{ratio:.2}")
}

/// Processor time that this process has used, in seconds, by all its threads; `None` where the system does not say it in
/// `/proc` (proc_pid_stat(5)).
#[must_use]
pub fn processor_time() -> Option<f64> {
    // The kernel counts in USER_HZ, which is 100 on every Linux that this may run on.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program stands in brackets and may hold blanks.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace().skip(11);
    let ticks = |field: Option<&str>| field?.parse::<f64>().ok();
    Some((ticks(fields.next())? + ticks(fields.next())?) / TICKS_PER_SECOND)
}

/// The machine in a line.
#[must_use]
pub fn machine() -> String {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':').map(|(_, name)| name.trim()));
    format!("{} × {}, {} {}", cpus, model.unwrap_or("unknown CPU"), std::env::consts::OS, std::env::consts::ARCH)
}

/// Lines of name, figure and what was wanted.
#[derive(Debug, Default)]
pub struct Table(Vec<[String; 3]>);

impl Table {
    pub fn line(&mut self, name: impl Into<String>, figure: impl Into<String>, wanted: impl Into<String>) {
        self.0.push([name.into(), figure.into(), wanted.into()]);
    }

    /// Prints it, with a title and the machine.
    pub fn print(&self, title: &str) {
        let width = |column: usize| self.0.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let (first, second) = (width(0), width(1));
        let mut text = format!("\n{title}\n{}\nmedian (5 % to 95 % of the samples)\n\n", machine());
        for [name, figure, wanted] in &self.0 {
            let line = format!("  {name:<first$}  {figure:<second$}  {wanted}");
            let _ = writeln!(text, "{}", line.trim_end());
        }
        println!("{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_up() {
        let samples = Samples((1..=101).map(f64::from).collect());
        assert_eq!((samples.median(), samples.quantile(0.99), samples.quantile(1.0)), (51.0, 100.0, 101.0));
        assert_eq!(Samples::default().median(), 0.0);
        assert_eq!(samples.ratio(&samples).median(), 1.0);
        assert_eq!(time(0.000_012_3), "12.3 µs");
    }
}
