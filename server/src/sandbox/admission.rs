//! How a machine comes by its room: at once, by machines that wait in pools giving way, or by waiting in line.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use forkyard_protocol::{ErrorBody, ErrorCode, KeyId, KeyInfo};
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use super::line::{Line, Verdict};
use super::manager::Sandboxes;
use super::record::Record;
use super::registry::{Claims, Reserved};

/// Most who wait for room at once; whoever comes then is refused.
const MAX_WAITING: usize = 4096;

/// How long one who would not wait in line waits for a machine of a pool to give way: it is killed and its files deleted.
const GIVE_WAY: Duration = Duration::from_secs(10);

/// One who waits for room. Dropped, it leaves the line, and gives back what it was given meanwhile.
struct Waiting<'a> {
    sandboxes: &'a Sandboxes,
    answered: oneshot::Receiver<Result<Reserved, ErrorBody>>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.answered.close();
        if let Ok(Ok(reserved)) = self.answered.try_recv() {
            self.sandboxes.give_back(reserved);
        }
        self.sandboxes.serve_line();
    }
}

/// Those who wait for room.
#[derive(Default)]
pub(super) struct Admission {
    line: Mutex<Line<KeyId, Waiter>>,
    /// Told whenever there may be room for another.
    pub freed: Notify,
}

struct Waiter {
    record: Record,
    claims: Claims,
    caller: KeyInfo,
    answer: Option<oneshot::Sender<Result<Reserved, ErrorBody>>>,
}

impl Sandboxes {
    /// Gives room to a new machine; waits for it up to `patience`, in line with all others who do.
    pub(super) async fn admit(
        &self,
        record: Record,
        claims: Claims,
        caller: &KeyInfo,
        patience: Duration,
    ) -> Result<Reserved, ErrorBody> {
        let refusal = if self.line().waits_for_host() {
            let message = "others wait in line for room on this host";
            ErrorBody::new(ErrorCode::NoCapacity, message).retry_after_ms(1000)
        } else {
            match self.reserve(record.clone(), claims, caller) {
                Err(error) if matches!(error.code, ErrorCode::NoCapacity | ErrorCode::QuotaExceeded) => error,
                other => return other,
            }
        };
        let gives_way = self.give_way(&refusal, caller);
        let patience = if gives_way { patience.max(GIVE_WAY) } else { patience };
        if patience.is_zero() {
            return Err(refusal);
        }
        let (answer, answered) = oneshot::channel();
        {
            let mut line = self.line();
            if line.len() >= MAX_WAITING {
                return Err(refusal);
            }
            let waiter = Waiter { record, claims, caller: caller.clone(), answer: Some(answer) };
            line.join(caller.key_id.clone(), waiter);
        }
        let mut waiting = Waiting { sandboxes: self, answered };
        // Room may have come free since it was refused.
        self.serve_line();
        match timeout(patience, &mut waiting.answered).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(refusal),
        }
    }

    /// Gives room to those who wait, as far as there is any. To be called whenever some came free.
    pub(super) fn serve_line(&self) {
        self.line().serve(|waiter| {
            let Some(answer) = waiter.answer.take_if(|answer| !answer.is_closed()) else {
                return Verdict::Served;
            };
            let outcome = match self.reserve(waiter.record.clone(), waiter.claims, &waiter.caller) {
                Err(error) if error.code == ErrorCode::QuotaExceeded => {
                    self.give_way(&error, &waiter.caller);
                    waiter.answer = Some(answer);
                    return Verdict::KeyFull;
                }
                Err(error) if error.code == ErrorCode::NoCapacity => {
                    self.give_way(&error, &waiter.caller);
                    waiter.answer = Some(answer);
                    return Verdict::HostFull;
                }
                outcome => outcome,
            };
            if let Err(Ok(reserved)) = answer.send(outcome) {
                self.give_back(reserved);
            }
            Verdict::Served
        });
        self.admission.freed.notify_waiters();
    }

    /// Whether nobody waits, so that machines may be made that nobody has asked for yet.
    pub(super) fn has_no_line(&self) -> bool {
        self.line().len() == 0
    }

    fn reserve(&self, record: Record, claims: Claims, caller: &KeyInfo) -> Result<Reserved, ErrorBody> {
        self.registry.reserve(record, claims, caller, self.settings.budget, self.vmm.overhead_mb())
    }

    /// Ends a machine that waits in a pool, if that helps; the line is served once it has ended.
    fn give_way(&self, refusal: &ErrorBody, caller: &KeyInfo) -> bool {
        let withdrawn = self.registry.withdraw_one(refusal, caller);
        if let Some(slot) = &withdrawn {
            slot.stop("it made room for a machine that was asked for");
        }
        withdrawn.is_some()
    }

    /// Takes back what nobody waited for any more.
    fn give_back(&self, reserved: Reserved) {
        match reserved {
            Reserved::New(slot) => self.registry.forget(slot.id()),
            Reserved::Claimed(slot) => slot.stop("nobody waited for it any more"),
            Reserved::Existing(_) => {}
        }
    }

    fn line(&self) -> MutexGuard<'_, Line<KeyId, Waiter>> {
        self.admission.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
