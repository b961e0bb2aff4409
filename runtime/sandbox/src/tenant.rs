//! What one tenant may hold of the sandbox, over all its plugins, and what it holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The limits of every tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TenantLimits {
    /// All live instances together.
    pub memory_bytes_max: usize,
    /// Instances that live at the same time, running or waiting for their transaction to go on.
    pub instances_max: usize,
    /// Calls that run at the same time; `None` for all threads, less one as soon as there is another tenant.
    pub calls_in_flight_max: Option<usize>,
    /// Calls that wait for a thread; one more is refused.
    pub calls_waiting_max: usize,
}

impl Default for TenantLimits {
    fn default() -> Self {
        // Three quarters of the instances that the pool has: others always find some.
        Self { memory_bytes_max: 512 << 20, instances_max: 192, calls_in_flight_max: None, calls_waiting_max: 1_000 }
    }
}

/// What a tenant holds right now, and what it has used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct TenantUse {
    pub memory_bytes: usize,
    pub instances: usize,
    /// Of the queue for the sandbox's threads.
    pub calls_in_flight: usize,
    pub calls_waiting: usize,
    /// Time on a processor of all calls that went through the queue.
    pub cpu: Duration,
}

/// One tenant, shared by everything that runs for it.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub limits: TenantLimits,
    memory_bytes: AtomicUsize,
    instances: AtomicUsize,
}

impl Tenant {
    pub fn new(limits: TenantLimits) -> Self {
        Self { limits, memory_bytes: AtomicUsize::new(0), instances: AtomicUsize::new(0) }
    }

    pub fn memory_bytes(&self) -> usize {
        self.memory_bytes.load(Ordering::Relaxed)
    }

    pub fn instances(&self) -> usize {
        self.instances.load(Ordering::Relaxed)
    }

    pub fn take_memory(&self, bytes: usize) -> bool {
        take(&self.memory_bytes, bytes, self.limits.memory_bytes_max)
    }

    pub fn give_back_memory(&self, bytes: usize) {
        self.memory_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// A place for one more instance, if there is one.
    pub fn take_instance(self: &Arc<Self>) -> Option<InstancePlace> {
        take(&self.instances, 1, self.limits.instances_max).then(|| InstancePlace(self.clone()))
    }
}

fn take(held: &AtomicUsize, more: usize, most: usize) -> bool {
    held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
        held.checked_add(more).filter(|&wanted| wanted <= most)
    })
    .is_ok()
}

/// A place among the tenant's instances, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct InstancePlace(Arc<Tenant>);

impl Drop for InstancePlace {
    fn drop(&mut self) {
        self.0.instances.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_and_come_back() {
        let tenant = Arc::new(Tenant::new(TenantLimits { instances_max: 2, ..TenantLimits::default() }));
        let (first, second) = (tenant.take_instance(), tenant.take_instance());
        assert!(first.is_some() && second.is_some() && tenant.take_instance().is_none());
        drop(first);
        assert!(tenant.take_instance().is_some(), "one is free again");
        drop(second);
        assert_eq!(tenant.instances(), 0);
    }
}
