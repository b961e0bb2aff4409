//! What a guest may hold: memory per instance and per tenant, table elements, instances.
//!
//! Memory is summed over all memories of a store, because a component can have many.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wasmtime::ResourceLimiter;

/// Core instances of one component: a compiled guest needs three (itself, and two that wire its imports).
const INSTANCES_MAX: usize = 16;
const MEMORIES_MAX: usize = 4;
const TABLES_MAX: usize = 8;
/// Elements of all tables of a store. A compiled guest has one per function whose address is taken.
pub(crate) const TABLE_ELEMENTS_MAX: usize = 20_000;

/// Memory that all live instances of one tenant hold.
#[derive(Debug)]
pub(crate) struct TenantMemory {
    bytes: AtomicUsize,
    bytes_max: usize,
}

impl TenantMemory {
    pub fn new(bytes_max: usize) -> Self {
        Self { bytes: AtomicUsize::new(0), bytes_max }
    }

    fn take(&self, bytes: usize) -> bool {
        self.bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                held.checked_add(bytes).filter(|&wanted| wanted <= self.bytes_max)
            })
            .is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// What the guest was refused. A guest that cannot grow usually traps a moment later; this says why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    Memory { bytes_max: usize },
    TenantMemory { bytes_max: usize },
    Table,
}

/// The limiter of one store. Gives the tenant's memory back when it is dropped.
#[derive(Debug)]
pub(crate) struct Limits {
    tenant: Arc<TenantMemory>,
    memory_bytes: usize,
    memory_bytes_max: usize,
    table_elements: usize,
    /// The growth that was allowed last, in case the allocator then refuses it.
    allowed_last: usize,
    refused: Option<Refused>,
}

impl Limits {
    pub fn new(tenant: Arc<TenantMemory>, memory_bytes_max: usize) -> Self {
        Self { tenant, memory_bytes: 0, memory_bytes_max, table_elements: 0, allowed_last: 0, refused: None }
    }

    /// Memory never shrinks, so this is the peak as well.
    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    pub fn refused(&self) -> Option<Refused> {
        self.refused
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        self.tenant.give_back(self.memory_bytes);
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let growth = desired.saturating_sub(current);
        self.allowed_last = 0;
        if self.memory_bytes_max < self.memory_bytes.saturating_add(growth) {
            self.refused = Some(Refused::Memory { bytes_max: self.memory_bytes_max });
            return Ok(false);
        }
        if !self.tenant.take(growth) {
            self.refused = Some(Refused::TenantMemory { bytes_max: self.tenant.bytes_max });
            return Ok(false);
        }
        self.memory_bytes += growth;
        self.allowed_last = growth;
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.memory_bytes -= self.allowed_last;
        self.tenant.give_back(self.allowed_last);
        self.allowed_last = 0;
        self.refused.get_or_insert(Refused::Memory { bytes_max: self.memory_bytes_max });
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let wanted = self.table_elements.saturating_add(desired.saturating_sub(current));
        if TABLE_ELEMENTS_MAX < wanted {
            self.refused = Some(Refused::Table);
            return Ok(false);
        }
        self.table_elements = wanted;
        Ok(true)
    }

    fn instances(&self) -> usize {
        INSTANCES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_summed_over_memories_and_over_stores() {
        let tenant = Arc::new(TenantMemory::new(150));
        let mut first = Limits::new(tenant.clone(), 100);
        assert!(first.memory_growing(0, 60, None).unwrap(), "the first memory");
        assert!(!first.memory_growing(0, 60, None).unwrap(), "a second one counts with the first");
        assert_eq!(first.refused(), Some(Refused::Memory { bytes_max: 100 }));
        let mut second = Limits::new(tenant.clone(), 100);
        assert!(!second.memory_growing(0, 100, None).unwrap(), "both stores belong to one tenant");
        assert_eq!(second.refused(), Some(Refused::TenantMemory { bytes_max: 150 }));
        assert!(second.memory_growing(0, 90, None).unwrap());
        second.memory_grow_failed(wasmtime::Error::msg("refused by the system")).unwrap();
        assert_eq!((tenant.held(), second.memory_bytes()), (60, 0));
        drop((first, second));
        assert_eq!(tenant.held(), 0, "everything was given back");
    }
}
