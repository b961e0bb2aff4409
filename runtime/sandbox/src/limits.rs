//! What one installation of a plugin may use, and the limiter that holds a store to it.
//!
//! Every limit is on by default. Memory is summed over all memories of a store, because a component can have many, and
//! over all stores of a tenant ([`crate::tenant`]).

use std::sync::Arc;
use std::time::Duration;

use wasmtime::ResourceLimiter;

use crate::tenant::Tenant;

/// Elements of one table in the pool of instances, so the most that `table_elements_max` can be.
pub const TABLE_ELEMENTS_HIGHEST: usize = 60_000;
/// The most that `memories_max` and `tables_max` can be: the pool keeps so many for each of its instances.
pub const MEMORIES_HIGHEST: usize = 2;
pub const TABLES_HIGHEST: usize = 4;

/// The limits of one installation. The defaults suit compiled guests (Rust, C, Go).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The guest's own time with its host calls, summed per plugin and transaction; above it a plugin is reported as
    /// slow, and nothing else happens.
    pub goal: Duration,
    /// Of the guest's own time: ends a call, and the plugin is at fault.
    pub hard_limit: Duration,
    /// Of wall time: ends a call even when its thread could not run, and the machine is at fault.
    pub wall_limit: Duration,
    /// With less than this left of the transaction's budget a call is not begun.
    pub call_min: Duration,
    /// One call of the guest into the host.
    pub host_call_limit: Duration,
    /// All memories of an instance together.
    pub memory_bytes_max: usize,
    /// All tables of an instance together.
    pub table_elements_max: usize,
    /// Core instances in one component: a compiled guest needs three (itself, and two that wire its imports).
    pub core_instances_max: usize,
    pub memories_max: usize,
    pub tables_max: usize,
    /// Handles that a guest can hold at once.
    pub handles_max: usize,
    /// What a guest is given at once; more rows become several calls.
    pub slice_bytes_max: usize,
    /// A single row that is larger than a slice is still given up to this size.
    pub transfer_in_bytes_max: usize,
    /// What a guest may return, or give to a host function, at once.
    pub transfer_out_bytes_max: usize,
    /// Log lines per call, bytes of one, and bytes per transaction. What is more is dropped, and counted.
    pub log_lines_max: u32,
    pub log_line_bytes_max: usize,
    pub log_bytes_max: usize,
    /// Instances that outlive their transaction, for guests whose start is expensive; `None` gives every transaction
    /// an instance of its own.
    pub warm: Option<Warm>,
}

/// When an instance may be used again by a later transaction of the same installation, so of the same tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Warm {
    /// Instances that wait at the same time.
    pub idle_max: usize,
    /// Transactions that one instance may serve.
    pub transactions_max: u32,
    pub age_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            goal: Duration::from_millis(500),
            hard_limit: Duration::from_secs(2),
            wall_limit: Duration::from_secs(20),
            call_min: Duration::from_millis(50),
            host_call_limit: Duration::from_secs(5),
            memory_bytes_max: 64 << 20,
            table_elements_max: 20_000,
            core_instances_max: 16,
            memories_max: MEMORIES_HIGHEST,
            tables_max: TABLES_HIGHEST,
            handles_max: 1_000,
            slice_bytes_max: 4 << 20,
            transfer_in_bytes_max: 8 << 20,
            transfer_out_bytes_max: 8 << 20,
            log_lines_max: 64,
            log_line_bytes_max: 1024,
            log_bytes_max: 64 << 10,
            warm: None,
        }
    }
}

impl Default for Warm {
    fn default() -> Self {
        Self { idle_max: 2, transactions_max: 128, age_max: Duration::from_secs(600) }
    }
}

/// What the guest was refused. A guest that cannot grow usually traps a moment later; this says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Memory {
        bytes_max: usize,
    },
    /// It alone would have got it, but the tenant's other instances hold too much.
    TenantMemory {
        bytes_max: usize,
    },
    Table {
        elements_max: usize,
    },
}

/// The limiter of one store. Gives the tenant's memory back when it is dropped.
#[derive(Debug)]
pub(crate) struct StoreLimiter {
    tenant: Arc<Tenant>,
    limits: Limits,
    memory_bytes: usize,
    table_elements: usize,
    /// The growth that was allowed last, in case the allocator then refuses it.
    allowed_last: usize,
    refused: Option<Refused>,
}

impl StoreLimiter {
    pub fn new(tenant: Arc<Tenant>, limits: Limits) -> Self {
        Self { tenant, limits, memory_bytes: 0, table_elements: 0, allowed_last: 0, refused: None }
    }

    /// Memory never shrinks, so this is the peak as well.
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    pub fn refused(&self) -> Option<Refused> {
        self.refused
    }

    /// A new call is not blamed for what an earlier one was refused.
    pub fn begin(&mut self) {
        self.refused = None;
    }
}

impl Drop for StoreLimiter {
    fn drop(&mut self) {
        self.tenant.give_back_memory(self.memory_bytes);
    }
}

impl ResourceLimiter for StoreLimiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let growth = desired.saturating_sub(current);
        self.allowed_last = 0;
        let wanted = self.memory_bytes.saturating_add(growth);
        if self.limits.memory_bytes_max < wanted {
            self.refused = Some(Refused::Memory { bytes_max: self.limits.memory_bytes_max });
            return Ok(false);
        }
        if !self.tenant.take_memory(growth) {
            let bytes_max = self.tenant.limits.memory_bytes_max;
            let alone = bytes_max < wanted;
            self.refused =
                Some(if alone { Refused::Memory { bytes_max } } else { Refused::TenantMemory { bytes_max } });
            return Ok(false);
        }
        self.memory_bytes = wanted;
        self.allowed_last = growth;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.memory_bytes -= self.allowed_last;
        self.tenant.give_back_memory(self.allowed_last);
        self.allowed_last = 0;
        self.refused.get_or_insert(Refused::Memory { bytes_max: self.limits.memory_bytes_max });
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let wanted = self.table_elements.saturating_add(desired.saturating_sub(current));
        if self.limits.table_elements_max < wanted {
            self.refused = Some(Refused::Table { elements_max: self.limits.table_elements_max });
            return Ok(false);
        }
        self.table_elements = wanted;
        Ok(true)
    }

    fn instances(&self) -> usize {
        self.limits.core_instances_max
    }

    fn memories(&self) -> usize {
        self.limits.memories_max
    }

    fn tables(&self) -> usize {
        self.limits.tables_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::TenantLimits;

    fn tenant(memory_bytes_max: usize) -> Arc<Tenant> {
        Arc::new(Tenant::new(TenantLimits { memory_bytes_max, ..TenantLimits::default() }))
    }

    #[test]
    fn memory_is_summed_over_memories_and_over_stores() {
        let tenant = tenant(150);
        let limits = Limits { memory_bytes_max: 100, ..Limits::default() };
        let mut first = StoreLimiter::new(tenant.clone(), limits);
        assert!(first.memory_growing(0, 60, None).unwrap(), "the first memory");
        assert!(!first.memory_growing(0, 60, None).unwrap(), "a second one counts with the first");
        assert_eq!(first.refused(), Some(Refused::Memory { bytes_max: 100 }));
        let mut second = StoreLimiter::new(tenant.clone(), limits);
        assert!(!second.memory_growing(0, 100, None).unwrap(), "both stores belong to one tenant");
        assert_eq!(second.refused(), Some(Refused::TenantMemory { bytes_max: 150 }));
        assert!(second.memory_growing(0, 90, None).unwrap());
        second.memory_grow_failed(wasmtime::Error::msg("refused by the system")).unwrap();
        assert_eq!((tenant.memory_bytes(), second.memory_bytes()), (60, 0));
        drop((first, second));
        assert_eq!(tenant.memory_bytes(), 0, "everything was given back");
    }

    #[test]
    fn who_needs_more_than_its_tenant_may_have_is_at_fault_itself() {
        let mut alone = StoreLimiter::new(tenant(150), Limits::default());
        assert!(!alone.memory_growing(0, 151, None).unwrap());
        assert_eq!(alone.refused(), Some(Refused::Memory { bytes_max: 150 }));
        alone.begin();
        assert_eq!(alone.refused(), None, "the next call begins without it");
    }

    #[test]
    fn elements_are_summed_over_tables() {
        let limits = Limits { table_elements_max: 10, ..Limits::default() };
        let mut limiter = StoreLimiter::new(tenant(0), limits);
        assert!(limiter.table_growing(0, 6, None).unwrap());
        assert!(limiter.table_growing(6, 8, None).unwrap(), "the same table grows");
        assert!(!limiter.table_growing(0, 3, None).unwrap(), "a second table");
        assert_eq!(limiter.refused(), Some(Refused::Table { elements_max: 10 }));
    }
}
