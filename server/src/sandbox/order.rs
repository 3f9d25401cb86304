use forkyard_protocol::{ErrorBody, NetworkPolicy};
use tokio::sync::oneshot;

use super::origin::Origin;

/// What a machine's own task is asked to do with it.
pub(super) enum Wish {
    /// Put it on disk; why, where its owner did not ask for it.
    Suspend(Option<String>),
    /// Let it go on.
    Resume,
    /// Give it another idle time-out, in seconds.
    SetTimeout(u64),
    /// Let it go on from a snapshot instead; what it did since is gone.
    Restore(Box<Origin>),
    /// Let it reach something else.
    Network(NetworkPolicy),
}

/// A wish, and who waits for it. Done already where the machine is as wished.
pub(super) struct Order {
    pub wish: Wish,
    answer: oneshot::Sender<Result<(), ErrorBody>>,
}

impl Order {
    pub fn new(wish: Wish) -> (Self, oneshot::Receiver<Result<(), ErrorBody>>) {
        let (answer, answered) = oneshot::channel();
        (Self { wish, answer }, answered)
    }

    /// Tells whoever waits; nobody may, since the caller's own deadline passed.
    pub fn answer(self, outcome: Result<(), ErrorBody>) {
        drop(self.answer.send(outcome));
    }
}
