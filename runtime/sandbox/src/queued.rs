//! A session whose calls are made on the sandbox's threads, each in its tenant's turn.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use crate::fault::{CallFault, FaultKind};
use crate::sandbox::Sandbox;
use crate::session::Session;

/// One transaction of one tenant, from the side of whoever awaits its calls.
///
/// Dropping a call that has not answered cancels it: it is not begun any more, or its guest ends at the next tick. With
/// it goes the session, and every instance of it.
pub struct QueuedSession {
    sandbox: Sandbox,
    tenant: Arc<str>,
    cancelled: Arc<AtomicBool>,
    deadline: Instant,
    /// `None` while a call has it, and for good after a call that was cancelled or broke off.
    session: Option<Session>,
}

impl QueuedSession {
    pub(crate) fn new(sandbox: Sandbox, tenant: Arc<str>, session: Session) -> Self {
        let (cancelled, deadline) = (session.cancelled().clone(), session.deadline());
        Self { sandbox, tenant, cancelled, deadline, session: Some(session) }
    }

    /// When the budget of its calls ends. A guest is ended then; whoever awaits a call should wait a little longer, for
    /// the guest to notice, and not for ever.
    #[must_use]
    pub const fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The budget's part for the calls from now on: more than before once a reserve is free.
    pub fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
        if let Some(session) = &mut self.session {
            session.set_deadline(deadline);
        }
    }

    /// The fault of a call that was dropped because its budget was over and nothing had been heard of it.
    #[must_use]
    pub fn abandoned(&self) -> CallFault {
        FaultKind::Budget.fault("the transaction's budget was spent while a call of a plugin waited for its turn")
    }

    /// Runs the work when it is the tenant's turn. Fails without running it when the tenant has too many calls waiting.
    pub async fn run<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Session) -> T + Send + 'static,
    ) -> Result<T, CallFault> {
        let lost = || FaultKind::Internal.fault("a call of a plugin broke off, and its transaction with it");
        if self.session.is_none() {
            return Err(lost());
        }
        let shared = self.sandbox.shared();
        let session = &mut self.session;
        let queued = shared.workers.submit(&self.tenant, &shared.settings.tenant, &self.cancelled, || {
            let session = session.take();
            move || {
                let mut session = session?;
                let answer = work(&mut session);
                Some((session, answer))
            }
        });
        let turn = queued.map_err(|full| {
            let message = format!("{} calls of plugins of this tenant wait already", full.waiting);
            FaultKind::TenantQueue.fault(message)
        })?;
        match turn.await {
            Ok(Some((session, answer))) => {
                self.session = Some(session);
                Ok(answer)
            }
            Ok(None) | Err(_) => Err(lost()),
        }
    }
}
