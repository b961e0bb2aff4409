//! What plugins and tenants may use, as it is written: `[limits.plugin]`, `[limits.tenant]`, and `limits` of one
//! installation, which says only what differs there.

use std::time::Duration;

use dualwright_sandbox::{
    Limits as PluginLimits, MEMORIES_HIGHEST, TABLE_ELEMENTS_HIGHEST, TABLES_HIGHEST, TenantLimits, Warm,
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::written::Problems;

/// What one installation of a plugin may use.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "PluginLimits")]
pub(super) struct WrittenPluginLimits {
    /// Over this, summed per plugin and transaction, a plugin is reported as slow; 500 when left out.
    goal_ms: Option<u64>,
    /// Of the plugin's own time on a processor: ends one call; 2000 when left out.
    hard_limit_ms: Option<u64>,
    /// Of wall time: ends one call even when the machine was too busy to run it; ten times the hard limit when left
    /// out.
    wall_limit_ms: Option<u64>,
    /// With less than this left of the transaction's budget a call is not begun; 50 when left out.
    call_min_ms: Option<u64>,
    /// One call of the plugin into the host; 5000 when left out.
    host_call_ms: Option<u64>,
    /// All memories of one instance together; 64 when left out.
    #[schemars(range(min = 1, max = 4096))]
    memory_mib: Option<usize>,
    /// All tables of one instance together; 20000 when left out.
    #[schemars(range(min = 1, max = 60000))]
    table_elements: Option<usize>,
    /// Core instances in one component; 16 when left out.
    core_instances: Option<usize>,
    /// Memories of one instance; 2 when left out.
    #[schemars(range(min = 1, max = 2))]
    memories: Option<usize>,
    /// Tables of one instance; 4 when left out.
    #[schemars(range(min = 1, max = 4))]
    tables: Option<usize>,
    /// Handles that one instance can hold; 1000 when left out.
    handles: Option<usize>,
    /// What a plugin is given at once, more rows become several calls; 4096 when left out.
    slice_kib: Option<usize>,
    /// A single row larger than a slice is given up to this size; 8192 when left out.
    transfer_in_kib: Option<usize>,
    /// What a plugin may return at once; 8192 when left out.
    transfer_out_kib: Option<usize>,
    /// Log lines of one call; 64 when left out.
    log_lines: Option<u32>,
    /// Bytes of one log line; 1024 when left out.
    log_line_bytes: Option<usize>,
    /// Log of one transaction; 64 when left out.
    log_kib: Option<usize>,
    /// Lets instances outlive their transaction, for plugins that start slowly. State that such a plugin keeps is seen
    /// by later transactions of the same installation.
    warm: Option<WrittenWarm>,
}

/// Instances that are used again.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Warm")]
struct WrittenWarm {
    /// Instances that wait for work at the same time; 2 when left out.
    #[schemars(range(min = 1))]
    idle: Option<usize>,
    /// Transactions that one instance serves; 128 when left out.
    #[schemars(range(min = 1))]
    transactions: Option<u32>,
    /// How old an instance becomes; 10 when left out.
    #[schemars(range(min = 1))]
    minutes: Option<u64>,
}

/// What all plugins of the tenant may use together.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "TenantLimits")]
pub(super) struct WrittenTenantLimits {
    /// All live instances together; 512 when left out.
    memory_mib: Option<usize>,
    /// Instances that live at the same time; 192 when left out.
    instances: Option<usize>,
    /// Calls that run at the same time; when left out all threads, less one as soon as there is another tenant.
    calls_in_flight: Option<usize>,
    /// Calls that wait for a thread; 1000 when left out.
    calls_waiting: Option<usize>,
}

impl WrittenPluginLimits {
    /// These limits where they are written, and `base` where not.
    pub(super) fn raise(&self, base: &PluginLimits, place: &str, problems: &mut Problems<'_>) -> PluginLimits {
        let millis = |written: Option<u64>, base| written.map_or(base, Duration::from_millis);
        let kib = |written: Option<usize>, base| written.map_or(base, |kib| kib.saturating_mul(1 << 10));
        let hard_limit = millis(self.hard_limit_ms, base.hard_limit);
        let wall_limit = match (self.wall_limit_ms, self.hard_limit_ms) {
            (None, Some(_)) => hard_limit.saturating_mul(10),
            (written, _) => millis(written, base.wall_limit),
        };
        let limits = PluginLimits {
            goal: millis(self.goal_ms, base.goal),
            hard_limit,
            wall_limit,
            call_min: millis(self.call_min_ms, base.call_min),
            host_call_limit: millis(self.host_call_ms, base.host_call_limit),
            memory_bytes_max: self.memory_mib.map_or(base.memory_bytes_max, |mib| mib.saturating_mul(1 << 20)),
            table_elements_max: self.table_elements.unwrap_or(base.table_elements_max),
            core_instances_max: self.core_instances.unwrap_or(base.core_instances_max),
            memories_max: self.memories.unwrap_or(base.memories_max),
            tables_max: self.tables.unwrap_or(base.tables_max),
            handles_max: self.handles.unwrap_or(base.handles_max),
            slice_bytes_max: kib(self.slice_kib, base.slice_bytes_max),
            transfer_in_bytes_max: kib(self.transfer_in_kib, base.transfer_in_bytes_max),
            transfer_out_bytes_max: kib(self.transfer_out_kib, base.transfer_out_bytes_max),
            log_lines_max: self.log_lines.unwrap_or(base.log_lines_max),
            log_line_bytes_max: self.log_line_bytes.unwrap_or(base.log_line_bytes_max),
            log_bytes_max: kib(self.log_kib, base.log_bytes_max),
            warm: self.warm.as_ref().map(WrittenWarm::raise).or(base.warm),
        };
        check(&limits, place, problems);
        limits
    }
}

impl WrittenWarm {
    fn raise(&self) -> Warm {
        let default = Warm::default();
        Warm {
            idle_max: self.idle.unwrap_or(default.idle_max),
            transactions_max: self.transactions.unwrap_or(default.transactions_max),
            age_max: self.minutes.map_or(default.age_max, |minutes| Duration::from_secs(minutes.saturating_mul(60))),
        }
    }
}

impl WrittenTenantLimits {
    pub(super) fn raise(&self, problems: &mut Problems<'_>) -> TenantLimits {
        let default = TenantLimits::default();
        let limits = TenantLimits {
            memory_bytes_max: self.memory_mib.map_or(default.memory_bytes_max, |mib| mib.saturating_mul(1 << 20)),
            instances_max: self.instances.unwrap_or(default.instances_max),
            calls_in_flight_max: self.calls_in_flight.or(default.calls_in_flight_max),
            calls_waiting_max: self.calls_waiting.unwrap_or(default.calls_waiting_max),
        };
        let nothing = limits.memory_bytes_max == 0
            || limits.instances_max == 0
            || limits.calls_in_flight_max == Some(0)
            || limits.calls_waiting_max == 0;
        if nothing {
            problems.add("limits.tenant", "leaves no plugin anything to run with", "Make every limit at least 1");
        }
        limits
    }
}

/// What cannot work, whatever the plugin.
fn check(limits: &PluginLimits, place: &str, problems: &mut Problems<'_>) {
    let mut refuse = |is_wrong: bool, message: &str, remedy: &str| {
        if is_wrong {
            problems.add(place, message, remedy);
        }
    };
    let shortest = [limits.goal, limits.hard_limit, limits.host_call_limit];
    refuse(shortest.contains(&Duration::ZERO), "a time of 0 lets no plugin run", "Give milliseconds, at least 1");
    refuse(
        limits.wall_limit < limits.hard_limit,
        "wall_limit_ms is below hard_limit_ms, so the machine would be blamed for what the plugin does",
        "Make wall_limit_ms a multiple of hard_limit_ms, or leave it out",
    );
    refuse(
        limits.hard_limit < limits.call_min,
        "call_min_ms is above hard_limit_ms",
        "Ask for less to begin a call than a call may take",
    );
    refuse(
        !(1 << 20..=4096 << 20).contains(&limits.memory_bytes_max),
        "memory_mib is not between 1 and 4096",
        "A compiled plugin needs some MiB; 64 are the default",
    );
    refuse(
        !(1..=TABLE_ELEMENTS_HIGHEST).contains(&limits.table_elements_max)
            || !(1..=MEMORIES_HIGHEST).contains(&limits.memories_max)
            || !(1..=TABLES_HIGHEST).contains(&limits.tables_max),
        &format!(
            "table_elements is not between 1 and {TABLE_ELEMENTS_HIGHEST}, memories not between 1 and \
             {MEMORIES_HIGHEST}, or tables not between 1 and {TABLES_HIGHEST}"
        ),
        "Stay within what an instance can have at all",
    );
    refuse(
        limits.slice_bytes_max == 0 || limits.transfer_out_bytes_max == 0,
        "a transfer size of 0 lets nothing through",
        "Give KiB, at least 1",
    );
    let warm_for_nothing =
        |warm: Warm| warm.idle_max == 0 || warm.transactions_max == 0 || warm.age_max == Duration::ZERO;
    refuse(
        limits.warm.is_some_and(warm_for_nothing),
        "warm keeps no instance",
        "Make idle, transactions and minutes at least 1, or leave warm out",
    );
}
