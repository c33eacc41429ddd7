//! Code that the examples share: waiting for the signal to end.

use std::io;

use tokio::signal::unix::{SignalKind, signal};

/// Ends with Ctrl-C, or the SIGTERM that systemd, Docker and Kubernetes send. Call it before the process can be
/// signalled, so that no signal is missed.
pub(crate) fn stopped() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
